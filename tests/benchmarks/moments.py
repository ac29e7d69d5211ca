"""Micro-moments and open needs on the atelier (simulated), judged by its truth; live against lake.

Persons come from a plain stitch of the identifiers in the events. The definitions' thresholds are those of
`contracts.moments`, set before any of the judged seeds was drawn; the need model is fitted on two other shops.
The baseline of need prediction knows the last event only (its action, channel and kind of page), as the
frequencies of needs that followed it in the same two shops.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from contracts.events import MOMENTS, Event
from contracts.moments import MomentRules, moments
from contracts.needs import NEEDS, NeedModel, need_features, needs
from orchestration.lake.moments import moments_table
from orchestration.lake.needs import fit_needs, labelled
from orchestration.lake.sessions import sessions_table, stream_of
from serving.profiles.moments import live_moments, live_stream
from tests.benchmarks.stitching import stitched

FITTED_ON = (11, 12)
JUDGED_ON = (201, 202, 203)
PEOPLE = 300
"""Persons whose live answers are compared with the lake's."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def run(quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Fit on some shops, judge on others.

    Args:
        quick: Small shops, one judged instead of three.
        say: Receives one line per shop.

    Returns:
        F1 over all kinds of observable moments, a moment being (event, kind); AUC is one-vs-rest, averaged
        over the four needs, at one random act of each session with a known need, before anything was bought.
    """
    shoppers, days, judged_on = (500, 60, JUDGED_ON[:1]) if quick else (2000, 120, JUDGED_ON)
    rules = MomentRules()
    train = [Shop(seed, shoppers, days, rules) for seed in FITTED_ON]
    model = fit_needs(
        np.concatenate([shop.features for shop in train]), np.concatenate([shop.need for shop in train]),
        np.concatenate([shop.weight for shop in train]), f"the atelier (simulated), seeds {FITTED_ON}",
    )  # fmt: skip
    counts = np.zeros((len(MOMENTS), 3))
    scores: dict[str, list[Any]] = {"need": [], "model": [], "last": [], "hit": [], "told": []}
    equal, compared = True, 0
    for seed in judged_on:
        shop = Shop(seed, shoppers, days, rules)
        counts += _counts(shop)
        rows = shop.one_act_each(np.random.default_rng(seed))
        scores["need"].append(shop.need[rows])
        scores["model"].append(needs(shop.features[rows], model, np))
        scores["last"].append(_by_last_event(train, shop, rows))
        hit, told = shop.want_confidence()
        scores["hit"].append(hit)
        scores["told"].append(told)
        same, events = _live(shop, model, rules)
        equal, compared = equal and same, compared + events
        say(
            f"seed {seed}: {shop.events.num_rows:,} events, {shop.table.num_rows:,} moments, live = lake: {same}"
        )
    need = np.concatenate(scores["need"])
    auc, baseline = (_auc(need, np.concatenate(scores[name])) for name in ("model", "last"))
    found = counts.sum(0)
    hit, told = np.concatenate(scores["hit"]), np.concatenate(scores["told"])
    measured: dict[str, Any] = {
        "f1": _f1(found), "precision": found[0] / found[1], "recall": found[0] / found[2],
        "need_auc": auc, "need_auc_last_event": baseline, "need_auc_gain": auc - baseline,
        "need_calibration_error": _calibration(need, np.concatenate(scores["model"])),
        "want_confidence_error": float(abs(hit.mean() - told.mean())),
        "live_equals_lake": equal, "live_events_compared": compared, "need_moments_judged": len(need),
        **{f"f1_{kind}": _f1(row) for kind, row in zip(MOMENTS, counts, strict=True)},
    }  # fmt: skip
    setup = {
        "data": "atelier (simulated)", "fitted_on_seeds": list(FITTED_ON), "judged_on_seeds": list(judged_on),
        "shoppers": shoppers, "days": days,
    }  # fmt: skip
    return {"measured": measured, "setup": setup}


class Shop:
    """One simulated shop as its owner sees it, and the truth beside it."""

    def __init__(self, seed: int, shoppers: int, days: int, rules: MomentRules) -> None:
        from training.rehearsal import AtelierConfig, simulate

        shop = simulate(AtelierConfig(seed=seed, shoppers=shoppers, days=days))
        self.events = stitched(shop.events)
        self.truth = shop.moments
        self.lake = stream_of(self.events, rules, "person_id")
        self.found = moments(self.lake.stream, rules, np)
        self.table = moments_table(self.lake, self.found)
        self.sessions = sessions_table(self.lake, self.found.sessions)
        wanted = dict(zip(shop.needs["session_id"].to_pylist(), shop.needs["need"].to_pylist(), strict=True))
        self.rows, self.features, self.need, self.visit = labelled(self.lake, rules, wanted)
        # Each visit counts alike, however long; its need is known by the source's own visit.
        self.weight = 1 / np.bincount(self.visit)[self.visit]
        names = self.lake.rows["session"].to_pylist()
        self.need_of_row = np.array([NEEDS.index(wanted[n]) if n in wanted else -1 for n in names], np.int64)

    def one_act_each(self, rng: np.random.Generator) -> Ints:
        """Places in `features` of one random act of every visit."""
        order = rng.permutation(len(self.visit))
        _, first = np.unique(self.visit[order], return_index=True)
        return np.asarray(order[first], np.int64)

    def last_event(self, rows: Ints) -> Ints:
        """What the last event alone tells, as one number."""
        stream = self.lake.stream
        at = self.rows[rows]
        return np.asarray((stream.action[at] * 32 + stream.channel[at]) * 8 + stream.place[at], np.int64)

    def want_confidence(self) -> tuple[Floats, Floats]:
        """Of each found want in a visit of known need: whether it is that need, and the told confidence."""
        kinds = np.array([NEEDS.index(name) if name in NEEDS else -1 for name in MOMENTS])
        want, need = kinds[self.found.kind], self.need_of_row[self.found.row]
        known = (want >= 0) & (need >= 0)
        return (want == need)[known].astype(float), self.found.confidence[known]


def _counts(shop: Shop) -> Floats:
    """Hits, found and true observable moments by kind ``(K, 3)``."""
    truth = set(
        zip(
            shop.truth.filter(shop.truth["observable"])["event_id"].to_pylist(),
            shop.truth.filter(shop.truth["observable"])["kind"].to_pylist(),
            strict=True,
        )
    )
    found = set(zip(shop.table["event_id"].to_pylist(), shop.table["kind"].to_pylist(), strict=True))
    return np.array(
        [
            [sum(kind == name for _, kind in group) for group in (truth & found, found, truth)]
            for name in MOMENTS
        ],
        float,
    )


def _f1(counts: Floats) -> float:
    return float(2 * counts[0] / max(counts[1] + counts[2], 1))


def _by_last_event(train: list[Shop], shop: Shop, rows: Ints) -> Floats:
    size = 64 * 32 * 8
    table = np.zeros((size, len(NEEDS)))
    for known in train:
        every = np.arange(len(known.need))
        np.add.at(table, (known.last_event(every), known.need), known.weight)
    table += table.sum(0) / table.sum()
    return np.asarray((table / table.sum(1, keepdims=True))[shop.last_event(rows)])


def _auc(need: Ints, chance: Floats) -> float:
    from sklearn.metrics import roc_auc_score

    return float(np.mean([roc_auc_score(need == code, chance[:, code]) for code in range(len(NEEDS))]))


def _calibration(need: Ints, chance: Floats) -> float:
    """Expected calibration error of the likeliest need's probability, ten bins."""
    told, right = chance.max(1), chance.argmax(1) == need
    bins = np.minimum((told * 10).astype(int), 9)
    gaps = [
        abs(told[bins == b].mean() - right[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)
    ]
    return float(sum(gaps))


def _live(shop: Shop, model: NeedModel, rules: MomentRules) -> tuple[bool, int]:
    """Whether the live side gives identical sessions, moments and needs for some persons, arrivals shuffled."""
    rng = np.random.default_rng(1)
    people = [name for name in shop.lake.people.to_pylist() if name.startswith(("customer:", "device:"))]
    chosen = rng.choice(people, min(PEOPLE, len(people)), replace=False).tolist()
    rows, features, _ = need_features(shop.lake.stream, rules, np)
    chance = needs(features, model, np)
    mask = pa.compute.is_in(shop.events["person_id"], value_set=pa.array(chosen))
    mine: dict[str, list[Event]] = {name: [] for name in chosen}
    for row in shop.events.filter(mask).to_pylist():
        mine[row.pop("person_id")].append(_event(row))
    codes = {name: code for code, name in enumerate(shop.lake.people.to_pylist())}
    lake_s, lake_m = _by_person(shop.sessions), _by_person(shop.table)
    for name, events in mine.items():
        arrived = [events[place] for place in rng.permutation(len(events))]
        sessions, found = live_moments(name, arrived, rules)
        live = live_stream(name, arrived, rules)
        _, live_features, _ = need_features(live.stream, rules, np)
        if not (
            [(s.session_id, s.started_at, s.ended_at, s.acts) for s in sessions]
            == [(r["session_id"], r["started_at"], r["ended_at"], r["acts"]) for r in lake_s.get(name, [])]
            and [(m.kind, m.session_id, m.confidence, m.event_id, list(m.evidence)) for m in found]
            == [
                (r["kind"], r["session_id"], r["confidence"], r["event_id"], r["evidence"])
                for r in lake_m.get(name, [])
            ]
            and np.array_equal(
                needs(live_features, model, np), chance[shop.lake.stream.person[rows] == codes[name]]
            )
        ):
            return False, 0
    return True, sum(len(events) for events in mine.values())


def _by_person(table: pa.Table) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        groups.setdefault(row["person_id"], []).append(row)
    return groups


def _event(row: dict[str, Any]) -> Event:
    for name in ("identifiers", "detail", "consent"):
        row[name] = msgspec.json.decode(row[name] or b"null")
    return msgspec.convert({name: value for name, value in row.items() if value is not None}, Event)
