"""The gate: may a challenger become champion?

Belongs here: the rule and its reasons in words. Does not belong here: scoring (`orchestration/judging.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from training.evaluation.statistics import Interval, difference_interval, ratio_interval

Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class GateResult:
    """The verdict.

    Attributes:
        passed: All rules hold.
        reasons: One sentence per rule, whether it holds or not.
        intervals: Paired intervals by name: ``champion_difference`` (challenger minus champion), and per
            baseline ``<name>_ratio`` (challenger over baseline).
    """

    passed: bool
    reasons: tuple[str, ...]
    intervals: dict[str, Interval]

    @property
    def numbers(self) -> dict[str, float]:
        """The intervals as flat numbers: ``<name>``, ``<name>_low``, ``<name>_high``."""
        flat: dict[str, float] = {}
        for name, interval in self.intervals.items():
            flat |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
        return flat


def gate(
    challenger_per_request: Floats,
    champion_per_request: Floats | None,
    baselines_per_request: Mapping[str, Floats],
    seed: int = 0,
    least_ratio: float = 1.0,
    most_loss: float = 0.0,
) -> GateResult:
    """Compare on one frozen set; every vector holds one value per request, in the same order.

    The challenger passes if it is not worse than the champion beyond the paired interval (the upper bound of the
    difference is not below 0, or not further than ``most_loss`` allows), and better than the best baseline (the
    lower bound of the ratio is above ``least_ratio``).

    Args:
        challenger_per_request: float64[R].
        champion_per_request: float64[R], or None where there is no champion yet.
        baselines_per_request: float64[R] by name; at least one.
        seed: Of the bootstrap.
        least_ratio: What the lower bound of the ratio to the best baseline must exceed; below 1 only where
            a shop has too few requests for a narrow interval.
        most_loss: Margin of non-inferiority, as a share of the champion's mean; above 0 likewise.

    Raises:
        ValueError: No baselines, or vectors of unequal lengths.
    """
    if not baselines_per_request:
        raise ValueError("baselines_per_request is empty; expected at least one baseline to beat")
    intervals: dict[str, Interval] = {}
    verdicts: list[tuple[bool, str]] = []
    if champion_per_request is not None:
        found = difference_interval(challenger_per_request, champion_per_request, seed)
        intervals["champion_difference"] = found
        verdicts.append(_against_champion(found, most_loss * float(np.mean(champion_per_request))))
    for name, values in baselines_per_request.items():
        intervals[f"{name}_ratio"] = ratio_interval(challenger_per_request, values, seed)
    best = max(baselines_per_request, key=lambda name: float(np.mean(baselines_per_request[name])))
    verdicts.append(_against_baseline(best, intervals[f"{best}_ratio"], least_ratio))
    return GateResult(all(held for held, _ in verdicts), tuple(text for _, text in verdicts), intervals)


def _against_champion(found: Interval, margin: float) -> tuple[bool, str]:
    held = found.high >= -margin
    allowed = f"; {margin:.4f} worse is allowed" if margin else ""
    verb = "does not lose to" if held else "loses to"
    return (
        held,
        f"{verb} the champion: difference {found.value:+.4f}, interval {found.low:+.4f} to {found.high:+.4f}{allowed}",
    )


def _against_baseline(name: str, found: Interval, least: float) -> tuple[bool, str]:
    held = found.low > least
    verb = "beats" if held else "does not beat"
    return held, (
        f"{verb} the best baseline ({name}): ratio {found.value:.3f}, interval {found.low:.3f} to {found.high:.3f}; "
        f"expected above {least:g}"
    )
