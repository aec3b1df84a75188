"""The servers of `nas up`, tried by web pages in a real browser and by false headers."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow import MlflowClient
from playwright.sync_api import BrowserContext
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.servers import services
from flows.servers.prefect_server import api
from nas_core.base.errors import ServiceError
from nas_core.space.architectures import ARCHITECTURES
from tasks.tracking.tracker import CandidateEntry, Tracker
from tasks.tracking.views import view_path
from tests.flows import pages
from tests.flows.test_services import Project, bring_up, brought_up


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory, prefect_home: Callable[[Path], Path]
) -> Iterator[Project]:
    base = tmp_path_factory.mktemp("doors")
    with brought_up(base, prefect_home(base / "home")) as project:
        yield project


def attack(project: Project, client: SyncPrefectClient, at: str) -> tuple[list[Any], list[str]]:
    """What a page would ask: to read, write and start a deployment, and to write experiments.

    Args:
        at: the name by which it calls the servers.
    """
    deployment = client.read_deployment_by_name("nas-search/camvid")
    prefect, mlflow = f"{at}:{project.prefect_port}", f"{at}:{project.mlflow_port}"
    planted = {
        "name": "planted",
        "flow_id": str(deployment.flow_id),
        "pull_steps": [{"prefect.deployments.steps.run_shell_script": {"script": "true"}}],
    }
    later = {"type": "SCHEDULED", "state_details": {"scheduled_time": "2199-01-01T00:00:00Z"}}
    requests = [
        ("GET", f"http://{prefect}/api/deployments/name/nas-search/camvid", None),
        ("POST", f"http://{prefect}/api/deployments/filter", {}),
        ("POST", f"http://{prefect}/api/deployments/", planted),
        ("POST", f"http://{prefect}/api/deployments/{deployment.id}/create_flow_run",
         {"state": later, "tags": ["planted"]}),
        ("GET", f"http://{mlflow}/ajax-api/2.0/mlflow/experiments/search?max_results=9", None),
        ("POST", f"http://{mlflow}/ajax-api/2.0/mlflow/experiments/create", {"name": "planted"}),
    ]  # fmt: skip
    return requests, [f"ws://{prefect}/api/events/in"]


def planted(project: Project, client: SyncPrefectClient) -> list[str]:
    """What an attack left: names of deployments, runs and experiments."""
    runs = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=["planted"]))
    )
    experiments = MlflowClient(f"http://127.0.0.1:{project.mlflow_port}").search_experiments()
    return [
        *(one.name for one in client.read_deployments() if one.name == "planted"),
        *("run" for _ in runs),
        *("experiment" for one in experiments if one.name == "planted"),
    ]


def refusals(project: Project) -> int:
    logs = [Path(project.service(key)["log"]) for key in ("prefect", "mlflow")]
    return sum(log.read_text().count("Refused: ") for log in logs)


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[BrowserContext]:
    with pages.browser(tmp_path) as context:
        yield context


@pytest.mark.parametrize(
    ("origin", "at"),
    [
        ("http://127.0.0.1:{strange}/", "127.0.0.1"),  # another port
        ("http://evil.example:{strange}/", "127.0.0.1"),  # another name
        ("http://evil.example:{strange}/", "localhost"),
        ("http://evil.example:{prefect}/", "evil.example"),  # a name that leads to the server
    ],
)
def test_a_page_of_another_origin_does_not_get_in(
    project: Project, chromium: BrowserContext, origin: str, at: str
) -> None:
    before = refusals(project)
    with api(project.url) as client, pages.strange_pages() as strange:
        page = chromium.new_page()
        page.goto(origin.format(strange=strange, prefect=project.prefect_port))
        requests, sockets = attack(project, client, at)
        answers = pages.attempt(page, requests, sockets)
        page.close()
        assert len(answers) == 37
        for url, status, text in answers:
            assert status in (0, 403), url
            assert text == "" or text.startswith("Refused: "), url
        assert planted(project, client) == []
    # Six requests, each in six ways and by two forms, and the WebSocket: they came as far as that.
    assert refusals(project) - before >= 49


def test_the_servers_own_pages_work(project: Project, chromium: BrowserContext) -> None:
    prefect = f"http://127.0.0.1:{project.prefect_port}"
    for address, shown in (
        (f"{prefect}/deployments", "camvid"),
        (f"{prefect.replace('127.0.0.1', 'localhost')}/deployments", "camvid"),
        (f"http://127.0.0.1:{project.mlflow_port}/#/experiments", "Default"),
    ):
        page = chromium.new_page()
        found = pages.problems(page)
        page.goto(address)
        page.get_by_text(shown, exact=True).first.wait_for()
        page.close()
        assert found == []
    # The same attack from there does what it says: only the guard is in its way.
    with api(project.url) as client:
        page = chromium.new_page()
        page.goto(f"{prefect}/deployments")
        requests, sockets = attack(project, client, "127.0.0.1")
        own = [request for request in requests if request[1].startswith(prefect)]
        answers = pages.attempt(page, own, sockets)
        page.close()
        assert "camvid" in answers[0][2] and answers[-1][1] == 101
        assert {"planted", "run"} == set(planted(project, client))
        for run in client.read_flow_runs(
            flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=["planted"]))
        ):
            client.delete_flow_run(run.id)
        client.delete_deployment(client.read_deployment_by_name("nas-search/planted").id)
        assert planted(project, client) == []


@pytest.mark.parametrize("server", ["prefect", "mlflow"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:{port}"},
        {"Host": "127.0.0.1:1"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:8888"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_false_headers_are_refused_at_every_path(
    project: Project, headers: dict[str, str], server: str
) -> None:
    port = project.prefect_port if server == "prefect" else project.mlflow_port
    given = {name: value.format(port=port) for name, value in headers.items()}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=given, timeout=60) as client:
        for path in ("/", "/health", "/api/health", "/ui-settings", "/version", "/nothing"):
            for method in ("GET", "POST", "OPTIONS", "DELETE"):
                answer = client.request(method, path)
                assert answer.status_code == 403, (method, path)
                assert "access-control-allow-origin" not in answer.headers
        # A WebSocket begins as such a request.
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
                   "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}  # fmt: skip
        assert client.get("/api/events/in", headers=upgrade).status_code == 403


def test_prefects_own_commands_come_in(project: Project, tmp_path: Path) -> None:
    output = project.call("prefect", "deployment", "ls", folder=tmp_path)
    assert "nas-search/camvid" in output


def test_a_name_that_was_not_asked_for_needs_a_new_start(project: Project) -> None:
    with (
        temporary_settings({PREFECT_API_URL: project.url}),
        pytest.raises(ServiceError, match=r"for --allow-host nas\.example\.org run `nas down`"),
    ):
        bring_up(project.folder, services.Options(allow_hosts=("nas.example.org",)))


@pytest.fixture
def recorded(project: Project, tmp_path: Path) -> tuple[str, str]:
    """The experiment of a search s1 of three candidates, and the run of the last one."""
    drawing = tmp_path / "architecture.svg"
    drawing.write_text('<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30"/>')
    tracker = Tracker(f"http://127.0.0.1:{project.mlflow_port}", "viewed", {}, tmp_path)
    parent = tracker.start_search("s1", "s1", {})
    for number, reward in enumerate((0.25, 0.75, 0.5), start=1):
        entry = CandidateEntry(
            number, ARCHITECTURES["arch0"], 274_443, 10**9, 0, 0.0, 1.0,
            metrics={"reward": reward}, drawing=drawing,
        )  # fmt: skip
        last = tracker.log_candidate(parent, entry)
    return tracker.experiment_id, last


def test_mlflow_opens_a_search_at_its_candidates_by_reward(
    project: Project, recorded: tuple[str, str], chromium: BrowserContext
) -> None:
    mlflow, (experiment, run_id) = f"http://127.0.0.1:{project.mlflow_port}", recorded
    page = chromium.new_page()
    page.goto(mlflow + view_path(experiment, "s1"))
    page.get_by_role("link", name="candidate 3").wait_for()
    names = [name[:11] for name in page.get_by_role("link", name="candidate").all_inner_texts()]
    assert names == ["candidate 2", "candidate 3", "candidate 1"]
    for heading in ("reward", "num_parameters", "gmacs"):
        assert page.get_by_role("columnheader", name=heading).first.is_visible()
    page.goto("about:blank")
    page.goto(f"{mlflow}/#/experiments/{experiment}/runs/{run_id}")
    page.get_by_text("274,443 parameters").wait_for()
    pages.wait_until(page, "[...document.images].some((image) => image.naturalWidth === 40)")
