"""HTTP bodies: to a served model, and as parameters of a deployment to a Prefect server."""

import base64
import io
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from mlflow.models import Model
from PIL import Image
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.responses import DeploymentResponse
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.cli.watch import _create_run, _find_deployment
from flows.servers.deployments import build_deployments
from flows.servers.prefect_server import api
from nas_core.deploy.predict import Predictor, predict_files
from nas_core.models.checkpoint import load_segmenter
from tasks.tracking.registry import save_model
from tests.robustness.cases import SECRET, listed, refused
from tests.robustness.test_images import BAD_JPEG, BAD_PNG, GOOD, orientation, picture
from tests.serving import answers, free_port

pytestmark = [pytest.mark.timeout(500), pytest.mark.slow]

NAME = "nas-search/camvid"


@pytest.fixture(scope="module")
def served(whole_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `mlflow models serve`."""
    folder = tmp_path_factory.mktemp("served")
    weights = whole_project / "artifacts" / "trainings" / "arch1-0123" / "model.safetensors"
    save_model(folder / "model", weights, load_segmenter(weights)[1], Model())
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    command += ["-m", str(folder / "model"), "--port", str(port)]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=folder, env={**os.environ, "PATH": path}
        )
    address = f"http://127.0.0.1:{port}"
    try:
        if not answers(f"{address}/ping", server, 300):
            pytest.fail((folder / "log").read_text()[-3000:])
        listening = [
            connection.laddr.ip
            for process in [psutil.Process(server.pid), *psutil.Process(server.pid).children(True)]
            for connection in process.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert set(listening) == {"127.0.0.1"}
        yield address
    finally:
        if server.poll() is None:
            for process in psutil.Process(server.pid).children(True):
                process.kill()
            server.kill()
        server.wait(30)


def post(address: str, body: bytes, kind: str = "application/json") -> httpx.Response:
    return httpx.post(
        f"{address}/invocations", content=body, headers={"content-type": kind}, timeout=60
    )


def of_image(content: bytes) -> bytes:
    text = base64.b64encode(content).decode()
    return json.dumps({"dataframe_records": [{"image": text}]}).encode()


def test_a_good_image_has_the_mask_that_nas_predict_writes(
    served: str, whole_project: Path, tmp_path: Path
) -> None:
    contents = (GOOD, picture("JPEG"), picture("PNG", exif=orientation(6)), picture("TIFF", "I;16"))
    pictures = [tmp_path / f"{number}.png" for number in range(len(contents))]
    for path, content in zip(pictures, contents, strict=True):
        path.write_bytes(content)
    predictor = Predictor.load(whole_project / "artifacts" / "trainings" / "arch1-0123")
    predict_files(predictor, pictures, tmp_path / "out")
    for path, content in zip(pictures, contents, strict=True):
        answer = post(served, of_image(content))
        assert answer.status_code == 200, answer.text
        mask = base64.b64decode(answer.json()["predictions"][0]["mask"])
        written = Image.open(tmp_path / "out" / path.name)
        np.testing.assert_array_equal(Image.open(io.BytesIO(mask)), written)


# Of the other formats that Pillow knows.
FOREIGN = {kind: picture(kind, mode) for kind, mode in (("GIF", "P"), ("EPS", "L"))}
IMAGES = {
    **{f"PNG: {name}": content for name, content in BAD_PNG.items()},
    **{f"JPEG: {name}": content for name, content in BAD_JPEG.items()},
    **{f"a {kind}": content for kind, content in FOREIGN.items()},
}


@pytest.mark.parametrize("name", IMAGES)
def test_what_is_no_image(served: str, name: str) -> None:
    check(post(served, of_image(IMAGES[name])), ours=True)


def check(answer: httpx.Response, ours: bool = False) -> None:
    """4xx and a message without a traceback; our own messages name the row."""
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text[:1000])
    assert "Traceback" not in answer.text and "stack_trace" not in answer.text, answer.text[:1000]
    if ours:
        message = answer.json()["message"]
        assert "row 0: " in message and len(message) < 1500, message[:2000]


TEXTS: dict[str, Any] = {
    "empty": "",
    "a space": " ",
    "no base64": "no base64!",
    "half a group": "abc",
    "padding inside": "ab==cd==",
    "not ASCII": "ünïcödé",
    "NUL": "\x00",
    "data URL": "data:image/png;base64," + base64.b64encode(GOOD).decode(),
    "a path": "/etc/passwd",
    "an address": "http://127.0.0.1/a.png",
    "a megabyte": "A" * 2**20,
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_that_are_no_base64_of_an_image(served: str, name: str) -> None:
    body = json.dumps({"dataframe_records": [{"image": TEXTS[name]}]}).encode()
    check(post(served, body), ours=True)


BODIES: dict[str, bytes] = {
    "empty": b"",
    "text": b"hello",
    "unclosed": b"{",
    "null": b"null",
    "number": b"3",
    "list": b"[]",
    "empty object": b"{}",
    "NaN": b"NaN",
    "binary": bytes(range(256)),
    "latin-1": b'{"dataframe_records": [{"image": "\xfc"}]}',
    "unknown key": b'{"images": ["x"]}',
    "two keys": b'{"dataframe_records": [], "dataframe_split": {}}',
    "records are a text": b'{"dataframe_records": "x"}',
    "records are a number": b'{"dataframe_records": 3}',
    "records are null": b'{"dataframe_records": null}',
    "a record is null": b'{"dataframe_records": [null]}',
    "another column": b'{"dataframe_records": [{"picture": "x"}]}',
    "image is null": b'{"dataframe_records": [{"image": null}]}',
    "image is a number": b'{"dataframe_records": [{"image": 3}]}',
    "image is a list": b'{"dataframe_records": [{"image": ["x"]}]}',
    "image is an object": b'{"dataframe_records": [{"image": {"a": 1}}]}',
    "split is a list": b'{"dataframe_split": []}',
    "split without data": b'{"dataframe_split": {"columns": ["image"]}}',
    "split of other lengths": b'{"dataframe_split": {"columns": ["image"], "data": [["a", "b"]]}}',
    "inputs are a number": b'{"inputs": 3}',
    "instances are a text": b'{"instances": "x"}',
    "parameters": b'{"dataframe_records": [{"image": "x"}], "params": 3}',
    "a pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x07builtins\x94.",
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies(served: str, name: str) -> None:
    check(post(served, BODIES[name]))


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/csv", b""),
        ("text/csv", b"image\n"),
        ("text/csv", b"a,b\n1,2\n"),
        ("text/csv", b"\xff\xfe"),
        ("application/octet-stream", GOOD),
        ("image/png", GOOD),
        ("text/plain", b"hello"),
        ("application/json; charset=latin-1", b"{}"),
        ("application/json; a=b", b"{}"),
        ("nonsense", b"{}"),
    ],
    ids=lambda value: ascii(value[:12]),
)
def test_bodies_of_other_kinds(served: str, kind: str, body: bytes) -> None:
    answer = post(served, body, kind)
    if body == b"image\n":
        assert answer.status_code == 200 and answer.json() == {"predictions": []}
    elif body == b"":
        # MLflow's own answer to what it cannot parse: no traceback is ours to leave out there.
        assert answer.status_code == 400
    else:
        check(answer)


def test_a_pickle_in_the_body_is_not_run(served: str, tmp_path: Path) -> None:
    for kind in ("application/x-python-pickle", "application/octet-stream"):
        check(post(served, BODIES["a pickle"], kind))


def test_it_still_answers(served: str) -> None:
    assert post(served, of_image(GOOD)).status_code == 200


@pytest.fixture(scope="module")
def deployment(
    prefect_server: str, whole_project: Path
) -> Iterator[tuple[SyncPrefectClient, DeploymentResponse]]:
    before = os.environ.get("NAS_PROJECT_DIR")
    os.environ["NAS_PROJECT_DIR"] = str(whole_project)
    try:
        with temporary_settings({PREFECT_API_URL: prefect_server}):
            (found,) = (d for d in build_deployments(whole_project) if d.full_name == NAME)
            found.apply()
            with api(prefect_server) as client:
                yield client, _find_deployment(client, NAME)
    finally:
        if before is None:
            del os.environ["NAS_PROJECT_DIR"]
        else:
            os.environ["NAS_PROJECT_DIR"] = before


Deployment = tuple[SyncPrefectClient, DeploymentResponse]


@pytest.mark.parametrize(
    "parameters", listed("parameters"), ids=lambda p: ascii(json.dumps(p))[:60]
)
def test_parameters_of_a_deployment(deployment: Deployment, parameters: dict[str, Any]) -> None:
    client, found = deployment
    runs = len(client.read_flow_runs())
    with refused(""):
        _create_run(client, NAME, found, parameters)
    answer = httpx.post(
        f"{str(client.api_url).rstrip('/')}/deployments/{found.id}/create_flow_run",
        json={"parameters": parameters},
    )
    unknown = set(parameters) - {*(found.parameter_openapi_schema or {})["properties"]}
    # Prefect takes parameters that nobody knows; `nas run` does not.
    if not unknown:
        assert answer.status_code in (409, 422) and "Traceback" not in answer.text
        assert len(client.read_flow_runs()) == runs


@pytest.mark.parametrize(
    "parameters",
    [
        {"seed": float("nan")},
        {"seed": float("inf")},
        {"name": "\ud800"},
        {"search": {"x": float("nan")}},
    ],
    ids=ascii,
)
def test_parameters_that_have_no_json(deployment: Deployment, parameters: dict[str, Any]) -> None:
    client, found = deployment
    with refused(""):
        _create_run(client, NAME, found, parameters)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"parameters": 3}', b"\xff"])
def test_bodies_to_prefect(deployment: Deployment, body: bytes) -> None:
    client, found = deployment
    address = f"{str(client.api_url).rstrip('/')}/deployments/{found.id}/create_flow_run"
    answer = httpx.post(address, content=body, headers={"content-type": "application/json"})
    assert 400 <= answer.status_code < 500 and "Traceback" not in answer.text


@pytest.mark.parametrize(
    "name",
    ["", "/", "a", "a/b", "a/b/c", "nas-search/", "/camvid", "nas-search/camvid?x=1", "x" * 3000,
     "../../x", "nas-search/camvid#", "nas-search/\x00", "nas-search/%2e%2e", "nas-search/\ud800"],
    ids=lambda name: ascii(name[:30]),
)  # fmt: skip
def test_names_of_deployments(deployment: Deployment, name: str) -> None:
    with refused("no deployment"):
        _find_deployment(deployment[0], name)


def test_the_bombs_are_bombs() -> None:
    width, height = struct.unpack(">II", BAD_PNG["a bomb"][16:24])
    assert width * height > 2**25 > 100 * len(BAD_PNG["a bomb"])
    assert SECRET not in str(BODIES)
