import platform
import subprocess
from pathlib import Path

import pytest

from tasks.tracking.provenance import git_commit, provenance_tags


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "file").write_text("1")
    for arguments in (
        ["init", "-q"],
        ["add", "file"],
        ["-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "first"],
    ):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    return folder


def test_the_commit_of_a_checkout(checkout: Path) -> None:
    commit = git_commit(checkout)
    assert len(commit) == 40
    (checkout / "untracked").write_text("")
    assert git_commit(checkout) == commit
    (checkout / "file").write_text("2")
    assert git_commit(checkout) == f"{commit}-dirty"


@pytest.mark.parametrize("place", [".", "part"])
def test_what_dvc_writes_is_no_change(checkout: Path, place: str) -> None:
    lock, other = checkout / place / "dvc.lock", checkout / place / "dvc.yaml"
    lock.parent.mkdir(exist_ok=True)
    lock.write_text("1")
    other.write_text("1")
    git = ["git", "-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run([*git, "add", "."], cwd=checkout, check=True)
    assert git_commit(checkout / place).endswith("-dirty")
    subprocess.run([*git, "commit", "-qm", "second"], cwd=checkout, check=True)
    commit = git_commit(checkout / place)
    lock.write_text("2")
    assert git_commit(checkout / place) == commit and len(commit) == 40
    (checkout / "file").write_text("2")
    assert git_commit(checkout / place) == f"{commit}-dirty"


def test_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert git_commit(tmp_path) == "unknown"
    monkeypatch.setenv("PATH", "")
    assert git_commit(tmp_path) == "unknown"
    (tmp_path / "git").touch(mode=0o644)  # it cannot be run
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit(tmp_path) == "unknown"


def test_the_commit_of_the_checkout_and_of_no_other_repository(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = git_commit(checkout)
    subprocess.run(["git", "init", "-q", str(tmp_path / "other")], check=True)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "other"))
    assert git_commit(checkout) == commit


def test_a_checkout_that_git_does_not_trust(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert git_commit(checkout) == git_commit(checkout)
    assert git_commit(checkout) == "unknown (detected dubious ownership)"
    (record,) = caplog.records
    assert f"git config --global --add safe.directory {checkout}" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_tags(checkout: Path) -> None:
    tags = provenance_tags(
        checkout, profile="camvid", data_hash="d0", seed=0, device="cpu: x86", source="nas-search"
    )
    assert tags["commit"] == tags["mlflow.source.git.commit"] == git_commit(checkout)
    assert (tags["profile"], tags["data_hash"], tags["seed"]) == ("camvid", "d0", "0")
    assert tags["device"] == "cpu: x86"
    assert tags["mlflow.source.name"] == "nas-search"
    assert tags["version.python"] == platform.python_version()
    for package in ("torch", "torchvision", "prefect", "mlflow", "dvc", "numpy"):
        assert tags[f"version.{package}"][0].isdigit()
