"""deploy/model.Dockerfile, as far as it goes without Docker: its command, in a process here."""

import base64
import io
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest
from mlflow.models import Model
from PIL import Image

from nas_core.models.checkpoint import load_segmenter
from nas_core.models.labelling import predict_labels
from tasks.tracking.registry import save_model
from tests.serving import answers, free_port
from tests.tasks.tracking.conftest import CARD

DOCKERFILE = Path(__file__).resolve().parents[3] / "deploy" / "model.Dockerfile"
SECONDS_TO_START = 240
# MLflow calls uvicorn by its name, which a container has on its PATH.
BIN = Path(sys.executable).parent


def instructions() -> dict[str, list[str]]:
    """What follows each instruction, in order."""
    found: dict[str, list[str]] = {}
    for line in DOCKERFILE.read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, rest = line.partition(" ")
            found.setdefault(name, []).append(rest)
    return found


@pytest.fixture
def model(weights: Path) -> Iterator[Path]:
    """The folder of a model, where any user can read it."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        folder = Path(name) / "model"
        save_model(folder, weights, CARD, Model())
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        yield folder
        for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
            path.chmod(0o755)


def ordinary_user() -> str | None:
    """That of the file, where this one may become another and that one may run this Python."""
    (user,) = instructions()["USER"]
    if os.geteuid() != 0:
        return None
    try:
        subprocess.run([sys.executable, "-c", "import mlflow"], user=user, cwd="/", check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return user


def test_what_is_copied_is_in_a_models_folder(model: Path) -> None:
    found = instructions()
    assert found["COPY"] == ["requirements.txt /", ". /model"]
    assert (model / "requirements.txt").is_file() and (model / "MLmodel").is_file()
    assert "-r /requirements.txt" in found["RUN"][0]


def test_its_command_answers_as_an_ordinary_user_that_may_write_nothing_there(
    model: Path, weights: Path, tmp_path: Path
) -> None:
    (command,), (check,) = instructions()["CMD"], instructions()["HEALTHCHECK"]
    port = str(free_port())
    places = {"/model": str(model), "8080": port, "0.0.0.0": "127.0.0.1"}
    words = [places.get(word, word) for word in json.loads(command)]
    assert words[0] == "mlflow"
    with (
        tempfile.TemporaryDirectory() as home,
        (tmp_path / "server.log").open("wb") as log,
    ):
        Path(home).chmod(0o777)
        process = subprocess.Popen(
            [sys.executable, "-m", *words],
            env={**os.environ, "HOME": home, "PATH": f"{BIN}:{os.environ['PATH']}"},
            cwd="/",
            user=ordinary_user(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            ping = f"http://127.0.0.1:{port}/ping"
            assert answers(ping, process, SECONDS_TO_START), f"{shlex.join(words)} does not answer"
            healthy = json.loads(check.partition(" CMD ")[2].replace("8080", port))
            subprocess.run([sys.executable, *healthy[1:]], check=True)
            image = np.random.default_rng(0).integers(0, 256, (45, 61, 3), dtype=np.uint8)
            np.testing.assert_array_equal(
                ask(port, image), predict_labels(load_segmenter(weights)[0], image)
            )
        finally:
            if process.poll() is None:
                os.killpg(process.pid, 9)
                process.wait()


def ask(port: str, image: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    rows = {"dataframe_records": [{"image": base64.b64encode(file.getvalue()).decode()}]}
    request = Request(
        f"http://127.0.0.1:{port}/invocations",
        json.dumps(rows).encode(),
        {"Content-Type": "application/json"},
    )
    with urlopen(request, timeout=60) as answer:
        [row] = json.loads(answer.read())["predictions"]
    with Image.open(io.BytesIO(base64.b64decode(row["mask"]))) as mask:
        return np.asarray(mask)
