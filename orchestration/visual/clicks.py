"""Clicks on visual results as pictures to learn from: what was searched with stands for what was chosen.

The picture that a shopper searched with is at hand where it is a product's or a look's; of a shopper's own photo only a
vector is kept, and that only with consent. A pair becomes a box of a picture with the chosen product's id, in the layout
``table``, which the embedder reads as one more source.

Belongs here: from pairs to files. Does not belong here: finding the pairs (`orchestration/lake/visual_pairs.py`).
"""

from __future__ import annotations

import csv
import os
import pathlib
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from contracts.settings import Settings
from contracts.visual import MEDIA_NAME, media_path
from feature_repo.snapshots import attach, connect

FOLDER, PAIRS_FILE, TABLE_FILE, PHOTOS = "clicks", "pairs.parquet", "pictures.csv", "photos"
COLUMNS = ("file", "left", "top", "right", "bottom", "product_id")
LIKENESS = ("similar", "hotspots")
"""Surfaces whose clicks say "this looks like that"; words and outfits say something else."""

WHOLE = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Clicks:
    """What was found.

    Attributes:
        path: All pairs, as Parquet.
        pairs: How many.
        surfaces: Pairs and mean place of the chosen product per surface.
        pictures: Pairs whose picture is at hand.
        vectors: Pairs of shoppers' photos whose vector was kept.
    """

    path: pathlib.Path
    pairs: int
    surfaces: list[dict[str, Any]]
    pictures: int
    vectors: int


def collect_clicks(settings: Settings) -> Clicks:
    """Write all pairs, and those with a picture as a table to learn from; each replaced as a whole."""
    import pyarrow.parquet as pq

    from orchestration.lake.visual_pairs import visual_pairs

    con = connect()
    attach(con, "events", settings.lake / "events")
    pairs = visual_pairs(con, settings.decisions)
    folder = settings.visual / FOLDER
    staged = folder.with_name(f".{uuid.uuid4().hex}")
    (staged / PHOTOS).mkdir(parents=True)
    pq.write_table(pairs, staged / PAIRS_FILE)
    rows = pairs.to_pylist()
    kept = [row for pair in rows if (row := _box(settings, pair, staged / PHOTOS)) is not None]
    if kept:
        _write_table(staged / TABLE_FILE, kept)
    shutil.rmtree(folder, ignore_errors=True)
    staged.rename(folder)
    return Clicks(
        path=folder / PAIRS_FILE,
        pairs=len(rows),
        surfaces=_by_surface(rows),
        pictures=len(kept),
        vectors=sum(row["query_vector"] is not None for row in rows),
    )


def _box(settings: Settings, pair: dict[str, Any], photos: pathlib.Path) -> tuple[Any, ...] | None:
    """A row of the table, or None where no picture is at hand or it shows the chosen product itself."""
    if pair["surface"] not in LIKENESS:
        return None
    look = pair["surface"] == "hotspots"
    name = pair["query_media_id"] if look else (pair["query_product_ids"] or [None])[0]
    if not name or not MEDIA_NAME.fullmatch(name) or name == pair["product_id"]:
        return None
    source = media_path(settings.home, name, look)
    edges = pair["query_box"] if look else WHOLE
    if not source.is_file() or not edges:
        return None
    file = f"{'look-' if look else ''}{name}.jpg"
    if not (photos / file).exists():
        try:
            os.link(source, photos / file)
        except OSError:
            shutil.copyfile(source, photos / file)
    return (file, *edges, pair["product_id"])


def _write_table(path: pathlib.Path, rows: Sequence[tuple[Any, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)


def _by_surface(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for surface in sorted({row["surface"] for row in rows}):
        places = [row["place"] for row in rows if row["surface"] == surface]
        found.append({"surface": surface, "pairs": len(places), "mean_place": sum(places) / len(places)})
    return found
