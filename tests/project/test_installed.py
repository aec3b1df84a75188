"""The wheel, in an environment where the checkout cannot be imported: a project of one's own."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from textwrap import dedent

import pytest
import yaml
from PIL import Image

from nas_core.config import SyntheticSettings
from nas_core.data.synthetic import draw_dataset
from tests.tiny import lay_over, tiny

pytestmark = pytest.mark.timeout(1200)

ROOT = Path(__file__).parents[2]
IMAGES = {"num_train": 8, "num_val": 2, "num_test": 2, "height": 40, "width": 56}
SECTION = re.compile(r"^## ([^\n]*)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(?:^(?: {4}.*)?\n)+", re.MULTILINE)


class Installed:
    """An environment with the wheel, and the packages of this one but the checkout."""

    def __init__(self, place: Path) -> None:
        self.place = place
        venv.create(place, symlinks=True)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        wheels, source = place / "wheels", place / "source"
        listed = _run(["git", "ls-files", "-co", "--exclude-standard", "-z"], ROOT)
        for name in {*listed.split("\0")} - {""}:
            if (ROOT / name).is_file() and not name.startswith(("tests/", "docs/")):
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, source / name)
        # Neither setuptools nor a dependency is fetched.
        offline = ["--no-deps", "--no-index"]
        _run([*pip, "wheel", ".", "--no-build-isolation", *offline, "-w", str(wheels)], source)
        (wheel,) = wheels.glob("*.whl")
        shutil.rmtree(source)
        python = str(place / "bin" / "python")
        _run([*pip, "--python", python, "install", *offline, str(wheel)], place)
        (packages,) = place.glob("lib/python*/site-packages")
        (packages / "others.pth").write_text(sysconfig.get_path("purelib"))

    def run(self, folder: Path, *command: str, **environment: str) -> str:
        clean = {**os.environ, **environment, "OMP_NUM_THREADS": "1"}
        clean["PATH"] = f"{self.place / 'bin'}{os.pathsep}{os.environ['PATH']}"
        for variable in ("NAS_PROJECT_DIR", "MLFLOW_TRACKING_URI", "PYTHONPATH"):
            clean.pop(variable, None)
        return _run([str(self.place / "bin" / command[0]), *command[1:]], folder, clean)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("installed") / "environment")


def examples() -> dict[str, str]:
    """Of docs/python.md the indented lines below each heading."""
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    found = {title: "\n".join(map(dedent, CODE.findall(below))) for title, below in
             SECTION.findall(text)}  # fmt: skip
    return {title: code for title, code in found.items() if code.strip()}


def test_the_examples_of_the_python_page_run_anywhere(installed: Installed, tmp_path: Path) -> None:
    Image.effect_noise((96, 64), 50).convert("RGB").save(tmp_path / "street.png")
    assert list(examples()) == ["Label images", "Search", "Export"]
    shown = "import nas_core; print(labels.shape, best.reward > 0, nas_core.__file__)"
    said = installed.run(tmp_path, "python", "-c", "\n".join([*examples().values(), shown]))
    *lines, last = said.splitlines()
    for line, words in zip(
        lines, ("are road", "parameters, reward 0.", "logits within"), strict=True
    ):
        assert words in line
    assert last.startswith(f"(64, 96) True {installed.place}")
    made = {path.name for path in tmp_path.iterdir()}
    assert made == {"street.png", "small-search", "model.onnx"}


def test_a_shipped_model_labels_images_anywhere(installed: Installed, tmp_path: Path) -> None:
    Image.effect_noise((96, 64), 50).convert("RGB").save(tmp_path / "street.png")
    model = ("--model", "camvid0-camvid")
    installed.run(tmp_path, "nas", "predict", *model, "street.png", "--out", "out")
    assert Image.open(tmp_path / "out" / "street.png").size == (96, 64)


def test_dvc_runs_a_project_of_ones_own(
    installed: Installed, prefect_server: str, tmp_path: Path
) -> None:
    installed.run(tmp_path, "nas", "init", "mine")
    mine = tmp_path / "mine"
    (mine / "data.dvc").unlink()
    params = yaml.safe_load((mine / "params.yaml").read_text())
    lay_over(params, tiny(dataset={"synthetic": IMAGES}))
    (mine / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    draw_dataset(mine / "raw", SyntheticSettings(**IMAGES))
    server = {"PREFECT_API_URL": prefect_server, "PREFECT_HOME": str(tmp_path / "prefect")}
    installed.run(mine, "python", "-m", "dvc", "repro", "prepare", **server)
    assert (mine / "artifacts" / "prepared" / "tiny").is_dir()
    # Installed code is looked at each time, and what has not changed does not run again.
    again = installed.run(mine, "python", "-m", "dvc", "repro", "prepare", **server)
    assert re.findall("^Running stage '(.*)'", again, re.MULTILINE) == ["code"]


def _run(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout
