"""Picture sets of the open shop: its products', its looks', and those to learn from.

Belongs here: opening, and drawing where pictures are drawn. Does not belong here: which product a picture belongs to
(`belonging.py`).
"""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from contracts.retailer import Pictures
from contracts.settings import Settings

if TYPE_CHECKING:
    from training.visual.pictures import PictureSet

DRAWN_FILE = "DRAWN"
DRAWING_SEED = 7


def pictures_of(pictures: Pictures | None) -> Pictures:
    """The shop's pictures.

    Raises:
        ValueError: It has none here.
    """
    if pictures is None:
        raise ValueError(
            "the shop has no pictures here; expected `pictures` in its profile, and the folder it names"
        )
    return pictures


def drawn_folder(settings: Settings) -> pathlib.Path:
    """Where drawn pictures lie."""
    return settings.visual / "drawn"


def root_of(settings: Settings, pictures: Pictures) -> str:
    """Root of the products' pictures."""
    return str(drawn_folder(settings)) if pictures.layout == "drawn" else pictures.root


def draw(settings: Settings, pictures: Pictures, products: Sequence[Mapping[str, Any]]) -> bool:
    """Draw products and looks, unless they lie there as these products would be drawn.

    Returns:
        Whether anything was drawn.
    """
    import training.rehearsal.drawing
    from training.rehearsal.drawing import write_catalogue, write_looks

    looks = pictures.looks if isinstance(pictures.looks, int) else 0
    seen = hashlib.sha256(json.dumps([looks, list(products)], sort_keys=True, default=str).encode())
    assert training.rehearsal.drawing.__file__ is not None
    for module in sorted(pathlib.Path(training.rehearsal.drawing.__file__).parent.glob("*.py")):
        seen.update(module.read_bytes())
    folder = drawn_folder(settings)
    marker = folder / DRAWN_FILE
    if marker.is_file() and marker.read_text() == seen.hexdigest():
        return False
    marker.unlink(missing_ok=True)
    write_catalogue(products, folder)
    if looks:
        write_looks(products, folder, looks, DRAWING_SEED)
    marker.write_text(seen.hexdigest())
    return True


def open_products(settings: Settings, pictures: Pictures) -> PictureSet:
    """Pictures of the shop's products (or types of product).

    Raises:
        PictureSetError: The folder is not in its layout.
    """
    from training.visual.pictures import open_pictures

    return open_pictures(pictures.layout, pathlib.Path(root_of(settings, pictures)), pictures.options)


def looks_source(settings: Settings, pictures: Pictures) -> tuple[str, str] | None:
    """Layout and root of the editorial pictures, or None without any."""
    if isinstance(pictures.looks, str):
        return "folder", pictures.looks
    if pictures.looks and (drawn_folder(settings) / "looks.zip").is_file():
        return "drawn-looks", str(drawn_folder(settings))
    return None


def open_looks(settings: Settings, pictures: Pictures) -> PictureSet | None:
    """Editorial pictures, or None without any.

    Raises:
        PictureSetError: The folder is not in its layout.
    """
    from training.visual.pictures import open_pictures

    source = looks_source(settings, pictures)
    return None if source is None else open_pictures(source[0], pathlib.Path(source[1]))
