"""How long a server may take for an answer."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import httpx

MAX_ANSWER = 2**26  # bytes


def check_address(url: str) -> None:
    """Raise a ValueError unless `url` is one of HTTP that can be asked."""
    try:
        parts = httpx.URL(url)
        _ = urlsplit(url).port  # its number is within the range of ports
    except httpx.InvalidURL as error:
        raise ValueError(str(error)) from None
    if parts.scheme not in ("http", "https") or not parts.host:
        raise ValueError("expected http://HOST:PORT or https://HOST:PORT")


def answers_in_time(url: str, seconds: float) -> bool:
    """Whether a server ends an answer to `url`, be it an error, or the connection fails at once.

    The time-outs of HTTP clients are those of one read. They wait for ever for a server that
    sends a byte now and then, and take what comes from one that never ends.
    """
    try:
        return asyncio.run(_ends(url, seconds))
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError):  # the last one of a host's name
        return True  # who makes the real request says what is wrong


async def _ends(url: str, seconds: float) -> bool:
    size = 0
    try:
        async with (
            asyncio.timeout(seconds),
            httpx.AsyncClient(timeout=None) as client,
            client.stream("GET", url) as answer,
        ):
            async for chunk in answer.aiter_raw():
                size += len(chunk)
                if size > MAX_ANSWER:
                    return False
    except TimeoutError:
        return False
    return True
