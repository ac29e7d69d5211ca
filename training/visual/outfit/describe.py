"""Vectors of items: the embedder's, or, to measure without one, those of untuned weights and colours.

Belongs here: from crops to vectors. Does not belong here: which items (`items.py`).
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
from PIL import Image

from training.visual.decode import crop
from training.visual.outfit.items import BLANK, Item
from training.visual.trunk import MEAN, SCALE, folded, make_trunk

Floats = npt.NDArray[np.float32]
Describe = Callable[[Sequence[Item]], Floats]

SIDE = 128
BATCH = 32
DIRECTIONS = 128
HUES, STEPS = 12, 3
COLOUR_SHARE = 0.7
"""Weight of colour in `Plain`, chosen on the validation looks."""


def by_embedder(graph: pathlib.Path, settings: Mapping[str, object], threads: int) -> Describe:
    """Vectors as a release would have them.

    Args:
        graph: ``embedder.onnx``.
        settings: Of the embedder's bundle: size, margin, letterbox.
        threads: Of ONNX Runtime.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    size, margin = int(settings["size"]), float(settings["margin"])  # type: ignore[call-overload, arg-type]

    def describe(items: Sequence[Item]) -> Floats:
        made = []
        for first in range(0, len(items), BATCH):
            crops = [
                crop(item.image, item.box, size, margin, bool(settings["letterbox"]))
                for item in items[first : first + BATCH]
            ]
            made.append(session.run(["embedding"], {"pixels": np.stack(crops)})[0])
        return np.concatenate(made)

    return describe


class Plain:
    """Vectors without any learning of ours: EfficientNet-Lite0 as packaged, and a histogram of colours.

    Args:
        learn: Items that the directions of the features are found on.
    """

    def __init__(self, learn: Sequence[Item]) -> None:
        self.trunk = folded(make_trunk("imagenet")).eval()
        features, colours = self._features(learn), self._colours(learn)
        self.middle, self.colour_middle = features.mean(0), colours[:, HUES * STEPS**2 :].mean(0)
        _, lengths, directions = np.linalg.svd(features - self.middle, full_matrices=False)
        count = min(DIRECTIONS, len(lengths))
        lengths = np.maximum(lengths[:count] / np.sqrt(len(features)), 1e-6)
        self.directions = (directions[:count] / np.sqrt(lengths)[:, None]).T.astype(np.float32)

    def __call__(self, items: Sequence[Item]) -> Floats:
        """Vectors ``[M, d]``."""
        shape = _unit((self._features(items) - self.middle) @ self.directions)
        colours = self._colours(items)
        bins = HUES * STEPS**2
        levels = _unit(colours[:, bins:] - self.colour_middle)
        colour = np.concatenate([0.6 * _unit(np.sqrt(colours[:, :bins])), 0.8 * levels], 1)
        return np.concatenate([(1 - COLOUR_SHARE) ** 0.5 * shape, COLOUR_SHARE**0.5 * colour], 1)

    @torch.inference_mode()
    def _features(self, items: Sequence[Item]) -> Floats:
        made = []
        for first in range(0, len(items), BATCH):
            squares = np.stack([_centred(item) for item in items[first : first + BATCH]])
            x = (torch.from_numpy(squares).permute(0, 3, 1, 2).float() - MEAN) / SCALE
            _, full = self.trunk(x.contiguous(memory_format=torch.channels_last))
            made.append(full.mean((2, 3)).numpy())
        return np.concatenate(made)

    @staticmethod
    def _colours(items: Sequence[Item]) -> Floats:
        return np.stack([_colour(item.pixels) for item in items])


def _centred(item: Item) -> npt.NDArray[np.uint8]:
    """The box alone, in the middle of a white square."""
    wide, high = item.image.size
    left, top, right, bottom = item.box
    cut = item.image.crop((round(left * wide), round(top * high), round(right * wide), round(bottom * high)))
    side = max(cut.size)
    square = Image.new("RGB", (side, side), (BLANK, BLANK, BLANK))
    square.paste(cut, ((side - cut.width) // 2, (side - cut.height) // 2))
    return np.asarray(square.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def _colour(pixels: npt.NDArray[np.uint8]) -> Floats:
    """Shares of hue, saturation and lightness together, then means, deviations and three quantiles of channels."""
    hsv = np.asarray(Image.fromarray(pixels[None]).convert("HSV"))[0].astype(np.int64)
    places = (
        (hsv[:, 0] * HUES // 256) * STEPS**2 + (hsv[:, 1] * STEPS // 256) * STEPS + hsv[:, 2] * STEPS // 256
    )
    shares = np.bincount(places, minlength=HUES * STEPS**2) / len(pixels)
    quantiles = np.percentile(pixels, [10, 50, 90], axis=0).ravel()
    levels = np.concatenate([pixels.mean(0), pixels.std(0), quantiles]) / 255
    return np.concatenate([shares, levels]).astype(np.float32)


def _unit(vectors: Floats) -> Floats:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
