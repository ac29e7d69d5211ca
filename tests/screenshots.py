"""The README's pictures: opens the running services in headless Chromium and keeps small screenshots.

Usage: start the services (`make run`), then `make screenshots`; with RETAILER=atelier the shop page.
"""

from __future__ import annotations

import pathlib
import sys
from dataclasses import dataclass

from contracts.settings import read_settings

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "docs" / "images"
FLAGS = [
    "--no-sandbox", "--disable-quic", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--disable-gpu",
]  # fmt: skip


@dataclass(frozen=True)
class Shot:
    """One picture: a page, how long it needs to settle, and its size."""

    name: str
    url: str
    settle_ms: int = 2500
    width: int = 1280
    height: int = 800
    upload: pathlib.Path | None = None  # a photo that is searched with


def shots() -> list[Shot]:
    settings = read_settings()
    server = f"http://{settings.host}:{settings.serving_port}"
    dagster = f"http://{settings.host}:{settings.dagster_port}"
    mlflow = f"http://{settings.host}:{settings.mlflow_port}"
    drawn = sorted((settings.home / "media" / "looks").glob("*.jpg"))
    if drawn:  # A shop with pictures: its shop page is what others do not have.
        return [Shot("shop", f"{server}/shop", height=900, upload=drawn[0])]
    return [
        Shot("status", server, height=1000),
        Shot("dagster", f"{dagster}/asset-groups", 9000),
        Shot("mlflow", f"{mlflow}/#/models", 6000),
    ]


def main() -> int:
    from playwright.sync_api import sync_playwright

    from orchestration.cli.doctor import browser

    executable = browser()
    if executable is None:
        print("no Chromium here; `continuum doctor --install-browser` installs it", file=sys.stderr)
        return 1
    FOLDER.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        for shot in shots():
            page = chromium.new_page(viewport={"width": shot.width, "height": shot.height})
            page.goto(shot.url, wait_until="domcontentloaded")
            page.wait_for_timeout(shot.settle_ms)
            if shot.upload is not None:
                page.set_input_files("input[type=file]", shot.upload)
                page.wait_for_timeout(2 * shot.settle_ms)
            page.keyboard.press("Escape")  # closes the greetings that UIs open with
            page.wait_for_timeout(500)
            page.screenshot(path=FOLDER / f"{shot.name}.jpg", type="jpeg", quality=70)
            print(FOLDER / f"{shot.name}.jpg")
            page.close()
        chromium.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
