"""Commands in the documents: the program takes their words, and the settings that they name."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from flows.cli import main as cli
from flows.cli.flow_commands import proxy_changes
from flows.cli.server_commands import parameter
from flows.servers.deployments import FLOWS
from nas_core.config import SECTIONS
from nas_core.loading import load_settings, profiles

ROOT = Path(__file__).parents[2]
LISTED = subprocess.run(
    ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
).stdout.split()
NAS = typer.main.get_command(cli.app)
BLOCK = re.compile(r"^    +(?:\$ )?(?:\.venv/bin/)?((?:nas|python -m benchmarks|prefect dep)\b.*)$")
INLINE = re.compile(r"`(nas [^`]+)`")


def commands(name: str) -> Iterator[list[str]]:
    """The words of each command that stands in a block of its own, without `...`."""
    text = (ROOT / name).read_text(encoding="utf-8")
    for line in re.sub(r" *\\\n +", " ", text).splitlines():
        if found := BLOCK.match(line):
            words = shlex.split(found[1], comments=True)
            yield [word for word in words if word != "..."]


BLOCKS = [(name, words) for name in LISTED for words in commands(name)]
INLINES = sorted(
    {
        words
        for name in LISTED
        for words in INLINE.findall((ROOT / name).read_text(encoding="utf-8"))
    }
)


def find(words: list[str]) -> tuple[Any, list[str]]:
    """The command of nas that these words call, and what they give it."""
    command: Any = NAS
    while isinstance(command, TyperGroup) and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"no command {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    return command, words


def values(words: list[str], *options: str) -> list[str]:
    """What is given to an option, wherever it stands."""
    return [given for option, given in pairwise(words) if option in options]


def test_there_are_commands() -> None:
    assert len(BLOCKS) > 60 and len(INLINES) > 20


@pytest.mark.parametrize(
    ("name", "words"), BLOCKS, ids=[f"{name}: {' '.join(words)[:60]}" for name, words in BLOCKS]
)
def test_a_command_is_taken(name: str, words: list[str]) -> None:
    if words[0] == "nas":
        command, given = find(words[1:])
        command.make_context(command.name, list(given))
    elif words[0] == "python":
        place = ROOT / words[2].replace(".", "/")
        assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file()
    chosen = [word for word in (*values(words, "-p"), *words[1:3]) if word in profiles(ROOT)]
    load_settings(chosen[0] if chosen else "camvid", values(words, "-S"), root=ROOT)
    for changes in values(words, "--proxy"):
        if "=" in changes:
            load_settings("camvid", proxy_changes(changes), root=ROOT)
    for deployment in [word for word in words if word.partition("/")[0] in FLOWS]:
        parameters = dict(map(parameter, values(words, "--param")))
        sections = {key: value for key, value in parameters.items() if key in (*SECTIONS, "seed")}
        assert parameters.keys() - sections.keys() <= {"seeds", "architectures", "stage", "name"}
        profile = deployment.partition("/")[2]
        load_settings(
            profile if profile in profiles(ROOT) else "camvid", sections=sections, root=ROOT
        )


@pytest.mark.parametrize("text", INLINES)
def test_a_command_in_a_sentence_has_options_that_exist(text: str) -> None:
    command, given = find(text.split()[1:])
    known = {option for parameter in command.params for option in parameter.opts}
    known |= {"-h", "--help", "--install-completion"}
    assert {word for word in given if re.match(r"--?[a-z]", word)} <= known
