"""What nobody may get at: code, other folders, secrets, ports. See docs/security.md."""

import ast
import io
import logging
import os
import re
import subprocess
import sys
import threading
from contextlib import suppress
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import yaml
from prefect.settings import PREFECT_API_URL, temporary_settings
from rich.console import Console

from flows.servers import prefect_server, services
from flows.servers.prefect_server import check_configured
from flows.servers.processes import Services
from nas_core.base.addresses import (
    bypass_proxies,
    has_credentials,
    redacted,
    without_credentials,
)
from nas_core.base.errors import NasError, RunError, ServiceError, SettingsError
from nas_core.base.files import inside
from nas_core.base.yaml_files import parse_yaml
from nas_core.data.prepared import PreparedData
from nas_core.loading import load_settings
from nas_core.models.labelling import check_memory
from nas_core.training.record import Trainings
from tasks.tracking.store import connect, tracking_uri
from tasks.tracking.tracker import Tracker
from tests.robustness.cases import ANSWERS_WITHOUT_END, CORPUS, SECRET, listed, serving
from tests.robustness.test_files import prepared

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    path
    for folder in ("nas_core", "tasks", "flows", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
# What executes what a file says. yaml.load is checked on its own below.
FORBIDDEN = {
    "eval", "exec", "compile", "__import__", "pickle.load", "pickle.loads", "pickle.Unpickler",
    "dill.load", "dill.loads", "joblib.load", "cloudpickle.load", "cloudpickle.loads",
    "shelve.open", "marshal.load", "marshal.loads", "pd.read_pickle", "torch.jit.load",
    "torch.package.PackageImporter", "yaml.full_load", "yaml.unsafe_load", "yaml.load_all",
    "yaml.unsafe_load_all", "os.system", "os.popen", "np.loads",
}  # fmt: skip


def calls(source: str) -> list[tuple[int, str, ast.Call]]:
    return [
        (node.lineno, ast.unparse(node.func), node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
    ]


def violations(source: str) -> list[str]:
    found = []
    for line, name, call in calls(source):
        keywords = {key.arg: ast.unparse(key.value) for key in call.keywords}
        if name in FORBIDDEN:
            found.append(f"{line}: {name}")
        if name == "torch.load" and keywords.get("weights_only") != "True":
            found.append(f"{line}: torch.load without weights_only=True")
        if name == "yaml.load" and [ast.unparse(a) for a in call.args[1:]] != ["_Loader"]:
            found.append(f"{line}: yaml.load")
        if name == "np.load" and keywords.get("allow_pickle", "False") != "False":
            found.append(f"{line}: np.load with pickles")
        if keywords.get("shell", "False") != "False":
            found.append(f"{line}: a shell")
    return found


def test_nothing_executes_what_a_file_says() -> None:
    assert len(SOURCES) > 80
    found = {path.name: violations(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert not {name: lines for name, lines in found.items() if lines}


@pytest.mark.parametrize(
    "source",
    ["torch.load(p)", "torch.load(p, weights_only=False)", "yaml.load(t)", "yaml.unsafe_load(t)",
     "yaml.load(t, yaml.Loader)", "pickle.load(f)", "eval(x)", "exec(x)",
     "np.load(p, allow_pickle=True)", "subprocess.run(c, shell=True)"],
)  # fmt: skip
def test_the_search_finds_what_it_looks_for(source: str) -> None:
    assert violations(source)


def test_the_loader_of_yaml_is_a_safe_one() -> None:
    from nas_core.base import yaml_files

    assert issubclass(yaml_files._Loader, yaml.SafeLoader)
    assert parse_yaml("a: [1, {b: 2001-01-01}]", "here") == yaml.safe_load(
        "a: [1, {b: 2001-01-01}]"
    )


@pytest.mark.parametrize("value", ["x", "''", "1", "[1]", "{a: 1}", "é", "''\n"])
@pytest.mark.parametrize(
    "tag",
    ["bool", "int", "float", "null", "str", "binary", "timestamp", "omap", "pairs", "set", "seq",
     "map", "merge", "value", "python/none", "python/object:os.system"],
)  # fmt: skip
def test_a_tag_of_yaml_and_a_value_of_another_kind(tag: str, value: str) -> None:
    with suppress(ValueError):
        parse_yaml(f"seed: !!{tag} {value}", "here")


def test_a_tag_of_yaml_is_named() -> None:
    with pytest.raises(ValueError, match=r"here, line 2: not valid YAML \(it is no bool\)"):
        parse_yaml("seed: 1\na: !!bool 1", "here")


def test_weights_only_is_the_default_even_where_the_environment_says_otherwise(
    tmp_path: Path,
) -> None:
    """TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD of an environment does not change what we ask for."""
    code = (
        "import sys; from pathlib import Path; from nas_core.search.journal import load_state;"
        "load_state(Path(sys.argv[1]))"
    )
    path = tmp_path / "strategy.pt"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("executed",)

    torch.save({"evil": Evil()}, path)
    environment = {**os.environ, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False
    )
    assert done.returncode == 1 and "RunError" in done.stderr and "executed" not in done.stdout


def test_paths_stay_inside(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "outside").mkdir()
    (folder / "link").symlink_to(tmp_path / "outside")
    (folder / "inner").symlink_to(folder)
    assert inside(folder, "a.npy") == folder / "a.npy"
    assert inside(folder, "inner/a") == folder / "inner/a"
    for name in ("..", "../outside", "/etc/passwd", "link", "link/x", "a/../../outside"):
        with pytest.raises(ValueError, match="leads out of"):
            inside(folder, name)


def test_a_manifest_cannot_reach_an_array_beside_its_folder(tmp_path: Path) -> None:
    folder, outside = prepared(tmp_path / "data"), tmp_path / "outside"
    outside.mkdir()
    for kind, shape in (("images", (1, 4, 6, 3)), ("masks", (1, 4, 6))):
        np.save(outside / f"train_{kind}.npy", np.zeros(shape, np.uint8))
    for name in ("split_leaves_folder", "split_absolute", "name_leaves_folder", "name_absolute"):
        content = (CORPUS / "manifests" / f"{name}.json").read_bytes()
        (folder / "manifest.json").write_bytes(content)
        with pytest.raises(NasError, match="names"):
            PreparedData.open(folder)


@pytest.mark.parametrize("name", ["label_parent", "identity_parent", "key_parent", "key_absolute"])
def test_a_list_of_trainings_names_no_other_folder(name: str) -> None:
    with pytest.raises(RunError, match=rf"{name}\.json"):
        Trainings.read(CORPUS / "trainings" / f"{name}.json")


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://user:p@ss@host:1/path", "https://host:1/path"),
        ("https://host/path@x", "https://host/path@x"),
        ("https://user:1234/5@host", "https://..."),
        ("https://host/path", "https://host/path"),
        ("sqlite:////folder@x/m.db", "sqlite:////folder@x/m.db"),
        ("postgresql://u:hunter2@host/db", "postgresql://host/db"),
        ("postgresql://u:hunter2/x@host/db", "postgresql://host/db"),
        ("postgresql://host/db?password=hunter2&a=1", "postgresql://host/db?password=...&a=1"),
        ("https://host/?a=1&access_token=hunter2", "https://host/?a=1&access_token=..."),
        ("mssql+pyodbc:///?odbc_connect=PWD%3Dhunter2", "mssql+pyodbc:///?odbc_connect=..."),
        ("sqlite://user:hunter2@host/x.db", "sqlite://host/x.db"),
        ("sqlite+pysqlite://user:hunter2@host/x.db", "sqlite+pysqlite://host/x.db"),
        ("file://user:hunter2@host/x", "file://host/x"),
        ("databricks://hunter2", "databricks://..."),
        ("DataBricks://scope:hunter2", "DataBricks://..."),
        ("//user:hunter2@host", "//host"),
        ("///user:hunter2@host", "///host"),
        ("user:hunter2@host:5000", "host:5000"),
        ("https:user:hunter2@host", "host"),
        ("https:/user:hunter2@host", "https:/host"),
        ("https:///user:hunter2@host", "https:///host"),
        ("HTTPS://USER:hunter2@HOST", "HTTPS://HOST"),
        ("https://hunter2@host", "https://host"),
        ("https://user%3Ahunter2@host", "https://host"),
        ("https://user:hunter2%40host/x", "https://..."),
        ("https%3A%2F%2Fuser%3Ahunter2%40host", "..."),
        ("s3://user:hunter2@host", "s3://..."),
        ("https://host/#token=hunter2", "https://host/#token=..."),
        ("localhost:5000", "localhost:5000"),
        ("https://[::1]:5000/x", "https://[::1]:5000/x"),
        ("mlruns", "mlruns"),
    ],
)
def test_redacted(uri: str, shown: str) -> None:
    assert redacted(uri) == shown
    assert has_credentials(uri) == (uri != shown)


@pytest.mark.parametrize("uri", ["https://user:hunter2", "htp://hunter2", "hunter2:x"])
def test_what_cannot_be_read_is_not_shown(uri: str) -> None:
    assert "hunter2" not in redacted(uri) + without_credentials(f"no host hunter2 in {uri}", uri)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1,localhost,::1,0.0.0.0")),
        ({"NO_PROXY": "a.b, localhost"}, {"NO_PROXY": "a.b,localhost,127.0.0.1,::1,0.0.0.0"}),
        ({"no_proxy": ""}, {"no_proxy": "127.0.0.1,localhost,::1,0.0.0.0"}),
        ({"no_proxy": "*"}, {"no_proxy": "*"}),
    ],
)
def test_own_servers_are_asked_without_a_proxy(
    before: dict[str, str], after: dict[str, str]
) -> None:
    environment = dict(before)
    for _ in range(2):
        bypass_proxies(environment)
        assert environment == after


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_that_does_not_answer_is_in_nobodys_way(name: str) -> None:
    """Prefect asks with httpx, MLflow with requests; processes that are started inherit it."""
    code = (
        "import sys; import flows; import httpx, requests;"
        "[print(get(sys.argv[1], timeout=60).status_code) for get in (httpx.get, requests.get)]"
    )
    server = HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    proxies = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
    kept = {key: value for key, value in os.environ.items() if key.lower() not in proxies}
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, f"http://localhost:{server.server_port}/"],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**kept, name: "http://127.0.0.1:9"},
            check=False,
        )
    finally:
        server.shutdown()
        server.server_close()
    assert done.stdout.split() == ["200", "200"], done.stderr[-2000:]


def test_what_a_driver_says_of_an_address_is_redacted_too() -> None:
    uri = "postgresql://user:hunter%322@host/db"
    text = without_credentials(
        f"cannot parse {uri}: password hunter22 or 'hunter%322' is wrong", uri
    )
    assert "hunter" not in text


def test_a_password_in_the_settings_is_refused_and_not_shown() -> None:
    with pytest.raises(SettingsError, match="a password must not stand here") as error:
        load_settings(overrides=[f"tracking.uri=https://user:{SECRET}@host"], root=ROOT)
    assert SECRET not in str(error.value)


@pytest.mark.parametrize("uri", [uri for uri in listed("uris") if SECRET in uri])
def test_secrets_of_the_environment_are_never_told(
    uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    (tmp_path / "params.yaml").write_text("seed: 0\n")
    said = io.StringIO()
    record = Services(tmp_path / "services.json")
    with pytest.raises(ServiceError) as error:
        services._start_mlflow(tmp_path, record, services.Options(), Console(file=said))
    ours = [line for line in caplog.messages if "hunter" in line]
    out, err = capfd.readouterr()
    told = f"{error.value} {said.getvalue()} {out} {err} {ours}"
    assert SECRET not in told
    assert not any(SECRET in path.read_text() for path in tmp_path.rglob("*.json"))


def test_an_address_with_a_secret_is_no_tag_and_no_parameter(tmp_path: Path) -> None:
    """The settings that reach MLflow leave the address out; what is left is checked here."""
    from tasks.search_log import flatten

    uri = tracking_uri("", tmp_path)
    tracker = Tracker(uri, "camvid", {"commit": "c"}, tmp_path)
    params = flatten(
        load_settings(root=ROOT).model_dump(mode="json", exclude={"train", "tracking"})
    )
    run = tracker.client.get_run(tracker.start_search("s", "s", params))
    assert not any("tracking" in key or "://" in value for key, value in run.data.params.items())
    assert not any("://" in value for value in run.data.tags.values())


@pytest.mark.parametrize("host", ["127.0.0.1:9", "nowhere.invalid:4200"])
def test_a_prefect_address_with_a_password_is_shown_without(host: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("seed: 0\n")
    address = f"http://user:{SECRET}@{host}/api"
    with (
        temporary_settings({PREFECT_API_URL: address}),
        pytest.raises(ServiceError, match=f"answers at http://{re.escape(host)}/api") as error,
    ):
        check_configured()
    assert SECRET not in str(error.value)
    with (
        temporary_settings({PREFECT_API_URL: address}),
        pytest.raises(ServiceError) as error,
    ):
        services.up(
            tmp_path,
            services.Options(host="127.0.0.1", prefect_port=1),
            Console(file=io.StringIO()),
        )
    assert SECRET not in str(error.value)


@pytest.mark.parametrize("name", ANSWERS_WITHOUT_END)
def test_a_prefect_server_that_never_ends_its_answer(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefect_server, "SECONDS_TO_ANSWER", 1)
    with (
        serving(name) as address,
        temporary_settings({PREFECT_API_URL: f"{address}/api"}),
        pytest.raises(ServiceError, match=f"no Prefect server answers at {address}/api"),
    ):
        check_configured()


def test_servers_listen_on_this_machine_alone_and_say_so_when_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert services.Options().bound == "127.0.0.1"
    (tmp_path / "params.yaml").write_text("seed: 0\n")
    for host, told in (
        ("0.0.0.0", True),
        ("10.0.0.1", True),
        ("127.0.0.1", False),
        (None, False),
    ):
        said = io.StringIO()
        with (
            temporary_settings({PREFECT_API_URL: "https://127.0.0.1:9/api"}),
            pytest.raises(ServiceError),  # before anything starts
        ):
            services.up(tmp_path, services.Options(host=host), Console(file=said))
        assert ("without a password" in said.getvalue()) == told


def test_every_command_that_starts_a_server_names_the_address() -> None:
    """Neither Prefect's nor MLflow's default is relied on."""
    source = (ROOT / "flows" / "servers" / "services.py").read_text(encoding="utf-8")
    starts = re.findall(r'\["(?:flows\.servers\.guarded_prefect|mlflow)".*?\]', source, re.S)
    assert len(starts) == 2 == source.count("    _start(\n")
    assert all("options.bound" in start for start in starts)


def test_memory_that_is_not_there_is_refused() -> None:
    side = int((psutil.virtual_memory().total / 100) ** 0.5)
    with pytest.raises(NasError, match="GB of memory"):
        check_memory("a.png", (side, side))


def test_connecting_leaves_nothing_of_a_secret_on_the_disk(tmp_path: Path) -> None:
    with pytest.raises(ServiceError):
        connect(f"postgresql://user:{SECRET}@127.0.0.1:1/db")
    assert not list(tmp_path.iterdir())


def test_the_licence_of_every_pinned_package_is_listed() -> None:
    def plain(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    lines = (ROOT / "docs" / "licences.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in lines if "|" in line][2:]
    pinned = [
        line.partition("==")[::2]
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    ]
    assert {(plain(name), version) for name, version, _ in rows} == {
        (plain(name), version) for name, version in pinned
    }
    assert all(licence for *_, licence in rows)
    assert not any("://" in line for line in lines)
