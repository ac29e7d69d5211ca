"""Looks: the retailer's own pictures with hotspots that were worked out when the release was made.

Belongs here: the table of hotspots. Does not belong here: completing a look (`complete.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.visual import LOOKS_FILE
from serving.engine.items import TableError
from serving.vision.arrays import read_array
from serving.vision.boxes import Detection, as_box


@dataclasses.dataclass(frozen=True)
class Hotspot:
    """One item in a look.

    Attributes:
        found: Where it is and what it is.
        products: What answers it, best first.
        similarities: How alike each is.
    """

    found: Detection
    products: list[str]
    similarities: list[float]


@dataclasses.dataclass(frozen=True)
class Look:
    """One picture.

    Attributes:
        media_id: Its name.
        title: For people.
        width: Pixels.
        height: Pixels.
        hotspots: Its items.
    """

    media_id: str
    title: str
    width: int
    height: int
    hotspots: list[Hotspot]


class Looks:
    """All pictures of a release.

    Args:
        arrays: Content of `LOOKS_FILE`.

    Raises:
        TableError: An array is missing, of another shape, or points outside its table.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        def array(key: str, kind: str, *shape: int) -> NDArray[Any]:
            return read_array(arrays, key, kind, shape, LOOKS_FILE)

        self.media_ids: list[str] = array("media_id", "U", -1).tolist()
        size = len(self.media_ids)
        self._titles: list[str] = array("title", "U", size).tolist()
        self._sizes = np.stack([array("width", "i", size), array("height", "i", size)], axis=1)
        media = array("spot_media", "i", -1)
        spots = len(media)
        self._boxes = array("box", "f", spots, 4)
        self._class = array("class", "i", spots)
        self._classes: list[str] = array("classes", "U", -1).tolist()
        self._scores = array("score", "f", spots)
        self._answers = array("answers", "U", spots, -1)
        self._similar = array("similarity", "f", *self._answers.shape)
        if spots and (
            int(media.min()) < 0
            or int(media.max()) >= size
            or int(self._class.min()) < 0
            or int(self._class.max()) >= len(self._classes)
        ):
            raise TableError(f"{LOOKS_FILE}: 'spot_media' or 'class' points outside its table")
        self._spots: dict[int, list[int]] = {}
        for spot, place in enumerate(media.tolist()):
            self._spots.setdefault(place, []).append(spot)
        self._place = {key: place for place, key in enumerate(self.media_ids)}

    def find(self, media_id: str) -> Look | None:
        """A picture with its hotspots, or None for one that is not known."""
        place = self._place.get(media_id)
        if place is None:
            return None
        width, height = self._sizes[place].tolist()
        spots = [self._hotspot(spot) for spot in self._spots.get(place, ())]
        return Look(media_id, self._titles[place], int(width), int(height), spots)

    def _hotspot(self, spot: int) -> Hotspot:
        pairs = zip(self._answers[spot].tolist(), self._similar[spot].tolist(), strict=True)
        answers = [(product, float(similar)) for product, similar in pairs if product]
        found = Detection(
            as_box(self._boxes[spot]), self._classes[int(self._class[spot])], float(self._scores[spot])
        )
        return Hotspot(found, [product for product, _ in answers], [similar for _, similar in answers])
