"""A transparent sheet on which shapes of cloth are laid, in units of a hundredth of its side.

Belongs here: curves, filling, lines, shadow, scaling down. Does not belong here: what is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from training.rehearsal.drawing.fabric import Fabric, Rgb, texture

Point = tuple[float, float]

OVERSAMPLE = 2
STEPS = 10
"""Straight pieces per stretch of a curve."""


class Canvas:
    """One drawing.

    Args:
        size: Pixels a side of the finished picture.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._pixels = size * OVERSAMPLE
        self._sheet = Image.new("RGBA", (self._pixels, self._pixels), (0, 0, 0, 0))
        self._cloths: dict[Fabric, Image.Image] = {}

    def area(
        self, points: Sequence[Point], fabric: Fabric, smooth: bool = True, outline: bool = True
    ) -> None:
        """Lay a piece of cloth; a point given twice is a corner of an otherwise smooth outline."""
        path = self._scaled(curve(points, closed=True) if smooth else list(points))
        left, top = (max(0, int(min(point[axis] for point in path))) for axis in (0, 1))
        right, bottom = (min(self._pixels, int(max(point[axis] for point in path)) + 2) for axis in (0, 1))
        if right <= left or bottom <= top:
            return
        mask = Image.new("L", (right - left, bottom - top), 0)
        ImageDraw.Draw(mask).polygon([(x - left, y - top) for x, y in path], fill=255)
        self._sheet.paste(self._cloth(fabric).crop((left, top, right, bottom)), (left, top), mask)
        if outline:
            self._draw().line(
                [*path, path[0], path[1]], fill=(*fabric.edge, 255), width=self._width(0.7), joint="curve"
            )

    def both(self, points: Sequence[Point], fabric: Fabric, smooth: bool = True) -> None:
        """Lay a piece and its mirror image (around x = 50)."""
        self.area(points, fabric, smooth)
        self.area(mirror(points), fabric, smooth)

    def line(self, points: Sequence[Point], colour: Rgb, width: float = 0.7, smooth: bool = True) -> None:
        """Draw a line; width in hundredths."""
        path = self._scaled(curve(points, closed=False) if smooth else list(points))
        self._draw().line(path, fill=(*colour, 255), width=self._width(width), joint="curve")

    def ellipse(self, x: float, y: float, rx: float, ry: float, fabric: Fabric, outline: bool = True) -> None:
        """Lay an ellipse of cloth around a point."""
        angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        points = [(x + rx * float(np.cos(a)), y + ry * float(np.sin(a))) for a in angles]
        self.area(points, fabric, smooth=False, outline=outline)

    def hole(self, x: float, y: float, rx: float, ry: float) -> None:
        """Cut an ellipse out of what was drawn so far."""
        factor = self._pixels / 100
        box = [(x - rx) * factor, (y - ry) * factor, (x + rx) * factor, (y + ry) * factor]
        self._draw().ellipse(box, fill=(0, 0, 0, 0))

    def ring(self, x: float, y: float, rx: float, ry: float, colour: Rgb, width: float) -> None:
        """Draw the outline of an ellipse."""
        angles = np.linspace(0, 2 * np.pi, 49)
        self.line(
            [(x + rx * float(np.cos(a)), y + ry * float(np.sin(a))) for a in angles],
            colour,
            width,
            smooth=False,
        )

    def buttons(self, points: Sequence[Point], fabric: Fabric, radius: float = 0.9) -> None:
        """Sew on buttons."""
        for x, y in points:
            self.ellipse(x, y, radius, radius, fabric)

    def cut_out(self) -> Image.Image:
        """What was drawn, with a transparent ground, at the finished size."""
        return self._sheet.resize((self.size, self.size), Image.Resampling.LANCZOS)

    def _cloth(self, fabric: Fabric) -> Image.Image:
        if fabric not in self._cloths:
            self._cloths[fabric] = texture(fabric, self._pixels)
        return self._cloths[fabric]

    def _draw(self) -> ImageDraw.ImageDraw:
        return ImageDraw.Draw(self._sheet)

    def _scaled(self, points: Sequence[Point]) -> list[Point]:
        factor = self._pixels / 100
        return [(x * factor, y * factor) for x, y in points]

    def _width(self, hundredths: float) -> int:
        return max(1, round(hundredths * self._pixels / 100))


def curve(points: Sequence[Point], closed: bool) -> list[Point]:
    """A Catmull-Rom curve through all points (Catmull and Rom, 1974)."""
    p = np.array(points, float)
    before = np.roll(p, 1, 0) if closed else np.concatenate([p[:1], p[:-1]])
    after = np.roll(p, -1, 0) if closed else np.concatenate([p[1:], p[-1:]])
    slope = (after - before) / 2
    end, end_slope = (
        (after, np.roll(slope, -1, 0)) if closed else (after, np.concatenate([slope[1:], slope[-1:]]))
    )
    # Between the two halves of a corner there is nothing to bend.
    corner = (p == end).all(axis=1)
    slope, end_slope = np.where(corner[:, None], 0, slope), np.where(corner[:, None], 0, end_slope)
    t = np.linspace(0, 1, STEPS, endpoint=False)[None, :, None]
    a, b, c, d = p[:, None], end[:, None], slope[:, None], end_slope[:, None]
    path = (
        (2 * t**3 - 3 * t**2 + 1) * a
        + (t**3 - 2 * t**2 + t) * c
        + (-2 * t**3 + 3 * t**2) * b
        + (t**3 - t**2) * d
    )
    rows = path if closed else path[:-1]
    flat = [(float(x), float(y)) for x, y in rows.reshape(-1, 2)]
    return flat if closed else [*flat, (float(p[-1, 0]), float(p[-1, 1]))]


def mirror(points: Sequence[Point]) -> list[Point]:
    """The same points on the other side of x = 50, in the other direction."""
    return [(100 - x, y) for x, y in reversed(points)]


def whole(half: Sequence[Point]) -> list[Point]:
    """A symmetric outline from its right half, from the top middle to the bottom middle."""
    return [*half, *mirror(half)]


def on_ground(cut_out: Image.Image, ground: Rgb) -> Image.Image:
    """The drawing on a plain ground with a soft shadow."""
    size = cut_out.size[0]
    picture = Image.new("RGB", cut_out.size, ground)
    alpha = cut_out.getchannel("A")
    shadow = Image.new("L", cut_out.size, 0)
    shadow.paste(alpha.point(lambda value: round(value * 0.28)), (round(size * 0.012), round(size * 0.022)))
    shadow = shadow.filter(ImageFilter.GaussianBlur(size * 0.018))
    picture.paste(Image.new("RGB", cut_out.size, (90, 86, 80)), (0, 0), shadow)
    picture.paste(cut_out, (0, 0), cut_out)
    return picture
