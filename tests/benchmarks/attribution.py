"""Attribution: credits against hand-worked chains, and every method's distance to what channels really caused.

The truth is the atelier's (simulated): purchases that would not have happened without a channel's contacts.
Paths come from a plain stitch of identifiers, as a shop would have them, with two readings of a touch: what
people did (opens and clicks) and that plus what they were shown (impressions).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from orchestration.lake import attribution
from orchestration.lake.attribution import Credits, Path
from tests.benchmarks.stitching import stitched

SEEDS = (101, 102, 103)
READINGS = {"": attribution.TOUCHES, "_without_impressions": ("open", "click")}


@dataclasses.dataclass(frozen=True)
class Case:
    """Paths and the credits that a person worked out on paper."""

    name: str
    paths: tuple[Path, ...]
    credits: dict[str, Credits]


HAND_WORKED = (
    # P(conversion) 2/3; without a 1/3, without b 0: removal effects 1/2 and 1, two conversions.
    Case(
        "a line",
        (Path(("a", "b"), 1), Path(("a",), 0, 1), Path(("b",), 1)),
        {
            "first_touch": {"a": 1, "b": 1},
            "last_touch": {"a": 0, "b": 2},
            "linear": {"a": 1 / 2, "b": 3 / 2},
            "shapley": {"a": 1 / 2, "b": 3 / 2},
            "markov_1": {"a": 2 / 3, "b": 4 / 3},
            "markov_2": {"a": 2 / 3, "b": 4 / 3},
        },
    ),
    # Order 1: a = 1/2 + b/2, b = a/2, so a 2/3, b 1/3, P 1/2; without a 0, without b 1/4: effects 1 and 1/2.
    # Order 2 knows that a after b converts and that b at the start does not: both are needed, effects 1 and 1.
    Case(
        "a loop",
        (Path(("a", "b", "a"), 1), Path(("b",), 0, 1)),
        {
            "first_touch": {"a": 1, "b": 0},
            "last_touch": {"a": 1, "b": 0},
            "linear": {"a": 2 / 3, "b": 1 / 3},
            "shapley": {"a": 1 / 2, "b": 1 / 2},
            "markov_1": {"a": 2 / 3, "b": 1 / 3},
            "markov_2": {"a": 1 / 2, "b": 1 / 2},
            "markov_3": {"a": 1 / 2, "b": 1 / 2},
        },
    ),
    # Order 3 tells a-b-c (converts) from c-b-c (does not), order 2 does not: state (b, c) converts 2 of 3.
    # Order 2: P = 1/2 * 2/3 + 1/2 * 2/3 = 2/3 of 6 walks. Without a: (c)(c,b)(b,c) 1/3 lost 1/3 -> effect 1/2;
    # without b: 0 -> 1; without c: 0 -> 1. Credits 4 * (1/5, 2/5, 2/5).
    # Order 3: start 1/2 a: (a)(a,b)(a,b,c) converts always; c: (c)(c,b)(c,b,c) converts 1 of 3. P = 2/3.
    # Without a: 1/6, effect 3/4; without b and without c 0: effect 1. Credits 4 * (3, 4, 4) / 11.
    Case(
        "a memory",
        (Path(("a", "b", "c"), 3), Path(("c", "b", "c"), 1, 2)),
        {
            "markov_2": {"a": 4 / 5, "b": 8 / 5, "c": 8 / 5},
            "markov_3": {"a": 12 / 11, "b": 16 / 11, "c": 16 / 11},
            "shapley": {"a": 1, "b": 3 / 2, "c": 3 / 2},
            "linear": {"a": 1, "b": 4 / 3, "c": 5 / 3},
        },
    ),
)


def random_paths(seed: int) -> list[Path]:
    """Forty walks over five channels."""
    rng = np.random.default_rng(seed)
    return [
        Path(
            tuple(rng.choice(list("abcde"), rng.integers(1, 7)).tolist()),
            float(rng.integers(0, 5)), float(rng.integers(0, 9)),
        )
        for _ in range(40)
    ]  # fmt: skip


def walked(paths: Sequence[Path], order: int) -> Credits:
    """Removal effects by walking the chain step by step, the naive way, until nobody is left on it."""
    counts: dict[tuple[str, ...] | None, dict[Any, float]] = {}
    for path in paths:
        here: tuple[str, ...] | None = None
        weight = path.conversions + path.losses
        for place in range(len(path.channels)):
            state = path.channels[max(0, place + 1 - order) : place + 1]
            counts.setdefault(here, {}).setdefault(state, 0.0)
            counts[here][state] += weight
            here = state
        for end, number in (("won", path.conversions), ("lost", path.losses)):
            counts.setdefault(here, {}).setdefault(end, 0.0)
            counts[here][end] += number
    whole = _walk(counts, None)
    return {
        channel: 1 - _walk(counts, channel) / whole
        for channel in sorted({channel for path in paths for channel in path.channels})
    }


def _walk(counts: dict[Any, dict[Any, float]], removed: str | None) -> float:
    here: dict[Any, float] = {None: 1.0}
    won = 0.0
    while sum(here.values()) > 1e-14:
        after: dict[Any, float] = {}
        for state, mass in here.items():
            total = sum(counts[state].values())
            for target, number in counts[state].items():
                part = mass * number / total if total else 0.0
                if target == "won":
                    won += part
                elif target != "lost" and target[-1] != removed:
                    after[target] = after.get(target, 0.0) + part
        here = after
    return won


def run(quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Check the arithmetic and measure the distances.

    Args:
        quick: One small shop instead of three.
        say: Receives one line per shop.

    Returns:
        Distances are total variation over the eight contact channels, means over the seeds.
    """
    errors = [
        abs(attribution.attribute(case.paths)[method][channel] - wanted)
        for case in HAND_WORKED
        for method, credit in case.credits.items()
        for channel, wanted in credit.items()
    ]
    for seed in range(5):
        paths = random_paths(seed)
        names = sorted({channel for path in paths for channel in path.channels})
        exact = attribution.shapley_of(names, attribution.conversions_within(paths))
        ours = attribution.shapley(paths)
        errors += [abs(ours[name] - exact[name]) for name in names]
        for order in attribution.ORDERS:
            naive, closed = walked(paths, order), attribution.removal_effects(paths, order)
            errors += [abs(naive[name] - closed[name]) for name in names]
    measured: dict[str, Any] = {"max_error_hand_worked": max(errors)}
    seeds, shoppers, days = (SEEDS[:1], 600, 60) if quick else (SEEDS, 3000, 180)
    distances: dict[str, list[float]] = {}
    sums: list[float] = []
    for seed in seeds:
        events, causal = _shop(seed, shoppers, days)
        for suffix, touches in READINGS.items():
            paths = attribution.paths_of(events, "person_id", touches)
            conversions = sum(path.conversions for path in paths)
            for method, credit in attribution.attribute(paths).items():
                distances.setdefault(f"distance_{method}{suffix}", []).append(
                    attribution.distance(credit, causal)
                )
                sums.append(abs(sum(credit.values()) - conversions))
            if not suffix:
                known = sum(attribution.last_touch(paths).get(name, 0.0) for name in causal)
                distances.setdefault("last_touch_share_of_conversions", []).append(known / conversions)
        lines = sum(events["action"].to_numpy() == "purchase")
        distances.setdefault("caused_share_of_purchases", []).append(sum(causal.values()) / lines)
        say(f"seed {seed}: {events.num_rows:,} events, {conversions:,.0f} conversions")
    measured["max_error_of_sum"] = max(sums)
    measured |= {name: float(np.mean(values)) for name, values in sorted(distances.items())}
    setup = {"data": "atelier (simulated)", "seeds": list(seeds), "shoppers": shoppers, "days": days}
    return {"measured": measured, "setup": setup}


def _shop(seed: int, shoppers: int, days: int) -> tuple[Any, Credits]:
    from training.rehearsal import AtelierConfig, simulate

    shop = simulate(AtelierConfig(seed=seed, shoppers=shoppers, days=days))
    causal = {row["channel"]: row["purchases"] - row["purchases_without"] for row in shop.effects.to_pylist()}
    return stitched(shop.events), causal
