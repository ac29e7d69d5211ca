"""The shop page in a real browser: a photo, its items by keyboard, looks, words, and a feed that follows."""

from __future__ import annotations

import json
import pathlib
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from orchestration.cli.doctor import browser
from tests.e2e.conftest import visiting
from tests.e2e.window import make_window, photo
from tests.integration.serving.conftest import Shop, process, wait_for

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        browser() is None, reason="no Chromium here; `continuum doctor --install-browser` installs it"
    ),
]


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return make_window(tmp_path_factory.mktemp("window"))


@pytest.fixture(scope="module")
def server(window: Shop) -> Iterator[str]:
    with process(window) as (_, address):
        yield address


@pytest.fixture
def visit(chromium: Any, server: str) -> Iterator[Any]:
    with visiting(chromium, server, "blob:") as open_page:

        def open_shop(path: str = "/shop", **options: Any) -> Any:
            page = open_page(path, **options)
            page.wait_for_selector("#feed-list .good")
            return page

        yield open_shop


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("pictures")
    photo("shirt", "", "sneakers", "").save(folder / "items.jpg", quality=92)
    Image.new("RGB", (600, 600), (252, 252, 252)).save(folder / "empty.jpg")
    (folder / "broken.jpg").write_bytes(b"not a picture")
    return {path.stem: str(path) for path in folder.iterdir()}


def feed(page: Any) -> list[str]:
    return [li.get_attribute("data-product") for li in page.locator("#feed-list .good").all()]


def events(window: Shop) -> list[dict[str, Any]]:
    with sqlite3.connect(window.inbox) as connection:
        return [json.loads(raw) for (raw,) in connection.execute("SELECT raw FROM events ORDER BY rowid")]


def test_a_photo_is_searched_and_its_items_chosen_by_keyboard(
    visit: Any, pictures: dict[str, str], window: Shop
) -> None:
    page = visit()
    page.set_input_files("#file", pictures["items"])
    page.wait_for_selector("#spots .spot")
    spots = page.locator("#spots .spot")
    assert spots.count() == 2
    assert page.locator("#said").inner_text() == "2 items found"
    first = page.locator("#results-title").inner_text()
    shown = page.locator("#results-list .good").first.get_attribute("data-product")
    spots.nth(1).focus()
    page.keyboard.press("Enter")
    assert spots.nth(1).get_attribute("aria-pressed") == "true"
    assert spots.nth(0).get_attribute("aria-pressed") == "false"
    assert page.locator("#results-title").inner_text() != first
    assert page.locator("#results-list .good").first.get_attribute("data-product") != shown
    assert page.locator("#results-list .why").first.inner_text().startswith("Closest match")
    for box in ("left", "top", "width", "height"):
        assert spots.nth(1).evaluate(f"(spot) => spot.style.{box}").endswith("%")
    (search,) = [event for event in events(window) if event["action"] == "visual_search"][-1:]
    assert search["session_id"].startswith("visit-")
    assert search["detail"]["objects"] == 2


def test_a_look_is_completed_and_the_feed_follows_each_step(
    visit: Any, pictures: dict[str, str], window: Shop
) -> None:
    page = visit()
    before = feed(page)
    assert "many buy" in page.locator("#feed-about").inner_text()
    page.set_input_files("#file", pictures["items"])
    page.wait_for_selector("#results-list .good")
    good = page.locator("#results-list .good").first
    product = good.get_attribute("data-product")
    good.locator("button[data-act=look]").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#results-list .part")
    parts = [part.inner_text().lower() for part in page.locator("#results-list .part").all()]
    assert len(parts) >= 2
    assert len(set(parts)) == len(parts)
    assert "Goes with" in page.locator("#results-title").inner_text()
    page.wait_for_selector("#feed-about:has-text('on this visit')")
    after = feed(page)
    assert after != before
    (click,) = [event for event in events(window) if event["action"] == "click"][-1:]
    assert click["product_id"] == product
    assert len(click["decision_id"]) == 32
    decision = page.locator("#feed-list").get_attribute("data-decision")
    page.locator("#feed-list .good .open").nth(3).focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#results-title:has-text('Similar to')")
    page.wait_for_selector(f"#feed-list:not([data-decision='{decision}'])")
    assert feed(page) != after
    page.locator("#feed-list button[data-act=basket]").first.click()
    wait_for(lambda: events(window)[-1]["action"] == "add_to_cart")
    for why in page.locator("#feed-list .why").all():
        assert why.inner_text().strip()


def test_a_spot_beside_the_items_can_be_asked_about(visit: Any, pictures: dict[str, str]) -> None:
    page = visit()
    page.set_input_files("#file", pictures["items"])
    page.wait_for_selector("#spots .spot")
    box = page.locator("#photo").bounding_box()
    page.mouse.click(box["x"] + 0.75 * box["width"], box["y"] + 0.25 * box["height"])
    page.wait_for_selector("#spots .spot:only-child")
    assert page.locator("#results-list .good").count() > 0


def test_nothing_found_and_what_is_no_photo_are_said_plainly(visit: Any, pictures: dict[str, str]) -> None:
    page = visit()
    page.set_input_files("#file", pictures["empty"])
    page.wait_for_selector("#results-title:has-text('Nothing found')")
    assert "closer" in page.locator("#results-about").inner_text()
    assert page.locator("#spots .spot").count() == 0


def test_a_file_that_is_no_photo_is_refused_in_words(
    chromium: Any, server: str, pictures: dict[str, str]
) -> None:
    context = chromium.new_context()
    page = context.new_page()
    page.goto(server + "/shop")
    page.set_input_files("#file", pictures["broken"])
    page.wait_for_selector("#problem:not([hidden])")
    assert "not a picture" in page.locator("#problem").inner_text()
    context.close()


def test_words_find_products_and_say_how_they_were_read(visit: Any) -> None:
    page = visit()
    page.locator("#query").focus()
    page.keyboard.type("blue without striped under 90")
    page.keyboard.press("Enter")
    page.wait_for_selector("#results-list .good")
    assert page.locator("#results-about").inner_text() == "Only up to 90, without striped."
    for good in page.locator("#results-list .good").all():
        assert "blue" in good.inner_text()
        assert "striped" not in good.inner_text()
        assert float(good.locator(".cost").inner_text().split(",")[0]) <= 90


SPEECH = """
window.asked = [];
window.SpeechRecognition = class {
  static async available(options) { window.asked.push(["available", options]); return ABLE; }
  static async install(options) { window.asked.push(["install", options]); return true; }
  start() {
    window.asked.push(["start", { lang: this.lang, local: this.processLocally }]);
    const say = (transcript) => this.onresult({ results: [[{ transcript }]] });
    setTimeout(() => {
      if (PROBLEM) this.onerror({ error: PROBLEM });
      else { say("blue"); say("blue under 90"); }
      this.onend();
    }, 20);
  }
  stop() { this.onend(); }
};
"""
"""Headless browsers have no speech recognition: one that always hears the same."""


@pytest.fixture
def speak(chromium: Any, server: str) -> Iterator[Any]:
    context = chromium.new_context(locale="en-GB")

    def opened(able: str, problem: str = "") -> Any:
        page = context.new_page()
        page.add_init_script(SPEECH.replace("ABLE", f"'{able}'").replace("PROBLEM", f"'{problem}'"))
        page.goto(server + "/shop")
        page.wait_for_selector("#feed-list .good")
        return page

    yield opened
    context.close()


@pytest.mark.parametrize("able", ["available", "downloadable"])
def test_spoken_words_are_searched_without_leaving_the_device(speak: Any, able: str) -> None:
    page = speak(able)
    page.wait_for_selector("#voice")
    page.locator("#voice").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#results-title:has-text('blue under 90')")
    assert page.locator("#query").input_value() == "blue under 90"
    assert page.locator("#results-about").inner_text() == "Only up to 90."
    assert page.locator("#voice").get_attribute("aria-pressed") == "false"
    asked = page.evaluate("window.asked")
    local = {"langs": ["en-GB"], "processLocally": True}
    steps = [["available", local], ["start", {"lang": "en-GB", "local": True}]]
    assert asked == [steps[0], *([["install", local]] if able == "downloadable" else []), steps[1]]


def test_voice_is_offered_only_where_it_stays_on_the_device_and_its_problems_are_said(speak: Any) -> None:
    assert not speak("unavailable").locator("#voice").is_visible()
    page = speak("available", "not-allowed")
    page.locator("#voice").click()
    page.wait_for_selector("#problem:not([hidden])")
    assert "microphone" in page.locator("#problem").inner_text()
    assert page.locator("#voice").get_attribute("aria-pressed") == "false"


def test_sizes_are_chosen_once_and_kept_on_the_device(visit: Any) -> None:
    page = visit()
    assert page.locator("#sizes-said").inner_text() == "any"
    page.locator("#sizes summary").focus()
    page.keyboard.press("Enter")
    page.locator("#sizes input[value=M]").focus()
    page.keyboard.press("Space")
    assert page.locator("#sizes-said").inner_text() == "M"
    page.locator("#query").fill("shirt")
    page.keyboard.press("Enter")
    page.wait_for_selector("#results-list .good")
    offered = [text.inner_text() for text in page.locator("#results-list .sizes-of").all()]
    assert any("M" in text for text in offered)
    assert all("M" in text for text in offered if "S" in text or "L" in text)
    page.reload()
    page.wait_for_selector("#feed-list .good")
    assert page.locator("#sizes-said").inner_text() == "M"
    assert page.locator("#sizes input[value=M]").is_checked()


def test_the_shops_own_looks_have_hotspots(visit: Any) -> None:
    page = visit()
    page.locator("button.look").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#stage-title:has-text('Look 1')")
    assert page.locator("#spots .spot").count() >= 2
    assert page.locator("#results-list .good").count() >= 1


def test_a_known_customer_is_served_as_such(visit: Any) -> None:
    page = visit()
    page.locator("#customer").fill("1001")
    page.keyboard.press("Enter")
    page.wait_for_url("**/shop?customer_id=1001")
    page.wait_for_selector("#feed-about:has-text('this customer')")


def test_the_page_fits_a_phone_in_the_dark_and_says_that_it_is_simulated(
    visit: Any, pictures: dict[str, str]
) -> None:
    page = visit(viewport={"width": 390, "height": 844}, color_scheme="dark", has_touch=True, is_mobile=True)
    page.set_input_files("#camera", pictures["items"])
    page.wait_for_selector("#spots .spot")
    page.locator("#spots .spot").first.tap()
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    ground = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert sum(int(part) for part in ground.removeprefix("rgb(").removesuffix(")").split(",")[:3]) < 200
    assert "simulated" in page.inner_text("main").lower()
    assert "not stored" in page.inner_text("main")
    assert page.locator("#camera").get_attribute("capture") == "environment"


def test_photos_are_made_smaller_before_they_leave_and_are_stored_nowhere(
    visit: Any, tmp_path: pathlib.Path, window: Shop
) -> None:
    secret = Image.Exif()
    secret[0x010F] = "SecretCamera"
    whole = photo("shirt", "", "sneakers", "", size=3000)
    whole.save(tmp_path / "large.jpg", quality=92, exif=secret)
    page = visit()
    with page.expect_request("**/v1/search/image*") as sent:
        page.set_input_files("#file", str(tmp_path / "large.jpg"))
    body = sent.value.post_data_buffer
    assert body is None or b"SecretCamera" not in body
    page.wait_for_selector("#spots .spot")
    assert page.evaluate("() => document.getElementById('photo').width") == 1600
    kept = [
        path for path in window.home.rglob("*") if path.is_file() and b"SecretCamera" in path.read_bytes()
    ]
    assert kept == []
