"""One Chromium for the pages' tests, and a way to open them that notices errors and other hosts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from orchestration.cli.doctor import browser
from tests.screenshots import FLAGS


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=browser(), args=FLAGS)
        yield started
        started.close()


@contextlib.contextmanager
def visiting(chromium: Any, server: str, *local: str) -> Iterator[Callable[..., Any]]:
    """Gives a function that opens a page; afterwards no error was logged and no other host was asked.

    Args:
        chromium: The browser.
        server: Address of the server.
        local: Beginnings of addresses inside the browser that may be asked, too.
    """
    problems: list[str] = []
    contexts = []

    def open_page(path: str, **options: Any) -> Any:
        context = chromium.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith((server, *local)) else problems.append(r.url))
        page.goto(server + path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []
