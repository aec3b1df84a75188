"""Who gets past the guard, with the headers that browsers and programs send."""

import asyncio
from typing import Any

import pytest

from tasks.guard import Guard, allowed_hosts, origins

HOST = ("host", "127.0.0.1:4200")
OWN = ("origin", "http://127.0.0.1:4200")
EVIL = ("origin", "http://evil.example")
HOSTS = allowed_hosts("127.0.0.1", 4200)
LINK = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")]


def ask(
    *headers: tuple[str, str],
    method: str = "GET",
    kind: str = "http",
    hosts: tuple[str, ...] = HOSTS,
) -> tuple[bool, list[dict[str, Any]]]:
    """Whether the application behind the guard was asked, and what the client got."""
    asked, sent = [], []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": kind,
        "method": method,
        "path": "/api/health",
        "headers": [(name.encode(), value.encode()) for name, value in headers],
    }
    asyncio.run(Guard(app, hosts)(scope, None, send))
    return bool(asked), sent


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("origin", "http://127.0.0.1:4200")],
        [OWN, ("sec-fetch-site", "same-origin")],
        [("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate")],
        [*LINK, ("sec-fetch-dest", "document")],
    ],
)
def test_own_pages_programs_and_links_come_in(headers: list[tuple[str, str]]) -> None:
    passed, sent = ask(HOST, *headers)
    assert passed
    assert (b"x-frame-options", b"SAMEORIGIN") in sent[0]["headers"]


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("method", ["GET", "OPTIONS", "POST"])
@pytest.mark.parametrize(
    "headers",
    [
        [HOST, EVIL],
        [HOST, OWN, EVIL],
        [HOST, ("origin", "null")],
        [HOST, ("origin", "")],
        [HOST, ("origin", "http://127.0.0.1:8000")],
        [HOST, ("origin", "http://127.0.0.1")],
        [HOST, ("origin", "http://localhost:4200")],
        [HOST, ("origin", "file://")],
        [HOST, ("origin", "http://127.0.0.1:4200.evil.example")],
        [HOST, ("sec-fetch-site", "cross-site")],
        [HOST, ("sec-fetch-site", "same-site")],
        [HOST, *LINK, ("sec-fetch-dest", "iframe")],
        [("host", "evil.example:4200")],
        [("host", "evil.example:4200"), ("origin", "http://evil.example:4200")],
        [("host", "127.0.0.1")],
        [("host", "127.0.0.1:4201")],
        [("host", "127.0.0.1:4200.evil.example")],
        [("host", "127.0.0.1:4200:80")],
        [("host", "127.0.0.1:4200/:80")],
        [("host", "0.0.0.0:4200")],
        [("host", "")],
        [HOST, ("host", "evil.example")],
        [("x-forwarded-host", "127.0.0.1:4200")],
        [],
    ],
)
def test_others_do_not(headers: list[tuple[str, str]], method: str, kind: str) -> None:
    passed, sent = ask(*headers, method=method, kind=kind)
    assert not passed
    if kind == "websocket":
        assert [message["type"] for message in sent] == ["websocket.close"]
    else:
        assert sent[0]["status"] == 403
        assert sent[1]["body"].startswith(b"Refused: ")


def test_no_name_is_no_host() -> None:
    asked, _ = ask(("host", ""), hosts=("",))
    assert not asked


def test_a_second_site_counts() -> None:
    sites = [("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")]
    asked, _ = ask(HOST, *sites)
    assert not asked


def test_a_link_does_not_write() -> None:
    passed, _ = ask(HOST, *LINK, ("sec-fetch-dest", "document"), method="POST")
    assert not passed


def test_port_80_is_not_said() -> None:
    hosts = allowed_hosts("127.0.0.1", 80)
    assert ask(("host", "LOCALHOST"), ("origin", "http://localhost"), hosts=hosts)[0]
    assert ask(("host", "localhost:80"), hosts=hosts)[0]
    assert not ask(("host", "localhost:8080"), hosts=hosts)[0]


def test_a_proxy_with_tls_hands_on_its_name() -> None:
    hosts = allowed_hosts("127.0.0.1", 4200, ["nas.example.org"])
    name = ("host", "nas.example.org")
    assert ask(name, ("origin", "https://nas.example.org"), hosts=hosts)[0]
    assert not ask(name, ("origin", "https://evil.example"), hosts=hosts)[0]
    assert not ask(("host", "nas.example.org:4200"), hosts=hosts)[0]


def test_the_names_of_a_server() -> None:
    assert allowed_hosts("localhost", 5000) == ("127.0.0.1:5000", "localhost:5000")
    assert allowed_hosts("192.0.2.7", 5000) == ("192.0.2.7:5000",)
    everywhere = allowed_hosts("0.0.0.0", 5000)
    assert {"0.0.0.0:5000", "127.0.0.1:5000", "localhost:5000"} < set(everywhere)
    assert origins(["a:1"]) == "http://a:1,https://a:1"
