"""What a reviewer sees of an outfit model: blanks with their answers, the card.

Belongs here: words and pictures from answers. Does not belong here: the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from contracts.visual import WEARABLE
from training.visual.outfit.items import BLANK, Item
from training.visual.outfit.judge import WAYS, Questions
from training.visual.outfit.looks import Looks
from training.visual.outfit.params import OutfitConfig

TILE = 110
MOST_GIVEN = 6
RIGHT, WRONG = (11, 110, 79), (200, 40, 40)


def contact_sheet(
    items: Sequence[Item], looks: Looks, questions: Questions, scores: npt.NDArray[np.float32], rows: int = 10
) -> Image.Image:
    """Blanks that were filled in well, then badly: at the left what was given, at the right four candidates.

    Candidates stand best first; the right one has a green frame, a wrong one that was preferred a red one.
    """
    lead = scores[:, 0] - scores[:, 1:].max(axis=1)
    owner = looks.looks[questions.candidates[:, 0]]
    good, bad = (_one_per_look(order, owner) for order in (np.argsort(-lead), np.argsort(lead)))
    chosen = [*good[: rows // 2], *bad[: rows - rows // 2][::-1]]
    sheet = Image.new("RGB", ((MOST_GIVEN + 1 + WAYS) * TILE, len(chosen) * TILE), (BLANK, BLANK, BLANK))
    draw = ImageDraw.Draw(sheet)
    for row, number in enumerate(chosen):
        for column, item in enumerate(questions.sets[number][:MOST_GIVEN]):
            sheet.paste(_tile(items[item]), (column * TILE, row * TILE))
        slot = WEARABLE[looks.slots[questions.candidates[number, 0]] - 1]
        draw.text((MOST_GIVEN * TILE + 8, row * TILE + TILE // 2 - 6), f"{slot}?", fill=(0, 0, 0))
        ranked = np.argsort(-scores[number], kind="stable")
        for column, candidate in enumerate(ranked):
            x, y = (MOST_GIVEN + 1 + column) * TILE, row * TILE
            sheet.paste(_tile(items[questions.candidates[number, candidate]]), (x, y))
            colour = RIGHT if candidate == 0 else WRONG if column == 0 else None
            if colour:
                draw.rectangle((x + 1, y + 1, x + TILE - 3, y + TILE - 3), outline=colour, width=3)
            draw.text((x + 6, y + TILE - 16), f"{scores[number, candidate]:.2f}", fill=(0, 0, 0))
    return sheet


def _one_per_look(order: npt.NDArray[np.int64], owner: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Blanks in order, of each look the first."""
    _, first = np.unique(owner[order], return_index=True)
    return order[np.sort(first)]


def _tile(item: Item) -> Image.Image:
    wide, high = item.image.size
    left, top, right, bottom = item.box
    cut = item.image.crop((round(left * wide), round(top * high), round(right * wide), round(bottom * high)))
    scale = (TILE - 10) / max(cut.size)
    cut = cut.resize((max(1, round(cut.width * scale)), max(1, round(cut.height * scale))))
    tile = Image.new("RGB", (TILE, TILE), (BLANK, BLANK, BLANK))
    tile.paste(cut, ((TILE - cut.width) // 2, (TILE - cut.height) // 2))
    return tile


def card(config: OutfitConfig, numbers: Mapping[str, float], facts: Mapping[str, str]) -> str:
    """The model card, Markdown."""
    results = "\n".join(f"| {name} | {value:.4f} |" for name, value in numbers.items())
    made = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    surroundings = (
        "everything but the item made white" if config.blank else "surroundings in which the answer shows"
    )
    return f"""# Outfit model of {config.retailer}

Says which item of a slot completes a set of items, and how well a set fits together.

## How it was made
| | |
|---|---|
{made}

## How good it is
Fill in the blank: each item of each look is hidden among three of its slot from three other looks of the same part
(chance: 0.25). Compatibility: area under the ROC curve of real looks against ten mixed ones each, of the same slots,
items of other looks (chance: 0.5). Wrong answers and mixtures are drawn with seed {config.seed}. "alike" is the mean
cosine of the same vectors, without a model.

| | |
|---|---|
{results}

## Use with care
- Items cut out of one photo share light, exposure, camera and the outlines of what hides them, so part of these
  numbers is photography, not taste; with {surroundings}
  they are upper bounds of what it knows about taste.
- A few hundred looks of one city's streets are not every shopper's taste, nor every season.
- It knows nothing of stock, size or price: who serves it filters first.
"""
