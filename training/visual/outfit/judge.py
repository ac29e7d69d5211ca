"""Fill in the blank and compatibility, the two tests of outfit models.

Both follow the protocol of Polyvore Outfits (Vasileva et al. 2018, "Learning Type-Aware Embeddings for Fashion
Compatibility") with its harder negatives: wrong answers have the slot of the right one and come from other looks of
the same part, drawn with a fixed seed.

What to know before trusting the numbers on street-looks: items of one photo share light, exposure, background seen
through straps and lace, and the camera, so a model can find the right answer without any taste. Vectors are
therefore taken with everything but the item blanked; light and camera remain, and the numbers are upper bounds of
what the model knows about taste.

Belongs here: questions and scores. Does not belong here: models.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from training.visual.outfit.looks import Integers, Looks

WAYS = 4
NEGATIVES = 10
"""Mixed looks per real one in the test of compatibility."""

DRAWS = 5
"""Times that each item is asked for, with other wrong answers."""

Answer = Callable[[Looks, list[Integers], Integers], npt.NDArray[np.float32]]
"""Looks, sets of item numbers ``[Q]`` and candidates ``[Q, 4]`` to scores ``[Q, 4]``."""

Fit = Callable[[Looks, list[Integers]], npt.NDArray[np.float32]]
"""Looks and sets of item numbers to the compatibility of each set."""


@dataclasses.dataclass(frozen=True)
class Questions:
    """Blanks to fill in.

    Attributes:
        sets: What is there.
        candidates: Four items to choose from, the right one first, ``[Q, 4]``.
    """

    sets: list[Integers]
    candidates: Integers


def blanks(looks: Looks, seed: int, draws: int = DRAWS) -> Questions:
    """Each item of each look, taken out and hidden among three of its slot from three other looks.

    Items of slots that fewer than three other looks show are not asked for.
    """
    rng = np.random.default_rng(seed)
    sets, candidates = [], []
    for group in looks.members():
        for item in group:
            others = np.flatnonzero((looks.slots == looks.slots[item]) & (looks.looks != looks.looks[item]))
            if len(np.unique(looks.looks[others])) < WAYS - 1:
                continue
            for _ in range(draws):
                chosen: list[int] = []
                for other in rng.permutation(others):
                    if looks.looks[other] not in looks.looks[chosen]:
                        chosen.append(int(other))
                    if len(chosen) == WAYS - 1:
                        break
                sets.append(group[group != item])
                candidates.append([item, *chosen])
    return Questions(sets, np.array(candidates, np.int64).reshape(-1, WAYS))


def fitb(answer: Answer, looks: Looks, questions: Questions) -> float:
    """Share of blanks for which the right item scores highest; ties count as wrong."""
    if not questions.sets:
        return float("nan")
    scores = answer(looks, questions.sets, questions.candidates)
    return float((scores[:, :1] > scores[:, 1:]).all(axis=1).mean())


@dataclasses.dataclass(frozen=True)
class Mixed:
    """Real looks and mixed ones.

    Attributes:
        sets: Items of each.
        real: Whether it was worn.
    """

    sets: list[Integers]
    real: npt.NDArray[np.bool_]


def mixtures(looks: Looks, seed: int, negatives: int = NEGATIVES) -> Mixed:
    """Each look, and mixed ones of the same slots whose items come from as many other looks."""
    rng = np.random.default_rng(seed)
    sets, real = [], []
    for group in looks.members():
        sets.append(group)
        real.append(True)
        for _ in range(negatives):
            mixed: list[int] = []
            for item in group:
                others = np.flatnonzero(
                    (looks.slots == looks.slots[item]) & (looks.looks != looks.looks[item])
                )
                fresh = others[~np.isin(looks.looks[others], looks.looks[mixed])]
                if len(fresh):
                    mixed.append(int(rng.choice(fresh)))
            if len(mixed) == len(group):
                sets.append(np.array(mixed))
                real.append(False)
    return Mixed(sets, np.array(real))


def auc(fit: Fit, looks: Looks, mixed: Mixed) -> float:
    """Chance that a real look fits better than a mixed one; ties count half."""
    return area(fit(looks, mixed.sets), mixed.real)


def area(scores: npt.NDArray[np.floating], right: npt.NDArray[np.bool_]) -> float:
    """Area under the ROC curve."""
    positives = int(right.sum())
    if not positives or positives == len(right):
        return float("nan")
    ranks = rankdata(scores)[right].sum()
    return float((ranks - positives * (positives + 1) / 2) / (positives * (len(right) - positives)))
