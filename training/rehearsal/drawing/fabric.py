"""Colours and patterns: what a surface looks like before it is cut into shape.

Belongs here: palettes and textures. Does not belong here: shapes.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Rgb = tuple[int, int, int]

PALETTE: dict[str, Rgb] = {
    "black": (38, 38, 42), "white": (244, 243, 240), "grey": (146, 148, 152), "navy": (36, 48, 84),
    "beige": (214, 194, 164), "brown": (118, 79, 54), "blue": (66, 116, 184), "green": (74, 122, 84),
    "red": (190, 48, 52), "pink": (232, 156, 176), "yellow": (236, 196, 72), "purple": (122, 82, 148),
}  # fmt: skip
"""Middle tone of each colour of `catalogue.COLOURS`."""


@dataclasses.dataclass(frozen=True)
class Fabric:
    """A coloured and patterned surface.

    Attributes:
        colour: Main tone.
        accent: Tone of the pattern, of piping and of trims.
        pattern: One of `catalogue.PATTERNS`.
        seed: Of the pattern's chance.
    """

    colour: Rgb
    accent: Rgb
    pattern: str
    seed: int

    @property
    def edge(self) -> Rgb:
        """Tone of outlines and seams: darker, on dark cloth lighter."""
        return shade(self.colour, 0.62 if luminance(self.colour) > 70 else 1.9)

    def plain(self, factor: float = 1.0) -> Fabric:
        """The same cloth without pattern, lighter or darker."""
        return dataclasses.replace(self, colour=shade(self.colour, factor), pattern="plain")


def choose(colour: str, pattern: str, seed: int) -> Fabric:
    """The fabric of a product: its colour with a little variation and an accent that can be seen on it."""
    rng = np.random.default_rng(seed)
    base = np.array(PALETTE[colour], float) * (1 + rng.uniform(-0.06, 0.06)) + rng.uniform(-6, 6, 3)
    main = _rgb(base)
    others = [
        tone
        for name, tone in PALETTE.items()
        if name != colour and abs(luminance(tone) - luminance(main)) > 70
    ]
    accent = others[int(rng.integers(len(others)))]
    return Fabric(main, accent, pattern, seed)


def shade(colour: Rgb, factor: float) -> Rgb:
    """Lighter (above 1) or darker (below 1)."""
    return _rgb(np.array(colour, float) * factor + (12 if factor > 1 else 0))


def luminance(colour: Rgb) -> float:
    """Perceived brightness, 0 to 255 (Rec. 601)."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def texture(fabric: Fabric, size: int) -> Image.Image:
    """A square of cloth, lit from the upper left.

    Args:
        fabric: What it is made of.
        size: Pixels a side.
    """
    image = Image.new("RGB", (size, size), fabric.colour)
    draw = ImageDraw.Draw(image)
    rng = np.random.default_rng(fabric.seed)
    PATTERNS[fabric.pattern](draw, fabric, size, rng)
    lit = np.asarray(image, np.uint16) * _light(size)
    return Image.fromarray(np.minimum(lit >> 7, 255).astype(np.uint8))


@functools.lru_cache(4)
def _light(size: int) -> npt.NDArray[np.uint16]:
    """Light and weave in 128ths, ``[size, size, 1]``."""
    x, y = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size))
    light = 1 + 0.09 * (-0.6 * x - 0.8 * y) - 0.05 * x**2
    weave = (
        np.random.default_rng(0).normal(0, 0.008, (size // 2 + 1, size // 2 + 1)).repeat(2, 0).repeat(2, 1)
    )
    return np.round(128 * (light + weave[:size, :size])).astype(np.uint16)[..., None]


def _plain(draw: ImageDraw.ImageDraw, fabric: Fabric, size: int, rng: np.random.Generator) -> None:
    """Nothing but cloth."""


def _striped(draw: ImageDraw.ImageDraw, fabric: Fabric, size: int, rng: np.random.Generator) -> None:
    period = size / rng.integers(12, 22)
    width = period * rng.uniform(0.25, 0.5)
    upright = rng.random() < 0.3
    for start in np.arange(0, size, period):
        box = (start, 0, start + width, size) if upright else (0, start, size, start + width)
        draw.rectangle(box, fill=fabric.accent)


def _checked(draw: ImageDraw.ImageDraw, fabric: Fabric, size: int, rng: np.random.Generator) -> None:
    period = size / rng.integers(8, 13)
    half = _rgb((np.array(fabric.colour, float) + np.array(fabric.accent, float)) / 2)
    for start in np.arange(0, size, period):
        draw.rectangle((start, 0, start + period / 2, size), fill=half)
    for start in np.arange(0, size, period):
        draw.rectangle((0, start, size, start + period / 2), fill=half)
        for other in np.arange(0, size, period):
            draw.rectangle((other, start, other + period / 2, start + period / 2), fill=fabric.accent)


def _dotted(draw: ImageDraw.ImageDraw, fabric: Fabric, size: int, rng: np.random.Generator) -> None:
    period = size / rng.integers(13, 20)
    radius = period * rng.uniform(0.18, 0.28)
    for row, y in enumerate(np.arange(0, size + period, period)):
        for x in np.arange(-period / 2 * (row % 2), size + period, period):
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fabric.accent)


def _floral(draw: ImageDraw.ImageDraw, fabric: Fabric, size: int, rng: np.random.Generator) -> None:
    petal = size / rng.uniform(30, 42)
    leaf = PALETTE["green"] if luminance(fabric.colour) > 60 else (120, 170, 120)
    cell = size / 8
    for row in range(9):
        for column in range(9):
            x = (column + 0.5 * (row % 2)) * cell + rng.uniform(-0.2, 0.2) * cell
            y = row * cell + rng.uniform(-0.2, 0.2) * cell
            turn = rng.uniform(0, 2 * np.pi)
            _disc(
                draw,
                x + 2.1 * petal * np.cos(turn + 0.6),
                y + 2.1 * petal * np.sin(turn + 0.6),
                petal * 0.7,
                leaf,
            )
            for step in range(5):
                angle = turn + step * 2 * np.pi / 5
                _disc(draw, x + petal * np.cos(angle), y + petal * np.sin(angle), petal * 0.72, fabric.accent)
            _disc(draw, x, y, petal * 0.5, PALETTE["yellow"])


def _graphic(draw: ImageDraw.ImageDraw, fabric: Fabric, size: int, rng: np.random.Generator) -> None:
    third = shade(fabric.accent, 0.7)
    middle, radius = size * 0.5, size * rng.uniform(0.1, 0.13)
    kind = rng.integers(3)
    top = size * 0.42
    if kind == 0:
        _disc(draw, middle, top, radius, fabric.accent)
        draw.polygon([(middle - radius, top + radius * 0.7), (middle - radius * 0.2, top - radius * 0.5),
                      (middle + radius * 0.2, top), (middle + radius * 0.5, top - radius * 0.3),
                      (middle + radius, top + radius * 0.7)], fill=third)  # fmt: skip
    elif kind == 1:
        for step, tone in enumerate((fabric.accent, third, fabric.accent)):
            y = top + (step - 1) * radius * 0.75
            draw.rounded_rectangle((middle - radius * 1.2, y - radius * 0.25, middle + radius * 1.2, y + radius * 0.25),
                                   radius * 0.25, fill=tone)  # fmt: skip
    else:
        draw.polygon(
            [(middle, top - radius), (middle + radius, top + radius), (middle - radius, top + radius)],
            fill=fabric.accent,
        )
        _disc(draw, middle, top + radius * 0.35, radius * 0.35, third)


def _disc(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, fill: Rgb) -> None:
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)


def _rgb(values: npt.NDArray[np.float64]) -> Rgb:
    red, green, blue = np.clip(np.round(values), 0, 255).astype(int).tolist()
    return red, green, blue


PATTERNS = {
    "plain": _plain, "striped": _striped, "checked": _checked, "dotted": _dotted, "floral": _floral,
    "graphic": _graphic,
}  # fmt: skip
