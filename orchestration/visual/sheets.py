"""Contact sheets that materializations show: pictures of the catalogue, looks with their hotspots, a model's own.

Belongs here: small composed pictures. Does not belong here: sheets of queries and answers (each model's report).
"""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

import numpy as np

from contracts.settings import Settings
from contracts.visual import media_path
from orchestration.visual import catalogue, making

if TYPE_CHECKING:
    from PIL import Image

    from training.config import Bundle

CELL, ACROSS, DOWN = 96, 12, 4
LOOK, LOOKS_SHOWN, MOST_ANSWERS = 240, 4, 6
WIDEST = 1200
LINE = (200, 30, 60)


def catalogue_sheet(settings: Settings) -> Image.Image:
    """Evenly chosen pictures of the catalogue."""
    from PIL import Image

    keys = [row["key"] for row in catalogue.usable(settings)]
    chosen = np.linspace(0, len(keys) - 1, min(len(keys), ACROSS * DOWN)).astype(int)
    sheet = Image.new("RGB", (ACROSS * CELL, DOWN * CELL), "white")
    for place, number in enumerate(chosen.tolist()):
        _paste(
            sheet,
            media_path(settings.home, keys[number]),
            (place % ACROSS * CELL, place // ACROSS * CELL),
            CELL,
        )
    return sheet


def looks_sheet(settings: Settings) -> Image.Image:
    """A few looks, their hotspots, and beside each look the first answers."""
    from PIL import Image, ImageDraw

    arrays = np.load(settings.visual / making.LOOK_ARRAYS, allow_pickle=False)
    shown = min(LOOKS_SHOWN, len(arrays["media_id"]))
    sheet = Image.new(
        "RGB", (2 * (LOOK + MOST_ANSWERS // 2 * CELL), max(1, (shown + 1) // 2) * LOOK), "white"
    )
    draw = ImageDraw.Draw(sheet)
    for place in range(shown):
        left, top = place % 2 * (LOOK + MOST_ANSWERS // 2 * CELL), place // 2 * LOOK
        path = media_path(settings.home, str(arrays["media_id"][place]), look=True)
        wide, high = _paste(sheet, path, (left, top), LOOK)
        for number, spot in enumerate(np.flatnonzero(arrays["spot_media"] == place)[:MOST_ANSWERS]):
            edges = arrays["box"][spot] * np.array([wide, high, wide, high]) + np.array(
                [left, top, left, top]
            )
            draw.rectangle([float(edge) for edge in edges], outline=LINE, width=2)
            answer = str(arrays["answers"][spot][0]) if arrays["answers"].shape[1] else ""
            corner = (left + LOOK + number // 2 * CELL, top + number % 2 * CELL)
            if answer and media_path(settings.home, answer).is_file():
                _paste(sheet, media_path(settings.home, answer), corner, CELL)
    return sheet


def bundle_sheets(folder: pathlib.Path, bundle: Bundle) -> dict[str, Image.Image]:
    """Pictures that a trainer left in its bundle, by role."""
    from PIL import Image

    found = {}
    for role, path in bundle.files.items():
        if path.endswith(".png"):
            image = Image.open(folder / path).convert("RGB")
            image.thumbnail((WIDEST, WIDEST))
            found[role] = image
    return found


def _paste(sheet: Image.Image, path: pathlib.Path, corner: tuple[int, int], side: int) -> tuple[int, int]:
    from PIL import Image

    with Image.open(path) as opened:
        image = opened.convert("RGB")
    image.thumbnail((side, side))
    sheet.paste(image, corner)
    return image.size
