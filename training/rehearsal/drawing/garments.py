"""Shapes of garments, laid flat and seen from the front.

Belongs here: outlines, seams, collars. Does not belong here: shoes, bags, accessories.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from training.rehearsal.drawing.canvas import Canvas, Point, whole
from training.rehearsal.drawing.fabric import Fabric


@dataclasses.dataclass(frozen=True)
class Cut:
    """How one garment differs from others of its type.

    Attributes:
        width: Factor on the body's width (slim 0.92 to oversized 1.15).
        chance: Number in [0, 1) that picks variants.
    """

    width: float
    chance: float


def _body(
    cut: Cut, bottom: float, flare: float, neck: float, depth: float, waist: float = 0.0
) -> list[Point]:
    chest = 17 * cut.width
    hem = chest + flare
    return whole(
        [
            (50, 17 + depth), (50 + neck * 0.7, 17 + depth * 0.75), (50 + neck, 15), (50 + neck, 15),
            (50 + chest + 1, 20), (50 + chest + 1, 20), (50 + chest, 36), (50 + chest - waist, (36 + bottom) / 2),
            (50 + hem, bottom), (50 + hem, bottom),
        ]
    )  # fmt: skip


def _sleeve(cut: Cut, length: float, width: float = 8.5) -> list[Point]:
    """The right sleeve: 0.3 for a short one, 1 down to the wrist."""
    shoulder = 50 + 17 * cut.width + 1
    reach, drop = 4 + 13 * length, 6 + 50 * length
    end = (shoulder + reach, 20 + drop)
    narrow = width * (0.95 - 0.3 * length)
    return [
        (shoulder - 3, 17.5), (shoulder - 3, 17.5), (shoulder + 3 + reach * 0.45, 20 + drop * 0.42), end, end,
        (end[0] - narrow, end[1] + 2), (end[0] - narrow, end[1] + 2), (shoulder - 1.5, 36), (shoulder - 1.5, 36),
    ]  # fmt: skip


def _top(
    c: Canvas, f: Fabric, cut: Cut, bottom: float, sleeve: float, neck: float = 8.0, depth: float = 5.0,
    flare: float = 0.0, waist: float = 1.0, wide: float = 8.5,
) -> None:  # fmt: skip
    if sleeve > 0:
        c.both(_sleeve(cut, sleeve, wide), f)
    c.area(_body(cut, bottom, flare, neck, depth, waist), f)
    c.line([(50 - neck, 15), (50 - neck * 0.7, 17 + depth * 0.75), (50, 17 + depth), (50 + neck * 0.7, 17 + depth * 0.75),
            (50 + neck, 15)], f.edge, 1.2)  # fmt: skip


def _front(c: Canvas, f: Fabric, begin: float, end: float, count: int, button: Fabric) -> None:
    c.line([(50, begin), (50, end)], f.edge, 0.6, smooth=False)
    step = (end - begin) / (count + 0.6)
    c.buttons([(51.6, begin + (i + 0.7) * step) for i in range(count)], button)


def _collar(c: Canvas, f: Fabric, size: float = 7.0) -> None:
    c.both(
        [(50, 21), (50, 21), (57.5, 14), (57.5, 14), (58.5, 16.5), (57, 15 + size), (57, 15 + size)],
        f.plain(1.05),
    )


def _lapels(c: Canvas, f: Fabric, to: float) -> None:
    c.area([(50, to), (50, to), (43, 15), (43, 15), (57, 15), (57, 15)], f.plain(0.55), smooth=False)
    c.both([(50.4, to), (50.4, to), (56, 14.5), (56, 14.5), (61, 21), (58.5, 24), (60.5, 26), (60.5, 26)], f)


def _hood(c: Canvas, f: Fabric) -> None:
    c.area(whole([(50, 5.5), (58, 7.5), (61.5, 14), (59, 21), (50, 25)]), f)
    c.area(whole([(50, 9.5), (55, 11), (57, 15), (54.5, 20), (50, 23.5)]), f.plain(0.55))


def _pockets(c: Canvas, f: Fabric, y: float, width: float = 8.0) -> None:
    for x in (36.5, 63.5):
        c.line([(x - width / 2, y), (x + width / 2, y - 1)], f.edge, 1.1, smooth=False)


def _ribs(c: Canvas, f: Fabric, cut: Cut, bottom: float) -> None:
    edge = 17 * cut.width
    c.line([(50 - edge, bottom - 4), (50 + edge, bottom - 4)], f.edge, 0.5, smooth=False)
    for step in range(1, 14):
        x = 50 - edge + step * 2 * edge / 14
        c.line([(x, bottom - 4), (x, bottom - 0.5)], f.edge, 0.35, smooth=False)


def tee(c: Canvas, f: Fabric, cut: Cut) -> None:
    """A T-shirt, with a round or a V neck."""
    _top(c, f, cut, 76, 0.28, depth=5 if cut.chance < 0.65 else 11, wide=11)


def shirt(c: Canvas, f: Fabric, cut: Cut) -> None:
    """A buttoned shirt with a collar."""
    _top(c, f, cut, 82, 1.0)
    _front(c, f, 22, 82, 6, f.plain(1.25))
    _collar(c, f)
    if cut.chance < 0.5:
        c.area([(55, 36), (63, 36), (63, 44), (59, 46), (55, 44)], f, smooth=False)


def blouse(c: Canvas, f: Fabric, cut: Cut) -> None:
    """A blouse with wide sleeves and a bow or a V neck."""
    _top(c, f, cut, 76, 0.85, depth=10, flare=4, waist=2.5, wide=13)
    if cut.chance < 0.5:
        c.both([(50, 24), (50, 24), (57, 20), (59, 25), (57, 28)], f.plain(0.9))
        c.both([(50, 25), (50, 25), (54, 37), (51.5, 38)], f.plain(0.95))


def top(c: Canvas, f: Fabric, cut: Cut) -> None:
    """A sleeveless top on straps."""
    edge = 15 * cut.width
    c.both([(56, 13), (58.5, 13), (61, 26), (58, 27)], f, smooth=False)
    c.area(whole([(50, 27), (57, 24), (61, 24), (61, 24), (50 + edge, 34), (50 + edge - 1, 50), (50 + edge + 2, 74),
                  (50 + edge + 2, 74)]), f)  # fmt: skip


def sweater(c: Canvas, f: Fabric, cut: Cut) -> None:
    """A knitted pullover, some with a roll neck."""
    _top(c, f, cut, 78, 1.0, wide=10)
    _ribs(c, f, cut, 78)
    if cut.chance < 0.4:
        c.area(whole([(50, 9.5), (57, 10), (57, 10), (58.5, 18), (50, 20.5)]), f.plain(0.95))


def cardigan(c: Canvas, f: Fabric, cut: Cut) -> None:
    """A knitted jacket with buttons."""
    _top(c, f, cut, 80, 1.0, depth=4, wide=10)
    c.area([(50, 42), (50, 42), (42, 15), (42, 15), (58, 15), (58, 15)], f.plain(0.5), smooth=False)
    _front(c, f, 42, 80, 4, f.plain(0.6))
    c.line([(42, 15), (50, 42), (58, 15)], f.edge, 1.6, smooth=False)
    _ribs(c, f, cut, 80)


def hoodie(c: Canvas, f: Fabric, cut: Cut) -> None:
    """A sweatshirt with a hood and a pouch."""
    _top(c, f, cut, 78, 1.0, wide=11)
    _hood(c, f)
    c.area([(41, 58), (59, 58), (64, 72), (36, 72)], f, smooth=False)
    for x in (48, 52):
        c.line([(x, 23), (x - 0.6, 36)], f.accent, 0.9)
    _ribs(c, f, cut, 78)


def dress(c: Canvas, f: Fabric, cut: Cut) -> None:
    """A dress; sleeves, length and flare vary."""
    sleeve = 0.0 if cut.chance < 0.4 else 0.25 if cut.chance < 0.75 else 0.9
    length = 92 if cut.chance * 7 % 1 < 0.5 else 82
    if sleeve:
        c.both(_sleeve(cut, sleeve, 9.5), f)
    chest = 15 * cut.width
    c.area(whole([(50, 22), (55, 20.5), (57.5, 13), (57.5, 13), (61, 13), (50 + chest + 2, 22), (50 + chest, 34),
                  (50 + chest - 4, 46), (50 + chest - 4, 46), (50 + chest + 5, 66), (50 + chest + 11, length),
                  (50 + chest + 11, length), (60, length + 2)]), f)  # fmt: skip
    c.line([(54 - chest, 46), (50, 47), (46 + chest, 46)], f.edge, 1.3)
    for x in (40, 50, 60):
        c.line([(x, 48), (50 + (x - 50) * 1.7, length - 1)], f.edge, 0.4)


def jumpsuit(c: Canvas, f: Fabric, cut: Cut) -> None:
    """Top and trousers in one."""
    chest = 14 * cut.width
    c.area(whole([(50, 28), (55, 20), (56, 10), (56, 10), (60, 10), (50 + chest, 22), (50 + chest - 3, 42),
                  (50 + chest - 3, 42), (50 + chest + 3, 58), (50 + chest + 2, 95), (50 + chest + 2, 95),
                  (53.5, 95), (53.5, 95), (50.5, 60), (50.5, 60)]), f)  # fmt: skip
    c.line([(53 - chest, 43), (47 + chest, 43)], f.accent, 2.0, smooth=False)


def skirt(c: Canvas, f: Fabric, cut: Cut) -> None:
    """A skirt, narrow or flared, short or long."""
    flare, length = (16, 74) if cut.chance < 0.5 else (5, 82)
    edge = 15 * cut.width
    c.area(whole([(50, 22), (50 + edge, 22), (50 + edge, 22), (50 + edge + flare * 0.7, 45), (50 + edge + flare, length),
                  (50 + edge + flare, length), (60, length + 2.5)]), f)  # fmt: skip
    c.area([(50 - edge, 18), (50 + edge, 18), (50 + edge, 23), (50 - edge, 23)], f.plain(0.85), smooth=False)
    if flare > 10:
        for x in (-0.6, -0.2, 0.2, 0.6):
            c.line([(50 + edge * x, 24), (50 + (edge + flare) * x, length + 1)], f.edge, 0.5, smooth=False)


def _legs(c: Canvas, f: Fabric, cut: Cut, length: float, width: float, hem: float) -> None:
    hip = 16.5 * cut.width
    c.area(whole([(50, 14), (50 + hip - 2.5, 14), (50 + hip - 2.5, 14), (50 + hip + 1, 28), (50 + hip * width + 3, 50),
                  (52.5 + hip * hem * 0.5 + 5, length), (52.5 + hip * hem * 0.5 + 5, length), (52.5, length),
                  (52.5, length), (50.4, 38), (50.4, 38)]), f)  # fmt: skip
    c.area([(52 - hip, 11), (48 + hip, 11), (48 + hip, 15.5), (52 - hip, 15.5)], f.plain(0.9), smooth=False)
    c.line([(50, 15.5), (50.5, 25), (50, 38)], f.edge, 0.6)


def jeans(c: Canvas, f: Fabric, cut: Cut) -> None:
    """Jeans with pockets and orange seams."""
    _legs(c, f, cut, 94, 0.82, 0.85 if cut.chance < 0.6 else 1.15)
    seam = (206, 140, 60)
    for x in (-1, 1):
        c.line([(50 + x * 4, 16), (50 + x * 8, 22), (50 + x * 15 * cut.width, 23)], seam, 0.6)
        c.line([(50 + x * 16 * cut.width, 30), (50 + x * 14 * cut.width, 60)], seam, 0.45)
    c.buttons([(50, 13.2)], f.plain(1.4), 1.1)


def trousers(c: Canvas, f: Fabric, cut: Cut) -> None:
    """Trousers with a crease."""
    _legs(c, f, cut, 95, 0.86, 1.05)
    for x in (-1, 1):
        c.line([(50 + x * 8, 20), (50 + x * 9, 92)], f.edge, 0.5)


def shorts(c: Canvas, f: Fabric, cut: Cut) -> None:
    """Short trousers."""
    hip = 17.5 * cut.width
    c.area(whole([(50, 24), (50 + hip - 2, 24), (50 + hip - 2, 24), (50 + hip + 2, 40), (50 + hip + 5, 68),
                  (50 + hip + 5, 68), (52.5, 71), (52.5, 71), (50.4, 50), (50.4, 50)]), f)  # fmt: skip
    c.area([(52 - hip, 20), (48 + hip, 20), (48 + hip, 25), (52 - hip, 25)], f.plain(0.88), smooth=False)
    c.line([(48.5, 23), (47, 32)], f.accent, 0.9)
    c.line([(51.5, 23), (53, 32)], f.accent, 0.9)


def leggings(c: Canvas, f: Fabric, cut: Cut) -> None:
    """Tight trousers."""
    c.area(whole([(50, 12), (61, 12), (61, 12), (64, 28), (61, 52), (58, 72), (56.5, 94), (56.5, 94), (52, 94), (52, 94),
                  (50.4, 36), (50.4, 36)]), f)  # fmt: skip
    c.line([(39, 17), (50, 18), (61, 17)], f.edge, 0.6)


def coat(c: Canvas, f: Fabric, cut: Cut) -> None:
    """A long coat with lapels."""
    _top(c, f, cut, 94, 1.0, flare=4, wide=11)
    _lapels(c, f, 40)
    _front(c, f, 40, 94, 3, f.plain(0.5))
    _pockets(c, f, 64)
    if cut.chance < 0.4:
        edge = 17 * cut.width + 1
        c.area(
            [(50 - edge, 50), (50 + edge, 50), (50 + edge, 54.5), (50 - edge, 54.5)],
            f.plain(0.8),
            smooth=False,
        )


def jacket(c: Canvas, f: Fabric, cut: Cut) -> None:
    """A short jacket with a zip."""
    _top(c, f, cut, 70, 1.0, wide=11)
    c.line([(50, 18), (50, 70)], f.plain(1.6).colour, 1.3, smooth=False)
    _collar(c, f, 9)
    _pockets(c, f, 54)
    _ribs(c, f, cut, 70)


def blazer(c: Canvas, f: Fabric, cut: Cut) -> None:
    """A tailored jacket."""
    _top(c, f, cut, 78, 1.0, waist=2.5, flare=1.5, wide=9.5)
    _lapels(c, f, 46)
    _front(c, f, 46, 78, 2, f.plain(0.5))
    _pockets(c, f, 60)


def parka(c: Canvas, f: Fabric, cut: Cut) -> None:
    """A hooded coat with a zip and flap pockets."""
    _top(c, f, cut, 88, 1.0, flare=2, wide=12)
    _hood(c, f)
    c.line([(50, 24), (50, 88)], f.plain(1.7).colour, 1.4, smooth=False)
    for x in (36.5, 63.5):
        c.area([(x - 5, 58), (x + 5, 58), (x + 5, 63), (x, 65), (x - 5, 63)], f, smooth=False)
    c.line([(32, 54), (50, 55), (68, 54)], f.edge, 0.8)


DRAWN: dict[str, Callable[[Canvas, Fabric, Cut], None]] = {
    "tee": tee, "shirt": shirt, "blouse": blouse, "top": top, "sweater": sweater, "cardigan": cardigan,
    "hoodie": hoodie, "dress": dress, "jumpsuit": jumpsuit, "skirt": skirt, "jeans": jeans, "trousers": trousers,
    "shorts": shorts, "leggings": leggings, "coat": coat, "jacket": jacket, "blazer": blazer, "parka": parka,
}  # fmt: skip
"""Garments by type."""
