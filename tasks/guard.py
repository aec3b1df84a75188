"""A door before a server of this machine: only its own pages and programs come in.

A browser sends what any page asks it to send, also to 127.0.0.1, and a page may let a name of its
own lead there (DNS rebinding). But it says truly which host it asks (`Host`), on whose behalf
(`Origin`) and from where (`Sec-Fetch-Site`): a page can change none of the three. Programs send no
`Origin`.
"""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Iterable, Sequence

import psutil
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS_VARIABLE = "NAS_ALLOWED_HOSTS"
LOOPBACK = ("127.0.0.1", "localhost")
ALL_ADDRESSES = "0.0.0.0"
POLICY_VIOLATION = 1008  # RFC 6455, section 7.4.1

_WITH_PORT = re.compile(r"([a-z]+://)?([^:/]+|\[[^/]+\]):\d+")

logger = logging.getLogger("uvicorn.error")  # that of the server which runs the application


class Guard:
    """An ASGI application that hands on requests to another one, or refuses them with status 403.

    Args:
        hosts: what `Host` may say, as HOST:PORT, or HOST for port 80.

    Also where the method, the content type or the path would let a request pass: what reads is
    refused like what writes, and a WebSocket before it opens. A link to a page of the server may be
    followed from anywhere. No page of another origin may show a page of the server in a frame.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str]) -> None:
        self._app = app
        self._hosts = frozenset(map(_plain, hosts)) - {""}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_unframed(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).setdefault("X-Frame-Options", "SAMEORIGIN")
            await send(message)

        reason = None if scope["type"] == "lifespan" else self._refusal(scope)
        if reason is None:
            await self._app(scope, receive, send_unframed)
            return
        headers = Headers(scope=scope)
        logger.warning(
            "Refused: %s; Host %r, Origin %r", reason, headers.get("host"), headers.get("origin")
        )
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": reason})
        else:
            await PlainTextResponse(f"Refused: {reason}.\n", 403)(scope, receive, send)

    def _refusal(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        hosts = list(map(_plain, headers.getlist("host")))
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            return "the Host header is no address that this server was started for"
        # A proxy that speaks TLS hands on the Host that the browser asked for.
        own = (f"http://{hosts[0]}", f"https://{hosts[0]}")
        if not all(_plain(origin) in own for origin in headers.getlist("origin")):
            return "it comes from a page of another origin"
        sites = {*headers.getlist("sec-fetch-site")}
        if not sites <= {"none", "same-origin"} and not _follows_a_link(scope, headers):
            return "it comes from a page of another site or port"
        return None


def _plain(text: str) -> str:
    """A host or an origin without the port that it need not name."""
    text = text.strip().lower()
    return text.removesuffix(":80") if _WITH_PORT.fullmatch(text) else text


def _follows_a_link(scope: Scope, headers: Headers) -> bool:
    return (
        scope.get("method") == "GET"
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )


def allowed_hosts(bound: str, port: int, more: Sequence[str] = ()) -> tuple[str, ...]:
    """What a server may be called that listens on the address `bound`, as HOST:PORT.

    For 0.0.0.0 these are the machine's name and the IPv4 addresses that it has now.

    Args:
        more: other names, as HOST or HOST:PORT, as they stand.
    """
    names = [*LOOPBACK] if bound in (*LOOPBACK, ALL_ADDRESSES) else [bound]
    if bound == ALL_ADDRESSES:
        names += [ALL_ADDRESSES, socket.gethostname(), *_addresses()]
    return tuple(dict.fromkeys(map(_plain, [*(f"{name}:{port}" for name in names), *more])))


def origins(hosts: Iterable[str]) -> str:
    """The origins of pages of these hosts, as the settings of Prefect and MLflow want them."""
    return ",".join(f"{scheme}://{host}" for host in hosts for scheme in ("http", "https"))


def _addresses() -> list[str]:
    interfaces = psutil.net_if_addrs().values()
    return [one.address for all_ in interfaces for one in all_ if one.family == socket.AF_INET]


def guarded(app: ASGIApp) -> Guard:
    """`app` behind a guard, for the hosts that the environment names."""
    return Guard(app, os.environ[HOSTS_VARIABLE].split(","))
