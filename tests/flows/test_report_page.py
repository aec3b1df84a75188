"""The page of a search in a real browser, at the size of a desk and of a phone."""

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, TimeoutError, sync_playwright

from nas_core.analysis.report.search_page import write_search_page
from tests.flows import pages
from tests.nas_core.analysis.searches import (
    failed,
    real_candidates,
    record_of,
    write_search,
    write_training,
)

DESK = {"viewport": {"width": 1440, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
ROWS = real_candidates(14)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of the page of a search with all that there may be on it."""
    root = tmp_path_factory.mktemp("page")
    records = [record_of(row, index) for index, row in enumerate(ROWS[:12])]
    records.append(record_of(ROWS[12], 12, status="stopped early", scores=(0.3,), reward=0.3))
    records.append(failed(ROWS[13], 13, "<img src=http://evil.example/x> " + "x" * 300))
    folder = write_search(root, records)
    training = write_training(root, ROWS[0]["id"], ROWS[0]["id"], 0.6)
    write_training(root, "arch0", "c0d7639bffbf", 0.5)
    sheet = training / "pictures" / "contact_sheet.png"
    sheet.parent.mkdir()
    Image.fromarray(np.full((2000, 1640, 3), 99, np.uint8)).save(sheet)
    return write_search_page(root, folder).as_uri()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if not pages.CHROMIUM.exists():
        pytest.skip(f"{pages.CHROMIUM} is missing (Debian's package chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=pages.CHROMIUM, args=pages.ARGUMENTS, timeout=pages.PATIENCE
        )
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, address: str, **options: Any) -> Iterator[Page]:
    """The page, of which at the end nothing may have failed, and no request have left."""
    context = browser.new_context(**options)
    context.set_default_timeout(pages.PATIENCE)
    page = context.new_page()
    found = pages.problems(page)
    asked: list[str] = []
    page.on("console", lambda message: found.append(f"{message.type}: {message.text}"))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.locator("#pareto .point").first.wait_for()
    yield page
    context.close()
    assert found == []
    assert [url[:60] for url in asked if not url.startswith(("data:", "blob:"))] == [address[:60]]


def places(page: Page) -> dict[str, tuple[float, float]]:
    """Where the networks on the front are on the screen, by id."""
    page.locator("#pareto").scroll_into_view_if_needed()
    found = page.evaluate(
        """() => {
            const plot = document.querySelector("[data-chart=pareto] .plot");
            plot.scrollIntoView({block: "center"});
            const {left, top} = plot.getBoundingClientRect();
            const {xaxis, yaxis} = plot._fullLayout;
            const front = plot.data.find((trace) => trace.name === "Pareto front");
            return front.customdata.map((id, index) => [
                id, left + xaxis._offset + xaxis.d2p(front.x[index]),
                top + yaxis._offset + yaxis.d2p(front.y[index])]);
        }"""
    )
    return {identifier: (x, y) for identifier, x, y in found}


def tapped(page: Page, identifier: str) -> None:
    """As a person does: who misses, since the page grew meanwhile, taps again."""
    heading = page.locator("#network h3", has_text=identifier)
    for _ in range(10):
        page.touchscreen.tap(*places(page)[identifier])
        with contextlib.suppress(TimeoutError):
            return heading.wait_for(timeout=10_000)
    raise AssertionError(f"tapping does not show {identifier}")


def shown_drawing(page: Page, identifier: str) -> None:
    """Wait until the panel shows a network, and see that the picture is drawn."""
    page.locator("#network h3", has_text=identifier).wait_for()
    image = page.locator("#network img")
    pages.wait_until(
        page,
        "(id) => {const image = document.querySelector('#network img');"
        " return image.complete && image.naturalWidth > 0"
        " && decodeURIComponent(image.src).includes(`>${id}<`)}",
        identifier,
    )
    assert image.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_point_of_the_front_shows_its_network(
    chromium: Browser, address: str, scheme: Any
) -> None:
    with opened(chromium, address, color_scheme=scheme, **DESK) as page:
        points = places(page)
        assert len(points) > 2
        for identifier, (x, y) in points.items():
            page.mouse.move(x, y)
            shown_drawing(page, identifier)
        # The picture is shown large, and goes away again.
        page.locator("#network .drawing").click()
        assert page.locator("dialog img").is_visible()
        page.keyboard.press("Escape")
        assert not page.locator("dialog").is_visible()


def test_on_a_phone_a_point_is_tapped(chromium: Browser, address: str) -> None:
    with opened(chromium, address, **PHONE) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        for identifier in list(places(page))[:2]:
            tapped(page, identifier)
            shown_drawing(page, identifier)
        page.get_by_role("button", name="latency").tap()
        page.locator("[data-chart=pareto]").get_by_text("latency, ms an image").wait_for()
        page.locator("details.plain summary").tap()
        page.locator("#pareto button.link").first.tap()
        assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_the_colours_follow_the_system(chromium: Browser, address: str) -> None:
    with opened(chromium, address, color_scheme="light", **DESK) as page:
        ink = "getComputedStyle(document.querySelector('#progress .xtick text')).fill"
        assert page.evaluate(ink) == "rgb(27, 31, 36)"
        page.emulate_media(color_scheme="dark")
        pages.wait_until(page, f"{ink} === 'rgb(230, 234, 239)'")
