"""Freed memory that is kept is not cleared again at every step."""

import json
import platform

import pytest
import typer
from typer.testing import CliRunner

from benchmarks.malloc import main

APP = typer.Typer()
APP.command()(main)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc can be told")
def test_kept_memory_is_not_handed_out_anew(small: list[str]) -> None:
    # Its largest activations have 48 MiB in fp32: above 32 MiB glibc hands blocks back at once.
    recipe = ("batch_size=2", "crop_height=512", "crop_width=512")
    options = [*small, *(part for setting in recipe for part in ("-S", f"train.{setting}"))]
    result = CliRunner().invoke(APP, [*options, "--steps", "3", "--json"])
    assert result.exit_code == 0, result.output
    kept, handed_back = json.loads(result.stdout)
    assert kept["kept"] and not handed_back["kept"]
    assert kept["page_faults"] < 0.5 * handed_back["page_faults"]


def test_an_unknown_architecture(small: list[str]) -> None:
    result = CliRunner().invoke(APP, [*small, "--architecture", "arch9"])
    assert result.exit_code == 1 and "names are arch0, arch1, camvid0" in str(result.exception)
