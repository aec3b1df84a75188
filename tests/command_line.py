"""The command line in the process of a test."""

import sys

import pytest

from flows.cli import main as cli


def run_nas(
    patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str], *arguments: object
) -> tuple[object, str, str]:
    """`nas` with these arguments: what it exits with, its output and its errors."""
    patch.setattr(sys, "argv", ["nas", *map(str, arguments)])
    code: object = 0
    try:
        cli.main()
    except SystemExit as ended:
        code = ended.code
    return code, *capture.readouterr()
