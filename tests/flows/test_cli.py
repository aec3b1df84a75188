"""What people type, and what they get back."""

import errno
import io
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import psutil
import pytest
import yaml
from PIL import Image
from prefect import flow
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_PROFILES_PATH,
    Settings,
    load_profiles,
    temporary_settings,
)

from flows.cli import main as cli
from flows.cli import terminal
from flows.cli.places import check_places
from flows.servers.processes import Service, Services
from nas_core.base.errors import RunError, SettingsError
from nas_core.base.locks import RunLock
from nas_core.models.state import load_plain
from nas_core.search.about import write_about
from nas_core.search.journal import Header, Journal, Record
from nas_core.space.architectures import ARCHITECTURES
from nas_core.space.decisions import sample
from nas_core.training.record import EPOCHS_FILE, EpochsDone
from tests.serving import free_port
from tests.tiny import tiny

ROOT = Path(__file__).resolve().parents[2]


class Nas:
    """Runs the command line in this process."""

    def __init__(self, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self.patch, self.capture, self.width = patch, capture, 120

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        self.patch.setattr(sys, "argv", ["nas", *arguments])
        self.patch.setattr(terminal.console, "width", self.width)
        with pytest.raises(SystemExit) as ended:
            cli.main()
            raise SystemExit(0)
        code = ended.value.code
        out, err = self.capture.readouterr()
        return (code if isinstance(code, int) else 1 if code else 0), out, err


@pytest.fixture
def nas(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Nas:
    return Nas(monkeypatch, capsys)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a journal of three candidates, the second of which failed."""
    monkeypatch.setenv("NAS_PROJECT_DIR", str(tmp_path))
    (tmp_path / "params.yaml").write_text("name: small\n")

    rng = np.random.default_rng(0)
    path = tmp_path / "artifacts" / "searches" / "small-1234" / "journal.jsonl"
    path.parent.mkdir(parents=True)
    with Journal.create(path, Header(format=1, settings={}, identity={})) as journal:
        for index, reward in enumerate([0.4, None, 0.5]):
            genotype = sample(rng)
            journal.append(
                Record(
                    index=index,
                    round=0,
                    candidate=index + 1,
                    id=genotype.id,
                    genotype=genotype.to_dict(),
                    status="failed" if reward is None else "finished",
                    reward=reward,
                    metrics={} if reward is None else {"mean_iou": reward - 0.1},
                    num_parameters=1000,
                    macs=10**9,
                    seed=1,
                    reason="the loss was not finite" if reward is None else "",
                )
            )
    return tmp_path


def test_a_report_is_written_and_opened(nas: Nas, project: Path) -> None:
    path = project / "artifacts" / "searches" / "small-1234" / "report.html"
    code, out, _ = nas("report")
    assert (code, out.split()) == (0, [str(path)]) and "small-1234" in path.read_text()
    opener = project / "opener"
    opener.write_text(f'#!/bin/sh\necho "$1" > {project}/opened\n')
    opener.chmod(0o755)
    code, _, error = subprocess_of(project, "report", "small-1234", "--open", BROWSER=str(opener))
    assert code == 0 and all("losses.json is missing" in line for line in error.splitlines())
    assert (project / "opened").read_text().split() == [path.as_uri()]
    (path.parent / "about.json").write_text("{")
    code, out, error = nas("report")
    assert (code, out.split()) == (0, [str(path)])
    note = error.splitlines()[0]
    assert note.startswith(f"{path.parent / 'about.json'}: not a JSON file: ")
    assert note.endswith(": delete it, and the search writes it again when it goes on")
    code, _, error = nas("report", "other")
    assert code == 1 and "no search 'other'; there are: small-1234" in error


def subprocess_of(project: Path, *arguments: str, **environment: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", "from flows.cli.main import main; main()", *arguments],
        env={**os.environ, "NAS_PROJECT_DIR": str(project), **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


def test_the_status_of_a_search_that_runs(nas: Nas, project: Path) -> None:
    nas.width = 80
    folder = project / "artifacts" / "searches" / "small-1234"
    write_about(folder, time.time(), 8, {})
    trainings = project / "artifacts" / "trainings"
    with (
        RunLock(folder),
        RunLock(trainings / "arch0-0123"),
        RunLock(trainings / "arch1-0123"),
        RunLock(trainings / "camvid0-0123"),
    ):
        EpochsDone(done=3, planned=16).write(trainings / "arch0-0123" / EPOCHS_FILE)
        (trainings / "camvid0-0123" / EPOCHS_FILE).write_text("{")
        code, out, _ = nas("status")
    assert code == 0 and max(map(len, out.splitlines())) <= 80
    text = " ".join(out.split())
    assert "search small-1234 runs, since 20" in text and f"process {os.getpid()}" in text
    assert "candidate 3 of 8: 0 stopped early, 1 failed; about" in text
    best = max(
        (r for r in Journal.read(folder / "journal.jsonl").candidates if r.reward),
        key=lambda record: record.reward or 0,
    )
    assert f"best {best.id}: reward 0.5000, mIoU 40.0 %, 1K parameters, 1.00 GMACs" in text
    arch0, arch1, camvid0 = text.partition(" servers ")[0].split(" training ")[1:]
    assert arch0.startswith("arch0-0123 runs, since 20") and arch0.endswith("; epoch 3 of 16")
    assert "epoch" not in arch1 and "epochs.json: not a JSON file" in camvid0
    assert "`nas report small-1234` writes it" in text and "`nas up` starts Prefect" in text


def test_the_status_of_what_does_not_run(nas: Nas, project: Path) -> None:
    folder = project / "artifacts" / "searches" / "small-1234"
    write_about(folder, time.time(), 8, {})
    code, out, _ = nas("status")
    assert code == 0 and "is stopped: the command that began it goes on from here" in out
    services = project / "artifacts" / "services" / "services.json"
    services.parent.mkdir()
    services.write_text("{")
    (folder / "journal.jsonl").write_text("{}\n")
    code, out, _ = nas("status")
    told = "".join(out.split())
    assert code == 0 and "journal.jsonl,line1" in told and "services.jsoncannotberead" in told
    shutil.rmtree(folder)
    code, out, _ = nas("status")
    assert code == 0 and "none yet: `nas search -p synthetic`" in out


def test_the_status_tells_of_the_latest_run_until_it_is_completed(
    nas: Nas, project: Path, prefect_server: str
) -> None:
    own = psutil.Process()
    record = Services(project / "artifacts" / "services" / "services.json")
    record.path.parent.mkdir()
    record.services["prefect"] = Service(
        "Prefect", own.pid, own.create_time(), prefect_server, "prefect.log"
    )
    record.write()

    @flow(flow_run_name="that-one")
    def search(reason: str) -> None:
        if reason:
            raise RunError(reason)

    with temporary_settings({PREFECT_API_URL: prefect_server}):
        with pytest.raises(RunError):
            search("no weights")
        code, out, _ = nas("status")
        told = " ".join(out.split())
        assert code == 0 and "latest run that-one, failed since " in told
        assert "no weights" in told and "/runs/flow-run/" in told
        search("")
    assert "latest run" not in nas("status")[1]
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/api"
        record.services["prefect"] = replace(record.services["prefect"], url=address)
        record.write()
        code, out, _ = nas("status")
    assert code == 0 and "Prefect does not say: " in " ".join(out.split())


REFERENCE = json.loads((ROOT / "tests/reference/architectures.json").read_text())


@pytest.mark.parametrize(
    "command",
    [["search"], ["train", "arch0"], ["compare"], ["fidelity"], ["verify"], ["up"], ["run", "a/b"]],
    ids=lambda command: command[0],
)
@pytest.mark.parametrize("name", ["HOME", "PREFECT_HOME", "TMPDIR", "artifacts"])
def test_a_place_that_cannot_be_written_is_named_in_one_line(
    nas: Nas, project: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], name: str
) -> None:
    file = project / "file"
    file.touch()
    monkeypatch.delenv("PREFECT_HOME", raising=False)
    named = str(file)
    if name == "artifacts":
        (project / "artifacts").rename(project / "elsewhere")
        (project / "artifacts").touch()
        named = str(project / "artifacts")
    elif name == "TMPDIR":
        nowhere = FileNotFoundError("No usable temporary directory found")
        monkeypatch.setattr(tempfile, "gettempdir", mock.Mock(side_effect=nowhere))
        named = "set TMPDIR"
    else:
        monkeypatch.setenv(name, f"{file}/home")
    code, out, err = nas(*command)
    assert code == 1 and named in err and out == "" and len(err.splitlines()) == 1, (out, err)
    assert name not in ("HOME", "PREFECT_HOME") or "set PREFECT_HOME (or HOME) to" in err


NO_ENCODER = ("-S network.encoder=resnet18", "network.encoder = 'resnet18': there are")
NO_PROGRAM = (
    "-S 'search.latency.command=no-such-program {model}' -S search.constraints.max_latency_ms=9",
    "there is no program no-such-program",
)


@pytest.mark.parametrize(
    ("command", "options", "said"),
    [
        *((command, *NO_ENCODER) for command in ("search", "train arch0", "compare", "verify")),
        *((command, *NO_PROGRAM) for command in ("search", "compare", "fidelity")),
    ],
)
def test_what_settings_name_is_looked_up_before_prefect_is_asked(
    nas: Nas, project: Path, command: str, options: str, said: str
) -> None:
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}):
        code, out, err = nas(*command.split(), *shlex.split(options))
    assert (code, out) == (1, "") and said in " ".join(err.split()), err


def test_prefects_own_settings_may_name_another_home(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "file").touch()
    (project / "prefect.toml").write_text(f'home = "{project}/state"\n')
    monkeypatch.delenv("PREFECT_HOME", raising=False)
    monkeypatch.setenv("HOME", str(project / "file"))
    monkeypatch.chdir(project)
    check_places(project)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("socks5://127.0.0.1:1080", "SOCKS needs the package socksio: pip install socksio"),
        ("::::", "expected http://HOST:PORT"),
        ("ftp://user:hunter2@host", "expected http://HOST:PORT"),
        ("http://user:hunter2@host:port", "expected http://HOST:PORT"),
    ],
)
def test_a_proxy_that_is_none(
    project: Path, monkeypatch: pytest.MonkeyPatch, address: str, message: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", address)
    with pytest.raises(SettingsError, match=rf"ALL_PROXY cannot be used \({message}") as raised:
        check_places(project)
    assert "hunter2" not in str(raised.value)
    for fine in ("http://127.0.0.1:9", "127.0.0.1:9", ""):
        monkeypatch.setenv("ALL_PROXY", fine)
        check_places(project)


def test_exceptions_from_proxies_that_are_none(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for wrong in ("localhost,[::1]", "fe80::/10"):
        monkeypatch.setenv("no_proxy", wrong)
        with pytest.raises(SettingsError, match=r"no_proxy .or NO_PROXY. cannot be used: .*::1"):
            check_places(project)
    monkeypatch.setenv("no_proxy", "localhost,::1,10.0.0.0/8,.local")
    check_places(project)


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_certificates_that_are_none(
    project: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    if content:
        (project / "ca.pem").write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(project / "ca.pem"))
    with pytest.raises(SettingsError, match=r"SSL_CERT_FILE is .*ca.pem, which cannot be used"):
        check_places(project)


def test_the_home_of_nobody(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", "~nobody-of-that-name/prefect")
    with pytest.raises(RunError, match="there is no such user: set PREFECT_HOME"):
        check_places(project)


@pytest.mark.parametrize("name", ["arch0", "arch1"])
def test_describe_gives_the_reference_counts(nas: Nas, name: str) -> None:
    code, out, _ = nas("describe", name, "--json")
    found = json.loads(out)
    expected = REFERENCE[name]["full_64_2_11"]
    assert code == 0 and set(found) == {"id", "num_parameters", "macs", "output_size"}
    assert found["num_parameters"] == expected["params"]
    assert found["macs"] == expected["conv_macs_360x480"]
    assert found["output_size"] == expected["output_hw"]


def test_describe_takes_a_file_and_all_options(nas: Nas, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(ARCHITECTURES["arch1"].to_dict()))
    options = ["--num-classes", "11", "--agg-size", "48", "--sep-repeats", "1"]
    _, out, _ = nas("describe", str(path), *options, "--input-size", "360x480", "--json")
    assert json.loads(out)["num_parameters"] == REFERENCE["arch1"]["search_48_1_11"]["params"]
    _, text, _ = nas("describe", str(path), "--num-classes", "19")
    assert "267,147" in text and "sep_conv_5x5" in text


def test_describe_knows_the_limit_of_classes(nas: Nas) -> None:
    assert nas("describe", "arch0", "--num-classes", "255")[0] == 0
    code, _, err = nas("describe", "arch0", "--num-classes", "256")
    assert code == 2 and "255" in err and "Traceback" not in err


def test_describe_draws_what_it_describes(nas: Nas, tmp_path: Path) -> None:
    path = tmp_path / "arch1.svg"
    code, out, _ = nas("describe", "arch1", "--num-classes", "19", "--draw", str(path))
    assert code == 0 and out.splitlines()[-1] == f"written: {path}"
    text = path.read_text()
    assert "arch1 · " in text and "19 classes" in text and "image" in text and "480×360" in text
    # Again, with other settings: it takes the place of the old one.
    options = ["--input-size", "1024x2048", "--json"]
    code, out, _ = nas("describe", "arch1", *options, "--draw", str(path))
    assert code == 0 and json.loads(out)["macs"] > 10**10
    assert "2048×1024" in path.read_text()
    picture = tmp_path / "arch1.png"
    assert nas("describe", "arch1", "--draw", str(picture))[0] == 0
    assert Image.open(picture).width == 1200
    assert sorted(tmp_path.iterdir()) == [picture, path]


def test_describe_finds_what_a_search_trained(nas: Nas, project: Path) -> None:
    _, out, _ = nas("leaderboard", "--json")
    best = json.loads(out)[0]["id"]
    assert json.loads(nas("describe", best[:8], "--json")[1])["id"] == best


def test_leaderboard_shows_the_best_first_and_failures_last(nas: Nas, project: Path) -> None:
    code, out, _ = nas("leaderboard")
    assert code == 0 and "small-1234" in out
    lines = [line for line in out.splitlines() if "K" in line]
    assert "0.5000" in lines[0] and "0.4000" in lines[1] and "failed" in lines[2]


def test_leaderboard_writes_files(nas: Nas, project: Path, tmp_path: Path) -> None:
    csv, parquet = tmp_path / "a.csv", tmp_path / "a.parquet"
    assert nas("leaderboard", "--csv", str(csv), "--parquet", str(parquet))[0] == 0
    tables = pd.read_csv(csv), pd.read_parquet(parquet)
    assert [list(table["reward"].dropna()) for table in tables] == [[0.5, 0.4]] * 2
    assert list(tables[0].columns) == list(tables[1].columns)


def test_leaderboard_of_nothing_says_so(
    nas: Nas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "params.yaml").write_text("seed: 0\n")
    monkeypatch.setenv("NAS_PROJECT_DIR", str(tmp_path))
    code, _, err = nas("leaderboard")
    assert code == 1 and "no search yet" in err


ADDRESS = "https://me:hunter2@example.org/data"


@pytest.mark.parametrize(
    "arguments",
    [
        ["init", ADDRESS],
        ["data", "check", ADDRESS],
        ["data", "import", "file.json", "s3://bucket/out"],
        ["describe", "arch0", f"--draw={ADDRESS}"],
        ["describe", ADDRESS],
        ["leaderboard", "--csv", ADDRESS],
        ["predict", "--model", ADDRESS, "a.jpg", "--out", "out"],
        ["predict", "--model", "arch0-camvid", ADDRESS, "--out", "out"],
        ["export", "arch0-camvid", "--out", "file:///tmp/a.onnx"],
        ["bench", "--file", ADDRESS],
        ["ship", ADDRESS],
        ["train", ADDRESS],
        ["search", "-p", ADDRESS],
    ],
    ids=" ".join,
)
def test_an_address_in_the_place_of_a_path(
    nas: Nas, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, error = nas(*arguments)
    assert (code, out) == (1, "") and "hunter2" not in error
    assert "is an address: give the path of a folder or file of this machine" in error
    assert len(error.splitlines()) <= 2 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--host", "--allow-host"])
def test_an_address_in_the_place_of_a_host(nas: Nas, option: str) -> None:
    for arguments in ([option, ADDRESS], [f"{option}={ADDRESS}"]):
        code, out, error = nas("up", *arguments)
        assert (code, out) == (1, "") and "hunter2" not in error
        assert option in error and "expected" in error and "path" not in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["describe", "arch2"], "unknown architecture 'arch2'"),
        (["describe", "missing.json"], "missing.json"),
        (["describe", "arch0", "--input-size", "360"], "expected HxW"),
        (["describe", "arch0", "--input-size", "16x999"], "expected HxW"),
        (["describe", "arch0", "--draw", "a.pdf"], "--draw a.pdf: expected the path of a file"),
        (["describe", "arch0", "--draw", "no/a.svg"], "--draw no/a.svg: the folder no does not"),
        (["search", "-S", "search.num_candidate=8"], "did you mean 'search.num_candidates'"),
        (["search", "-S", "search.num_candidates=-3"], "search.num_candidates = -3"),
        # A Cyrillic letter in each.
        (
            ["search", "-S", "se\u0430rch.seed=1"],
            r"unknown key 'se\u0430rch'; did you mean 'search'",
        ),
        (["search", "-S", "train.splits=tr\u0430in"], r"train.splits = 'tr\u0430in': expected"),
        (["search", "-p", "c\u0430mvid"], r"unknown profile 'c\u0430mvid'; there are: camvid"),
        (["describe", "\u0430rch0"], r"unknown architecture '\u0430rch0'"),
        (["search", "-p", "nowhere"], "unknown profile 'nowhere'"),
        (["compare", "--strategy", "ppoo"], "strategy 'ppoo': there are ppo, ppo-independent"),
        (["compare", "--seed", "1", "--seed", "1"], "seed 1 is given twice"),
        (["compare", "-S", "search.num_candidates=3"], "search.num_candidates = 3"),
        (["verify", "--seed", "1", "--seed", "1"], "seed 1 is given twice"),
        (["verify", "nowhere"], "unknown profile 'nowhere'"),
        (["verify", "--architecture", "arch7"], "unknown architecture 'arch7'"),
        (["verify", "-S", "train.splits=val"], "train.splits = 'val'"),
        (["train", "arch0", "-S", "train.epoch=3"], "did you mean 'train.epochs'"),
        (["leaderboard", "--run", "nowhere"], "nowhere"),
        (["fidelity", "--proxy", "height"], "--proxy height: expected KEY=VALUE"),
        (["fidelity", "--proxy", "heigth=72"], "did you mean 'search.proxy.height'"),
        (["fidelity", "--proxy", "height=72,width=1"], "search.proxy.width = 1"),
        (["run", "nas-search/camvid", "--param", "seed"], "--param seed: expected KEY=VALUE"),
        (["run", "nas-search/camvid", "--param", "=1"], "--param =1: expected KEY=VALUE"),
        (["run", "nas-search/camvid", "--param", 'train={"top": }'], "--param train: {"),
        (["search", "-S", "seed=1", "-S", "seed =2"], "-S seed is given twice"),
        (["fidelity", "--proxy", "height=72,height=96"], "height=96: height is given twice"),
        (["run", "a/b", "--param", "seed=1", "--param", "seed=2"], "--param seed is given twice"),
        (["run", "a/b", "--param", 'train={"top": 1, "top": 2}'], "key 'top' is given twice"),
    ],
)
def test_bad_input_is_a_message(
    nas: Nas, project: Path, arguments: list[str], message: str
) -> None:
    code, out, err = nas(*arguments)
    assert code == 1 and message in err.replace("\n", " ")
    assert "Traceback" not in err + out
    assert len(err.strip().splitlines()) <= 2


@pytest.mark.parametrize(
    "arguments", [["search"], ["search", "--stage", "prepare"], ["train", "arch0"]]
)
def test_a_prefect_server_that_is_gone_is_a_message(
    nas: Nas, project: Path, arguments: list[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nothing listens
        address = f"http://127.0.0.1:{taken.getsockname()[1]}/api"
        with temporary_settings({PREFECT_API_URL: address}):
            code, out, err = nas(*arguments)
    assert code == 1 and f"no Prefect server answers at {address}" in err
    assert "Traceback" not in err + out and len(err.splitlines()) == 1
    assert not (project / "artifacts" / "prepared").exists()


@pytest.mark.parametrize(
    "address", ["http://h:99999/api", "http://a\nb/api", "http://\u200bx/api", "ftp://h/api", "h"]
)
def test_an_address_of_prefect_that_is_none_is_a_message(nas: Nas, address: str) -> None:
    with temporary_settings({PREFECT_API_URL: address}):
        code, out, err = nas("search")
    assert code == 1 and "error: ServiceError: PREFECT_API_URL is " in err
    assert "Traceback" not in err + out and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("PREFECT_API_URL", "http://user:hunter2@[::1"), ("PREFECT_CLIENT_MAX_RETRIES", "many")],
)
def test_settings_of_prefect_that_are_not_valid_are_a_message(
    nas: Nas, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)

    def load() -> None:
        Settings()  # as Prefect does when it is imported first

    monkeypatch.setattr("flows.cli.main.app", load)
    code, out, err = nas()
    assert code == 1 and "error: Prefect's settings: " in err and "hunter2" not in err
    assert "Traceback" not in err + out and len(err.splitlines()) == 1


@pytest.mark.parametrize("name", ["prefect.toml", "profiles.toml"])
def test_files_of_prefects_settings_that_are_no_toml_are_a_message(
    nas: Nas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_text("[[")

    def load() -> None:  # as Prefect does when it is imported first
        if name == "prefect.toml":
            Settings()
        with temporary_settings({PREFECT_PROFILES_PATH: tmp_path / name}):
            load_profiles()

    monkeypatch.setattr("flows.cli.main.app", load)
    code, out, err = nas()
    assert code == 1 and "error: Prefect's settings: " in err and name in err
    assert "Traceback" not in err + out and len(err.splitlines()) == 1


@pytest.mark.parametrize("content", ["", "[]", "{", '{"templates": 3}', "null", "\x00"])
def test_a_malformed_genotype_file_is_named(nas: Nas, tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(content)
    code, _, err = nas("describe", str(path))
    assert code == 1 and "bad.json" in err.replace("\n", "") and "Traceback" not in err


@pytest.mark.parametrize("arguments", [["describe"], ["nonsense"], ["describe", "arch0", "--x"]])
def test_bad_usage_shows_the_usage(nas: Nas, arguments: list[str]) -> None:
    code, _, err = nas(*arguments)
    assert code == 2 and "Usage" in err


class FullDisk(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("arguments", [["--json"], []])
def test_an_output_that_takes_no_more_is_a_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["nas", "describe", "arch0", *arguments])
    monkeypatch.setattr(sys, "stdout", FullDisk())
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert "output: it cannot be written: No space left on device" in capsys.readouterr().err


def test_the_version_is_the_projects(nas: Nas) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert nas("--version") == (0, f"{version}\n", "")


def test_every_command_has_help(nas: Nas) -> None:
    _, out, _ = nas("--help")
    commands = (
        *("search", "compare", "train", "verify", "fidelity", "describe", "leaderboard", "report"),
        "status",
    )
    for command in (*commands, "up", "down", "run"):
        assert command in out
        code, help_text, _ = nas(command, "--help")
        assert code == 0 and "Usage" in help_text


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def stoppable(tmp_path: Path, prefect_home: Callable[[Path], Path]) -> Start:
    """Starts a command in a process group and project of its own.

    No address: it has a temporary server, which is in the process group that Ctrl-C goes to.
    """
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"},
        "NAS_PROJECT_DIR": str(tmp_path),
        "PREFECT_HOME": str(prefect_home(tmp_path / "prefect")),
        "MLFLOW_TRACKING_URI": "",
    }

    def start(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", "from flows.cli.main import main; main()", *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    return start


def stop(
    command: subprocess.Popen[str], ready: Callable[[], bool], number: int, *, whole_group: bool
) -> tuple[int, str]:
    """Once it is ready. Returns the exit code and the output."""
    deadline = time.monotonic() + 600
    while not ready() and time.monotonic() < deadline:
        assert command.poll() is None, command.communicate()[0]
        time.sleep(0.1)
    started = psutil.Process(command.pid).children(recursive=True)
    assert started
    (os.killpg if whole_group else os.kill)(command.pid, number)
    output = command.communicate(timeout=300)[0]
    assert not psutil.wait_procs(started, timeout=60)[1]
    return command.returncode, output


STOPS = [(signal.SIGINT, True, 130), (signal.SIGTERM, False, 143)]


@pytest.mark.timeout(1800)
def test_ctrl_c_and_sigterm_end_a_search_cleanly_and_the_command_goes_on(
    tmp_path: Path, stoppable: Start
) -> None:
    params = tiny(
        search={"num_candidates": 40, "proxy": {"epochs_a": 30, "epochs_b": 0}},
        train={"top": 0},
    )
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))

    def candidates() -> list[Record]:
        return [r for path in tmp_path.glob("artifacts/searches/*/journal.jsonl")
                for r in Journal.read(path).candidates]  # fmt: skip

    for number, whole_group, expected in STOPS:
        done = candidates()
        code, output = stop(
            stoppable("search"),
            lambda done=done: len(candidates()) > len(done),
            number,
            whole_group=whole_group,
        )
        assert code == expected, output
        assert "the same command goes on" in output and "Traceback" not in output
        assert candidates()[: len(done)] == done and len(done) < len(candidates()) < 40


@pytest.mark.timeout(1800)
def test_ctrl_c_and_sigterm_end_trainings_in_two_workers_and_the_command_goes_on(
    tmp_path: Path, stoppable: Start
) -> None:
    params = tiny(train={"epochs": 100_000, "validate_every": 100_000}, runner={"workers": 2})
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))

    def epochs() -> list[int]:
        paths = sorted(tmp_path.glob("artifacts/trainings/*/checkpoint.pt"))
        return [len(load_plain(path)["history"]) for path in paths]

    for number, whole_group, expected in STOPS:
        before = epochs() or [0, 0]

        def both_go_on(before: list[int] = before) -> bool:
            now = epochs()
            return len(now) == 2 and all(b > a for a, b in zip(before, now, strict=True))

        command = stoppable("verify", "--architecture", "arch0", "--architecture", "arch1")
        code, output = stop(command, both_go_on, number, whole_group=whole_group)
        assert code == expected, output
        assert "the same command goes on" in output and "Traceback" not in output
        assert both_go_on()


def test_a_backend_of_matplotlib_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a notebook leaves it to the commands that it starts."""
    monkeypatch.setenv("MPLBACKEND", "nowhere")
    subprocess.run([sys.executable, "-c", "import flows, matplotlib"], timeout=60, check=True)
