"""The server's pages in a real browser: by keyboard, on a phone, in the dark, without any other host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from contracts.settings import Settings
from orchestration import services
from orchestration.cli.doctor import browser
from tests.e2e.conftest import visiting

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        browser() is None, reason="no Chromium here; `continuum doctor --install-browser` installs it"
    ),
]


@pytest.fixture(scope="module")
def server(small_shop: Settings) -> Iterator[str]:
    """The live server alone, on the small shop's release; the registry is MLflow's database."""
    wanted = [service for service in services.services(small_shop) if service.name == "serving"]
    with services.running(small_shop, wanted) as processes:
        services.wait_ready(small_shop, wanted[0], processes["serving"])
        yield wanted[0].url


@pytest.fixture
def visit(chromium: Any, server: str) -> Iterator[Any]:
    with visiting(chromium, server) as open_page:
        yield open_page


def test_status_shows_the_champion_and_its_numbers(visit: Any) -> None:
    text = visit("/").inner_text("main")
    for word in ("small_shop", "NDCG"):
        assert word.lower() in text.lower()


def test_a_customer_is_tried_by_keyboard_alone(visit: Any, small_shop: Settings) -> None:
    page = visit("/")
    customer = page.locator("datalist#customers option").first.get_attribute("value")
    page.locator("#customer").focus()
    page.keyboard.type(customer)
    page.keyboard.press("Enter")
    page.wait_for_selector("#answer li, #answer tr")
    assert page.locator("#answer").inner_text().strip()


def test_the_page_fits_a_phone(visit: Any) -> None:
    page = visit("/", viewport={"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_the_continuum_fits_a_phone(visit: Any) -> None:
    page = visit("/continuum", viewport={"width": 360, "height": 740})
    page.wait_for_selector("#credit svg.main-svg")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_dark_is_readable(visit: Any) -> None:
    page = visit("/", color_scheme="dark")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    red, green, blue = (
        int(part) for part in background.removeprefix("rgb(").removesuffix(")").split(",")[:3]
    )
    assert red + green + blue < 200


def test_the_interface_is_documented(visit: Any) -> None:
    text = visit("/docs").inner_text("body")
    for path in ("/v1/recommendations", "/v1/events", "/v1/decisions", "/v1/release"):
        assert path in text


def test_the_continuum_is_drawn_from_what_the_pipeline_published(visit: Any) -> None:
    page = visit("/continuum")
    for chart in ("moment-days", "credit"):  # A grocer's visits are on one channel: no graph.
        page.wait_for_selector(f"#{chart} svg.main-svg")
    text = page.inner_text("main").lower()
    for words in (
        "one set of numbers",
        "conversion",
        "how people move",
        "all visits are on one channel",
        "want to buy",
        "champions",
    ):
        assert words in text


def test_one_customers_continuum_is_opened_by_keyboard(visit: Any) -> None:
    customer = visit("/").locator("datalist#customers option").first.get_attribute("value")
    page = visit("/continuum", viewport={"width": 390, "height": 800}, color_scheme="dark")
    page.locator("#customer").focus()
    page.keyboard.type(customer)
    page.keyboard.press("Enter")
    page.wait_for_selector("ol.timeline li")
    assert "purchase" in page.locator("ol.timeline").last.inner_text()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
