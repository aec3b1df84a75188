"""Web pages in a real browser: those of the servers, and one that they do not know."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
STRANGER = "evil.example"
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    f"--host-resolver-rules=MAP {STRANGER} 127.0.0.1",
]  # fmt: skip
PATIENCE = 200_000  # milliseconds
# A body without a type is sent without the preflight that JSON needs, and Prefect takes it as JSON.
ATTEMPTS = """
async ({requests, sockets}) => {
    const answers = [];
    for (const {url, method, body} of requests) {
        const kinds = {json: "application/json", text: "text/plain", none: undefined};
        for (const mode of ["cors", "no-cors"]) for (const [kind, type] of Object.entries(kinds)) {
            const options = {method, mode, credentials: "include"};
            if (body) options.body = type ? body : new Blob([body]);
            if (body && type) options.headers = {"Content-Type": type};
            try {
                const answer = await fetch(url, options);
                answers.push([url, mode, kind, answer.status, await answer.text()]);
            } catch (error) {
                answers.push([url, mode, kind, 0, ""]);
            }
        }
        for (const enctype of ["text/plain", "application/x-www-form-urlencoded"]) {
            const frame = document.createElement("iframe");
            frame.name = `f${Math.random()}`;
            document.body.append(frame);
            const form = Object.assign(document.createElement("form"),
                {action: url, method, enctype, target: frame.name});
            // As text: {"name": "x", ..., "": "="}
            const [name, value] = [(body || "{}").slice(0, -1) + ', "x": "', '"}'];
            form.append(Object.assign(document.createElement("input"), {name, value}));
            document.body.append(form);
            const loaded = new Promise(done => frame.onload = done);
            form.submit();
            await loaded;
        }
    }
    for (const url of sockets) answers.push([url, "", "", await new Promise(done => {
        const socket = new WebSocket(url);
        socket.onopen = () => done(101);
        socket.onerror = () => done(0);
    }), ""]);
    return answers;
}
"""


def wait_until(page: Page, expression: str, argument: Any = None) -> None:
    """Wait for JavaScript to be true.

    Page.wait_for_function evaluates a text in the page each time but the first, which the policy of
    our own pages forbids.
    """
    deadline = time.monotonic() + PATIENCE / 1000
    while not page.evaluate(expression, argument):
        assert time.monotonic() < deadline, f"waited in vain for {expression}"
        page.wait_for_timeout(50)


@contextmanager
def browser(folder: Path) -> Iterator[BrowserContext]:
    """Headless Chromium with an empty profile; without it the test is skipped."""
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is missing (Debian's package chromium)")
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            folder, executable_path=CHROMIUM, args=ARGUMENTS, timeout=PATIENCE
        )
        context.set_default_timeout(PATIENCE)
        context.set_default_navigation_timeout(PATIENCE)
        yield context
        context.close()


@contextmanager
def strange_pages() -> Iterator[int]:
    """A web server of somebody else, with an empty page at every path; yields its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><body>")

        def log_message(self, *arguments: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def attempt(
    page: Page, requests: list[tuple[str, str, Any]], sockets: list[str]
) -> list[tuple[str, int, str]]:
    """Each request from this page in all the ways that a page has: url, status, what it read."""
    given = [
        {"url": url, "method": method, "body": json.dumps(body) if body is not None else None}
        for method, url, body in requests
    ]
    answers = page.evaluate(ATTEMPTS, {"requests": given, "sockets": sockets})
    return [(url, status, text) for url, _, _, status, text in answers]


def problems(page: Page) -> list[str]:
    """A list that fills with what fails on the page, or is refused to it."""
    found: list[str] = []
    page.on("pageerror", lambda error: found.append(f"error: {error}"))
    page.on("requestfailed", lambda request: found.append(f"{request.url}: {request.failure}"))
    page.on(
        "response",
        lambda answer: found.append(f"{answer.url} is refused") if answer.status == 403 else None,
    )
    return found
