"""Proof that an index and the pictures it was made of belong together.

Belongs here: self-retrieval. Does not belong here: quality of results (the models' reports).
"""

from __future__ import annotations

import pathlib
from dataclasses import dataclass

import msgspec
import numpy as np

from contracts.retailer import Retailer
from contracts.settings import Settings
from contracts.visual import SAME_PICTURE, EmbedderSettings
from orchestration.visual import catalogue, making, sets

TIE = 1e-4
"""Pictures that are equal but for rounding share the first place."""


@dataclass(frozen=True)
class Proof:
    """What was found.

    Attributes:
        every: Share of rows that no other row is nearer to than themselves.
        again: The same for pictures that were read and embedded again.
        sample: How many of these.
        lost: Those that did not find themselves.
    """

    every: float
    again: float
    sample: int
    lost: list[str]


def find_again(settings: Settings, retailer: Retailer, sample: int) -> Proof:
    """Read some pictures again, embed them, and search the index for them.

    Raises:
        FileNotFoundError: There is no index yet.
    """
    from training.config import read_bundle
    from training.visual.embedding import Graph, embed, whole_square
    from training.visual.telling import without_told

    made = making.read_made(settings)
    if made is None:
        raise FileNotFoundError("there is no index; expected the asset `visual/index` first")
    folder = pathlib.Path(made.embedder)
    bundle = read_bundle(folder)
    told = msgspec.convert(bundle.details["settings"], EmbedderSettings)
    arrays = np.load(settings.visual / making.INDEX_ARRAYS, allow_pickle=False)
    vectors, keys = arrays["vectors"], arrays["product_id"].tolist()
    place = {key: row for row, key in enumerate(keys)}
    rows = [row for row in catalogue.usable(settings) if row["key"] in place]
    rows = [rows[number] for number in np.linspace(0, len(rows) - 1, min(sample, len(rows))).astype(int)]
    opened = sets.open_products(settings, sets.pictures_of(retailer.pictures))
    squares = (whole_square(opened.read(row["picture"]), told) for row in rows)
    asked = embed(Graph(folder / bundle.files["embedder"], 2), squares)
    seen, seen_again = without_told(vectors, told.told_at), without_told(asked, told.told_at)
    lost = []
    for row, again in zip(rows, seen_again, strict=True):
        # By what is seen alone, as a server looks for the very same picture: what is stated may lead elsewhere.
        alike = seen @ again
        if alike[place[row["key"]]] < max(SAME_PICTURE, alike.max() - TIE):
            lost.append(row["key"])
    return Proof(made.self_first, 1 - len(lost) / max(len(rows), 1), len(rows), lost)
