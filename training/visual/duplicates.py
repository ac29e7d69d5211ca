"""Pictures that show the same: a perceptual hash proposes, pixels decide.

The hash (dHash: whether brightness rises from pixel to pixel, 8 x 8 bits) says nothing of colour, so two shirts of
one cut share it; only what is also alike pixel by pixel counts as a duplicate.

Belongs here: hash, sketch, groups. Does not belong here: what is done about duplicates.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import sparse
from scipy.sparse import csgraph

SIDE = 8
SKETCH = 32
FAR = 5
"""Hashes that differ in more bits are of different pictures."""

MEAN_APART = 2.0
WORST_APART = 16.0
"""Sketches of duplicates differ by less on average, and in their 99th percentile, of 255."""

_BLOCK = 1024
_BANDS = 6
"""64 bits in six parts: at most `FAR` differences leave at least one part equal."""


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """What duplicates are found by.

    Attributes:
        hash: 64 bits.
        sketch: ``uint8[32 * 32 * 3]``, the picture made small.
    """

    hash: int
    sketch: npt.NDArray[np.uint8]


def fingerprint(image: Image.Image) -> Fingerprint:
    """Of an RGB picture."""
    grey = np.asarray(image.convert("L").resize((SIDE + 1, SIDE), Image.Resampling.BILINEAR), np.int16)
    bits = (grey[:, 1:] > grey[:, :-1]).ravel()
    small = image.resize((SKETCH, SKETCH), Image.Resampling.BOX)
    return Fingerprint(int(np.packbits(bits).view(">u8")[0]), np.asarray(small, np.uint8).reshape(-1))


def duplicates(hashes: npt.NDArray[np.uint64], sketches: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """For each picture the first of its group, itself if it is alone.

    Args:
        hashes: ``uint64[N]``.
        sketches: ``uint8[N, 32 * 32 * 3]``.
    """
    size = len(hashes)
    found = [np.zeros((0, 2), np.int64)]
    for members in _buckets(hashes):
        for start in range(0, len(members), _BLOCK):
            some = members[start : start + _BLOCK]
            near = np.bitwise_count(hashes[some][:, None] ^ hashes[members][None, :]) <= FAR
            one, two = np.nonzero(near & (some[:, None] < members[None, :]))
            found.append(np.stack([some[one], members[two]], axis=1))
    pairs = np.unique(np.concatenate(found), axis=0)
    alike = np.zeros(len(pairs), bool)
    place = int(sketches.shape[1] * 0.99) if size else 0
    for start in range(0, len(pairs), _BLOCK):
        one, two = pairs[start : start + _BLOCK].T
        apart = np.abs(sketches[one].astype(np.int16) - sketches[two].astype(np.int16))
        worst = np.partition(apart, place, axis=1)[:, place]
        alike[start : start + _BLOCK] = (apart.mean(axis=1) < MEAN_APART) & (worst < WORST_APART)
    same = pairs[alike]
    graph = sparse.coo_array((np.ones(len(same), bool), (same[:, 0], same[:, 1])), shape=(size, size))
    _, group = csgraph.connected_components(graph, directed=False)
    first = np.full(size, size, np.int64)
    np.minimum.at(first, group, np.arange(size))
    return first[group]


def _buckets(hashes: npt.NDArray[np.uint64]) -> list[npt.NDArray[np.int64]]:
    """Groups of pictures whose hashes share a band; pairs may stand in several groups."""
    edges = np.linspace(0, 64, _BANDS + 1).astype(int)
    found = []
    for low, high in itertools.pairwise(edges.tolist()):
        band = (hashes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        order = np.argsort(band, kind="stable")
        cuts = np.flatnonzero(np.diff(band[order])) + 1
        found += [part for part in np.split(order, cuts) if len(part) > 1]
    return found
