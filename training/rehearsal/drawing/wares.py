"""Shapes of shoes, bags and accessories.

Belongs here: outlines and details of all that is not a garment. Does not belong here: garments.
"""

from __future__ import annotations

from collections.abc import Callable

from training.rehearsal.drawing.canvas import Canvas, whole
from training.rehearsal.drawing.fabric import PALETTE, Fabric, luminance
from training.rehearsal.drawing.garments import Cut

_METAL = (196, 168, 96)


def _trim(f: Fabric, tone: str) -> Fabric:
    return Fabric(PALETTE[tone], f.accent, "plain", f.seed)


def sneakers(c: Canvas, f: Fabric, cut: Cut) -> None:
    """A sneaker from the side."""
    c.area(
        [
            (12, 58),
            (14, 40),
            (24, 36),
            (34, 40),
            (42, 38),
            (60, 50),
            (80, 56),
            (89, 64),
            (89, 70),
            (89, 70),
            (12, 70),
            (12, 70),
        ],
        f,
    )
    c.area([(10, 69), (90, 69), (91, 74), (88, 78), (13, 78), (10, 75)], _trim(f, "white"), smooth=False)
    c.area(
        [(70, 54), (82, 57), (89, 64), (89, 69.5), (89, 69.5), (70, 69.5), (70, 69.5), (67, 61)],
        f.plain(1.15),
    )
    for step in range(4):
        x, y = 43 + step * 5.2, 41 + step * 3.2
        c.line(
            [(x - 3, y + 5), (x + 3, y)],
            PALETTE["white"] if luminance(f.colour) < 200 else f.edge,
            1.4,
            smooth=False,
        )
    c.line([(24, 66), (36, 60), (50, 66)], f.accent, 2.2)


def boots(c: Canvas, f: Fabric, cut: Cut) -> None:
    """An ankle or a high boot from the side."""
    high = 12 if cut.chance < 0.45 else 30
    c.area([(26, high), (26, high), (50, high), (50, high), (51, 50), (58, 60), (80, 66), (87, 76),
            (86, 80), (86, 80),
            (24, 80), (24, 80), (25, 55)], f)  # fmt: skip
    c.area(
        [(23, 79), (23, 79), (87, 79), (87, 84), (87, 84), (45, 84), (43, 89), (24, 89), (24, 89)],
        f.plain(0.5),
    )
    if cut.chance < 0.75:
        c.line([(38, high + 1), (39, 62)], f.edge, 0.8)
    else:
        for step in range(4):
            c.line([(44, 42 + step * 6), (53, 40 + step * 6)], f.accent, 1.0, smooth=False)


def sandals(c: Canvas, f: Fabric, cut: Cut) -> None:
    """A strapped sandal from the side."""
    c.area(
        [(10, 72), (30, 69), (60, 73), (90, 72), (91, 77), (60, 79), (30, 76), (11, 79)], _trim(f, "brown")
    )
    c.area([(58, 73), (64, 56), (76, 56), (84, 72), (77, 73), (72, 62), (66, 73)], f)
    c.area([(12, 72), (14, 44), (19, 42), (22, 70)], f)
    c.area([(14, 48), (30, 44), (46, 52), (45, 56), (30, 49), (15, 53)], f)
    c.buttons([(31, 47)], f.plain(1.4), 1.6)


def heels(c: Canvas, f: Fabric, cut: Cut) -> None:
    """A shoe with a high heel from the side."""
    c.area(
        [
            (13, 38),
            (24, 36),
            (30, 46),
            (50, 62),
            (68, 62),
            (84, 70),
            (90, 76),
            (88, 79),
            (62, 79),
            (46, 74),
            (28, 60),
            (15, 52),
        ],
        f,
    )
    c.area([(13, 50), (24, 57), (20, 84), (20, 84), (16, 84), (16, 84)], f.plain(0.8))
    c.line([(62, 79.5), (90, 79)], f.edge, 1.6, smooth=False)


def loafers(c: Canvas, f: Fabric, cut: Cut) -> None:
    """A slip-on shoe from the side."""
    c.area(
        [(12, 54), (24, 50), (40, 52), (48, 48), (66, 56), (86, 64), (90, 72), (90, 72), (11, 72), (11, 72)],
        f,
    )
    c.area([(46, 49), (62, 53), (64, 62), (50, 60)], f.plain(0.85))
    c.line([(47, 56), (64, 60)], _METAL if cut.chance < 0.5 else f.edge, 1.8)
    c.area([(10, 71.5), (90, 71.5), (90, 75), (34, 75), (33, 79), (11, 79)], f.plain(0.45), smooth=False)


def flats(c: Canvas, f: Fabric, cut: Cut) -> None:
    """A flat shoe from the side."""
    c.area([(13, 50), (13, 50), (24, 55), (45, 58), (64, 58), (64, 58), (50, 70), (20, 68)], f.plain(0.5))
    c.area(
        [(11, 51), (15, 49), (22, 60), (40, 66), (54, 66), (64, 58), (78, 62), (88, 70), (90, 76), (90, 76),
         (12, 76), (12, 76)], f,
    )  # fmt: skip
    c.line([(11, 77), (90, 77)], f.plain(0.5).colour, 2.2, smooth=False)
    if cut.chance < 0.5:
        c.area([(66, 60), (72, 56), (73, 64), (66, 61), (60, 65), (60, 56)], f.plain(0.85))


def tote(c: Canvas, f: Fabric, cut: Cut) -> None:
    """An open shoulder bag."""
    for x in (38, 62):
        c.line([(x - 6, 42), (x - 4, 18), (x, 12), (x + 4, 18), (x + 6, 42)] if cut.chance < 0.5 else
               [(38, 42), (42, 20), (50, 13), (58, 20), (62, 42)], f.plain(0.7).colour, 2.4)  # fmt: skip
    c.area([(22, 38), (78, 38), (83, 86), (17, 86)], f, smooth=False)
    c.line([(22, 43), (78, 43)], f.edge, 0.7, smooth=False)
    c.line([(19, 76), (81, 76)], f.edge, 0.7, smooth=False)


def satchel(c: Canvas, f: Fabric, cut: Cut) -> None:
    """A bag with a flap and a handle."""
    c.line([(36, 36), (38, 20), (50, 15), (62, 20), (64, 36)], f.plain(0.7).colour, 3.0)
    c.area([(18, 36), (18, 36), (82, 36), (82, 36), (85, 80), (80, 84), (20, 84), (15, 80)], f)
    c.area(
        [(18, 35), (18, 35), (82, 35), (82, 35), (83, 58), (72, 63), (50, 65), (28, 63), (17, 58)],
        f.plain(0.92),
    )
    c.area([(45, 58), (55, 58), (55, 69), (45, 69)], Fabric(_METAL, f.accent, "plain", f.seed), smooth=False)


def backpack(c: Canvas, f: Fabric, cut: Cut) -> None:
    """A backpack from the front."""
    c.line([(42, 17), (44, 8), (56, 8), (58, 17)], f.plain(0.6).colour, 2.4)
    c.both([(72, 30), (80, 40), (82, 70), (76, 82), (74, 60)], f.plain(0.7))
    c.area(whole([(50, 12), (64, 14), (73, 26), (75, 60), (74, 88), (74, 88), (60, 90)]), f)
    c.area(whole([(50, 54), (66, 54), (67, 58), (66, 82), (60, 84)]), f.plain(0.9))
    c.line([(33, 60), (67, 60)], f.accent, 1.0, smooth=False)
    c.line([(28, 38), (40, 34), (60, 34), (72, 38)], f.edge, 1.2)


def clutch(c: Canvas, f: Fabric, cut: Cut) -> None:
    """A small evening bag."""
    c.area([(14, 38), (14, 38), (86, 38), (86, 38), (87, 70), (84, 74), (16, 74), (13, 70)], f)
    c.area([(14, 37.5), (86, 37.5), (50, 60)], f.plain(0.88), smooth=False)
    c.buttons([(50, 58)], Fabric(_METAL, f.accent, "plain", f.seed), 2.4)
    c.line([(86, 42), (94, 56), (88, 68)], _METAL, 1.2)


def wallet(c: Canvas, f: Fabric, cut: Cut) -> None:
    """A folded wallet."""
    c.area([(18, 32), (20, 30), (80, 30), (82, 32), (82, 72), (80, 74), (20, 74), (18, 72)], f, smooth=False)
    c.area([(62, 44), (82, 44), (82, 60), (62, 60), (59, 52)], f.plain(0.85))
    c.buttons([(66, 52)], Fabric(_METAL, f.accent, "plain", f.seed), 2.0)
    c.line([(21, 33), (79, 33)], f.edge, 0.5, smooth=False)


def scarf(c: Canvas, f: Fabric, cut: Cut) -> None:
    """A scarf, laid in a loop, with fringes."""
    for x, y in ((34, 90), (60, 80)):
        for step in range(7):
            c.line([(x + step * 2.3, y - 1), (x + step * 2.3 - 0.4, y + 5)], f.edge, 0.9, smooth=False)
    c.area([(52, 30), (66, 34), (75, 80), (75, 80), (60, 81), (60, 81), (50, 45)], f)
    c.area([(38, 32), (52, 34), (50, 90), (50, 90), (33, 90), (33, 90), (34, 55)], f)
    c.area([(26, 24), (38, 12), (62, 12), (74, 24), (68, 38), (50, 44), (32, 38)], f)
    c.area([(34, 23), (42, 18), (58, 18), (66, 23), (58, 28), (42, 28)], f.plain(0.6))


def gloves(c: Canvas, f: Fabric, cut: Cut) -> None:
    """A pair of gloves."""
    c.both([(56, 86), (56, 86), (57, 56), (56, 30), (59, 22), (62, 30), (63, 18), (66, 13), (69, 18),
            (70, 15), (73, 12), (76, 17),
            (77, 22), (80, 19), (83, 25), (82, 46), (88, 44), (91, 48), (82, 64), (78, 74), (78, 86),
                    (78, 86)], f)  # fmt: skip
    for x in (0, 1):
        a, b = (56, 78) if x else (22, 44)
        c.line([(a, 76), (b, 76)], f.edge, 1.2, smooth=False)


def beanie(c: Canvas, f: Fabric, cut: Cut) -> None:
    """A knitted cap, some with a bobble."""
    if cut.chance < 0.5:
        c.ellipse(50, 18, 9, 9, f.plain(1.2))
    c.area(whole([(50, 24), (68, 30), (79, 52), (80, 66), (80, 66)]), f)
    c.area([(17, 64), (17, 64), (83, 64), (83, 64), (84, 78), (80, 81), (20, 81), (16, 78)], f.plain(0.9))
    for step in range(16):
        x = 20 + step * 4
        c.line([(x, 66), (x, 79)], f.edge, 0.5, smooth=False)


def hat(c: Canvas, f: Fabric, cut: Cut) -> None:
    """A hat with a brim and a band."""
    c.ellipse(50, 66, 43, 11, f)
    c.area(whole([(50, 26), (58, 29), (66, 27), (72, 40), (74, 63), (74, 63), (62, 67)]), f)
    c.area(
        [(26, 55), (74, 55), (74.5, 63), (50, 67), (25.5, 63)],
        Fabric(f.accent, f.colour, "plain", f.seed),
        smooth=False,
    )


def cap(c: Canvas, f: Fabric, cut: Cut) -> None:
    """A baseball cap from the side."""
    c.area([(18, 62), (18, 62), (22, 40), (40, 26), (60, 30), (72, 46), (74, 62), (74, 62)], f)
    c.area([(50, 61), (74, 58), (92, 64), (95, 71), (74, 69), (50, 66)], f.plain(0.8))
    c.line([(44, 27), (40, 44), (40, 62)], f.edge, 0.6)
    c.buttons([(45, 27)], f.plain(0.8), 1.8)


def belt(c: Canvas, f: Fabric, cut: Cut) -> None:
    """A rolled belt with a buckle."""
    c.ellipse(54, 50, 36, 30, f)
    c.hole(54, 48, 29, 22)
    c.ellipse(54, 51, 23, 17, f.plain(0.9))
    c.hole(54, 50, 17, 11)
    c.area([(12, 40), (32, 40), (32, 60), (12, 60)], Fabric(_METAL, f.accent, "plain", f.seed), smooth=False)
    c.area([(17, 45), (28, 45), (28, 55), (17, 55)], f.plain(0.7), smooth=False)
    c.line([(14, 50), (30, 50)], _METAL, 2.0, smooth=False)


def sunglasses(c: Canvas, f: Fabric, cut: Cut) -> None:
    """Sunglasses from the front."""
    lens = Fabric((58, 62, 70) if cut.chance < 0.6 else (110, 76, 52), f.accent, "plain", f.seed)
    round_ = cut.chance * 5 % 1 < 0.4
    for x in (29, 71):
        if round_:
            c.ellipse(x, 50, 18, 17, f)
            c.ellipse(x, 50, 14.5, 13.5, lens)
        else:
            for size, cloth in ((1.0, f), (0.8, lens)):
                w, h = 19 * size, 14 * size
                c.area([(x - w, 50 - h), (x + w, 50 - h), (x + w * 0.95, 50 + h * 0.3),
                        (x + w * 0.5, 50 + h), (x - w * 0.5, 50 + h),
                        (x - w * 0.95, 50 + h * 0.3)], cloth)  # fmt: skip
    c.line([(46, 46), (50, 43), (54, 46)], f.colour, 2.6)
    c.line([(11, 43), (6, 40)], f.colour, 3.0, smooth=False)
    c.line([(89, 43), (94, 40)], f.colour, 3.0, smooth=False)


def watch(c: Canvas, f: Fabric, cut: Cut) -> None:
    """A wristwatch."""
    c.area([(40, 8), (60, 8), (63, 34), (37, 34)], f, smooth=False)
    c.area([(37, 66), (63, 66), (60, 92), (40, 92)], f, smooth=False)
    case = Fabric(_METAL if cut.chance < 0.5 else (176, 180, 186), f.accent, "plain", f.seed)
    c.ellipse(50, 50, 22, 22, case)
    c.ellipse(50, 50, 18, 18, _trim(f, "white") if cut.chance * 3 % 1 < 0.6 else _trim(f, "navy"))
    ink = (60, 60, 64) if cut.chance * 3 % 1 < 0.6 else (240, 240, 240)
    c.line([(50, 50), (50, 37)], ink, 1.3, smooth=False)
    c.line([(50, 50), (58, 54)], ink, 1.3, smooth=False)
    c.area([(71, 48), (75, 48), (75, 52), (71, 52)], case, smooth=False)


def necklace(c: Canvas, f: Fabric, cut: Cut) -> None:
    """A chain with a pendant, or beads."""
    arc = [(22, 14), (26, 44), (38, 64), (50, 70), (62, 64), (74, 44), (78, 14)]
    c.line(arc, _METAL, 1.2)
    if cut.chance < 0.5:
        c.ellipse(50, 78, 7, 8.5, f)
        c.ellipse(50, 78, 3, 4, f.plain(1.3))
    else:
        for x, y, r in (
            (26, 44, 4),
            (31, 55, 4.6),
            (38, 64, 5.2),
            (50, 69, 6),
            (62, 64, 5.2),
            (69, 55, 4.6),
            (74, 44, 4),
        ):
            c.ellipse(x, y, r, r, f)


def socks(c: Canvas, f: Fabric, cut: Cut) -> None:
    """A pair of socks."""
    for shift in (14, -8):
        c.area([(32 + shift, 14), (32 + shift, 14), (50 + shift, 14), (50 + shift, 14),
                (50 + shift, 52), (58 + shift, 62), (72 + shift, 70),
                (74 + shift, 80), (64 + shift, 84), (46 + shift, 78), (33 + shift, 64)], f)  # fmt: skip
        c.area(
            [(31.5 + shift, 13), (50.5 + shift, 13), (50.5 + shift, 22), (31.5 + shift, 22)],
            f.plain(0.85),
            smooth=False,
        )
        c.area(
            [(64 + shift, 66), (72 + shift, 70), (74 + shift, 80), (64 + shift, 84), (60 + shift, 76)],
            f.plain(0.85),
        )


DRAWN: dict[str, Callable[[Canvas, Fabric, Cut], None]] = {
    "sneakers": sneakers, "boots": boots, "sandals": sandals, "heels": heels, "loafers": loafers, "flats": flats,
    "tote": tote, "satchel": satchel, "backpack": backpack, "clutch": clutch, "wallet": wallet, "scarf": scarf,
    "gloves": gloves, "beanie": beanie, "hat": hat, "cap": cap, "belt": belt, "sunglasses": sunglasses,
    "watch": watch, "necklace": necklace, "socks": socks,
}  # fmt: skip
"""Shoes, bags and accessories by type."""
