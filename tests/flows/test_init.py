"""`nas init`, and what a person can do where there is no project."""

import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest
import yaml
from PIL import Image

from flows.servers.deployments import deployment_names, profile_values
from nas_core.loading import load_settings, profiles
from tests.command_line import run_nas

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder that is no project, of a program that lies in none."""
    monkeypatch.delenv("NAS_PROJECT_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nas_core.base.project.CHECKOUT", tmp_path)


@pytest.fixture
def nas(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    return partial(run_nas, monkeypatch, capsys)


def test_a_name_that_looks_like_an_option(nas, tmp_path: Path) -> None:
    code, out, _ = nas("init", "--", "-x")
    assert code == 0 and "cd ./-x && nas search" in out and (tmp_path / "-x").is_dir()


def test_a_new_project_has_the_files_of_the_checkout(nas, tmp_path: Path) -> None:
    code, out, _ = nas("init", "mine")
    assert code == 0 and "written: mine" in out
    made = tmp_path / "mine"
    files = {
        str(path.relative_to(made))
        for path in made.rglob("*")
        if path.is_file() and ".git" not in path.relative_to(made).parts
    }
    wanted = ["profiles", ".dvc", ":(glob)*.yaml", ":(glob)*.dvc", ".gitignore", ".dvcignore"]
    tracked = subprocess.run(
        ["git", "ls-files", *wanted], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    expected = {*tracked} - {".pre-commit-config.yaml"}
    assert files == expected | {"README.md"}
    for name in expected - {"dvc.yaml"}:
        assert (made / name).read_bytes() == (ROOT / name).read_bytes(), name
    # DVC wants a repository.
    assert (made / ".git").is_dir()
    stages = yaml.safe_load((made / "dvc.yaml").read_text())
    ours = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    code_stage, our_code_stage = stages["stages"].pop("code"), ours["stages"].pop("code")
    assert stages == ours
    assert code_stage.pop("always_changed") is True
    assert our_code_stage.pop("deps") and code_stage == our_code_stage


def test_a_new_project_is_one(nas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tmp_path / "mine"
    assert nas("init", made)[0] == 0
    monkeypatch.chdir(made)
    assert load_settings("synthetic", root=made).encoder.weights == "camvid0-camvid"
    described = yaml.safe_load((made / "prefect.yaml").read_text())["deployments"]
    found = []
    for deployment in described:
        ((_, step),) = deployment["build"][0].items()
        values = profile_values(step["flow_name"], step["profile"])
        assert values["project_dir"] == str(made)
        found.append(f"{step['flow_name']}/{deployment['name']}")
    assert sorted(found) == sorted(deployment_names(made))
    assert profiles(made) == profiles(ROOT)
    code, out, _ = nas("status")
    assert code == 0 and "none yet" in out


def test_a_folder_that_a_shell_is_in_is_filled(nas, tmp_path: Path) -> None:
    assert nas("init", ".")[0] == 0
    assert not list(tmp_path.glob(".nas-init-*"))
    assert (tmp_path / "params.yaml").is_file() and (tmp_path / ".git").is_dir()
    # Within a repository none is made.
    assert nas("init", "a/b")[0] == 0
    assert not (tmp_path / "a" / "b" / ".git").exists()


def test_only_a_new_or_empty_folder_is_taken(nas, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for place, message in (
        ("full", "full is not empty: give a new"),
        ("full/thesis.txt", "is no folder: give a new"),
        ("caf\udce9", "no text"),
        ("a", "is no folder: give a new"),
        ("a/c", "/a is no folder: give a new"),
        ("full/thesis.txt/x", "thesis.txt is no folder: give a new"),
        ("/proc/x", "/proc/x cannot be made (No such file"),
        ("x%2Fy", "holds %2F, which MLflow would not find again"),
    ):
        code, _, err = nas("init", place)
        assert code == 1 and message in err and err.count("\n") == 1, place
    assert {path.name for path in tmp_path.rglob("*")} == {"full", "thesis.txt", "a", "b"}


def test_the_next_command_can_be_copied_whatever_the_name(nas, tmp_path: Path) -> None:
    name = "$(touch hacked) [red]'s"
    code, out, _ = nas("init", name)
    assert code == 0
    command = out.splitlines()[1].partition(" && nas ")[0]
    done = subprocess.run(
        ["sh", "-c", f"{command} && pwd"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(tmp_path / name)
    assert not (tmp_path / "hacked").exists()


def test_a_folder_that_is_gone(nas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for command in ("init x", "status", "predict a.png --model arch0-camvid --out o"):
        code, _, err = nas(*command.split())
        assert code == 1 and err.startswith("error: RunError: the current folder cannot be found")


def test_git_of_another_repository(nas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook of git, and what it runs, has the other one in its environment."""
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert nas("init", "mine")[0] == 0
    assert (tmp_path / "mine" / ".git").is_dir() and not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("exists", [False, True])
def test_nothing_is_left_of_a_project_that_cannot_be_written(
    nas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    made = tmp_path / "mine"
    if exists:
        made.mkdir()

    def full(source: Path, target: Path) -> None:
        if target.name == "prefect.yaml":
            raise OSError(28, "No space left on device", str(target))
        real(source, target)

    real = shutil.copyfile
    monkeypatch.setattr(shutil, "copyfile", full)
    code, _, err = nas("init", "mine")
    assert code == 1 and "No space left on device" in err
    assert list(tmp_path.rglob("*")) == ([made] if exists else [])


@pytest.mark.parametrize("mode", [None, 0o644, 0o755])
def test_without_git_it_says_what_dvc_wants(
    nas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int | None
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    if mode:  # it cannot be run, or is no program
        (tmp_path / "bin" / "git").write_bytes(b"\x7fELF and nothing more")
        (tmp_path / "bin" / "git").chmod(mode)
    code, out, _ = nas("init", "mine")
    assert code == 0 and "git init" in out
    assert (tmp_path / "mine" / "params.yaml").is_file()


@pytest.mark.parametrize(
    "arguments",
    ["search", "train arch0", "verify", "compare", "fidelity", "leaderboard", "report", "status",
     "up", "down", "run nas-search/camvid", "describe 0123456789ab", "data check .",
     "ship folder name --data-licence none"],
)  # fmt: skip
def test_what_wants_a_project_says_so_in_a_line(nas, tmp_path: Path, arguments: str) -> None:
    code, _, err = nas(*arguments.split())
    assert code == 1
    assert err == (
        "error: SettingsError: no params.yaml here or above: nas init FOLDER makes a project\n"
    )
    assert not list(tmp_path.iterdir())


def test_shipped_models_are_at_hand_anywhere(nas, tmp_path: Path) -> None:
    Image.new("RGB", (96, 64)).save(tmp_path / "street.png")
    masks = tmp_path / "masks"
    masks.mkdir()
    Image.new("L", (96, 64)).save(masks / "street.png")
    model = ("--model", "camvid0-camvid")
    code, out, err = nas("predict", *model, "street.png", "--out", "out", "--masks", "masks")
    assert code == 0, err
    assert (tmp_path / "out" / "street.png").is_file() and "mean_iou" in out
    assert nas("export", "camvid0-camvid", "--out", "model.onnx", "street.png")[0] == 0
    assert nas("bench", "arch0-camvid", "--size", "64x64", "--threads", 1, "--json")[0] == 0
    assert nas("describe", "camvid0")[0] == 0
    code, _, err = nas("predict", "--model", "camvid9", "street.png", "--out", "out")
    assert code == 1 and "there are arch0-camvid, arch1-camvid, camvid0-camvid" in err
    assert {path.name for path in tmp_path.iterdir()} == {
        "street.png", "masks", "out", "model.onnx"
    }  # fmt: skip
