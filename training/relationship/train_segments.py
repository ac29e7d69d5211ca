"""Training of segments: recency-frequency-money, clusters of behaviour, clusters of taste.

Behaviour clusters are made on `BEHAVIOUR` (amounts as logarithms). Taste clusters are made on an embedding: the leading
singular vectors of who looked at, put into the basket or bought which type of product (log counts, weighted by how
rare a type is), and described by the types themselves. Both have the number of clusters that two resamples agree on
best (`segments.py`); clusters that resamples do not agree on are no segments and are not published.

Belongs here: config, protocol, what is logged. Does not belong here: clustering and names (`segments.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import mlflow
import msgspec
import numpy as np
import numpy.typing as npt

from contracts.settings import read_settings
from feature_repo.snapshots import attach, connect
from training import tracking
from training.config import ConfigError, Positive, Share, TrainingConfig, stage
from training.evaluation.statistics import Interval
from training.relationship import behaviour as people
from training.relationship import report, segments
from training.relationship.behaviour import FEATURES, Behaviour
from training.relationship.bundle import EXPECTATIONS, Record, days_of, exact, finish, flat, log_results

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Progress = Callable[[str], None]

BEHAVIOUR: dict[str, str] = {
    "days_since_visit": "days since the last visit", "visits_half": "recent visits", "purchases": "purchases",
    "spend_91d": "recent spend", "on_web": "web", "on_app": "app", "on_store": "store",
    "did_purchase": "buying visits", "did_return": "returns", "opened_email": "opened e-mails", "bad_28d": "bad moments",
}  # fmt: skip
"""Features that behaviour clusters are made on, with their names for people."""
AMOUNTS = ("days_since_visit", "visits_half", "purchases", "spend_91d", "bad_28d")
"""Of these, those that are taken as logarithms."""
DIMENSIONS = 8
INTERESTED = ("view", "add_to_cart", "wishlist", "purchase")
NO_SEGMENT = -1


class SegmentsConfig(TrainingConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Config of ``python -m training.relationship segments``.

    Attributes:
        numbers: Numbers of clusters to choose from.
        pairs: Pairs of resamples that the choice rests on.
        sample: At most so many customers are learned from; all get a segment.
        least_stability: Mean adjusted Rand index between resamples below which clusters are not published.
        types: At most so many types of product make up the taste, the most frequent.
    """

    numbers: tuple[int, ...] = (3, 4, 5, 6, 7)
    pairs: Positive = 8
    sample: Positive = 5_000
    least_stability: Share = 0.7
    types: Positive = 60


@dataclasses.dataclass(frozen=True, eq=False)
class Cut:
    """One way to cut the customers.

    Attributes:
        label: int64[P], segment of each person, `NO_SEGMENT` for none.
        names: Of the segments.
        stability: Of the chosen number.
        by_number: Stability by number of segments.
        published: Whether resamples agree enough.
    """

    label: Ints
    names: tuple[str, ...]
    stability: float
    by_number: dict[int, float]
    published: bool


def train(config: SegmentsConfig, progress: Progress = lambda line: None) -> Record:
    """Cut the customers in three ways.

    Raises:
        ConfigError: There are too few customers.
        SnapshotError: The lake lacks events, identities, sessions or moments.
    """
    staged = stage(config.out)
    settings = read_settings({"CONTINUUM_HOME": config.home, "RETAILER": config.retailer})
    until = days_of(config.evaluate_until)
    with tracking.start(config) as run:
        versions, everybody = people.read_behaviour(settings, config.threads)
        X = people.features(everybody, until)
        bought = np.flatnonzero(X[:, FEATURES.index("purchases")] > 0)
        active = np.flatnonzero(X[:, FEATURES.index("visits")] > 0)
        try:
            scores = segments.rfm(
                X[bought, FEATURES.index("days_since_purchase")], X[bought, FEATURES.index("purchases")],
                _spend(everybody, until)[bought],
            )  # fmt: skip
            behaviour = cut_by(_behaviour(X[active]), tuple(BEHAVIOUR.values()), None, active, len(X), config)
            embedded, shares, types, has = taste(settings, everybody, until, config)
            liked = cut_by(embedded, (), (shares, types), has, len(X), config)
        except ValueError as error:
            raise ConfigError(f"{config.retailer}: {error}") from error
        rfm = np.full(len(X), "", "<U32")
        rfm[bought] = scores.segment
        cuts = {"behaviour": behaviour, "taste": liked}
        numbers: dict[str, Interval] = {}
        for name, found in cuts.items():
            numbers[f"{name}_segments"] = exact(float(len(found.names)))
            numbers[f"{name}_stability"] = exact(found.stability)
            numbers |= {f"{name}_stability_{k}": exact(value) for k, value in found.by_number.items()}
            progress(f"{name}: {len(found.names)} segments, stability {found.stability:.3f}")
        columns: dict[str, npt.NDArray[Any]] = {"rfm": rfm[everybody.person_of]}
        for name, found in cuts.items():
            kept = found.label if found.published else np.full(len(X), NO_SEGMENT)
            columns[name] = kept[everybody.person_of].astype(np.int16)
            columns[f"{name}_names"] = np.array(found.names if found.published else (), np.str_)
        np.savez_compressed(
            staged / EXPECTATIONS,
            customers=everybody.customers,
            as_of_us=int(until * 86_400_000_000),
            **columns,
        )
        sizes = {
            name: {title: int((found.label == place).sum()) for place, title in enumerate(found.names)}
            for name, found in cuts.items()
        }
        mlflow.log_dict(
            {"rfm": {n: int((rfm == n).sum()) for n in segments.RFM_NAMES}, **sizes}, "segments.json"
        )
        for name, found in cuts.items():
            mlflow.log_figure(stability_figure(found.by_number, name), f"plots/{name}-stability.png")
        text = report.card(
            f"Segments of {config.retailer}",
            "Groups of customers who are alike, by how they buy, how they behave and what they like.",
            {
                "By recency, frequency, money": ", ".join(f"{n} {int((rfm == n).sum())}" for n in segments.RFM_NAMES),
                **{f"By {name}": _listed(found, sizes[name]) for name, found in cuts.items()},
                "Stability": "mean adjusted Rand index of the labels that two resampled fits give to all "
                f"({config.pairs} pairs); below {config.least_stability:g} nothing is published",
                "Customers": f"{len(active)} who visited, {len(bought)} who bought before {config.evaluate_until:%Y-%m-%d}",
                "Shoppers": "simulated" if config.simulated else "real", "Code": tracking.code_version(),
            },
            numbers,
            [
                "A segment is a way to speak of customers; decisions about one of them use that customer's own numbers.",
                "Names state what sets a segment apart from the mean, not what all in it share.",
            ],
        )  # fmt: skip
        log_results(staged, {}, numbers, text)
        record = Record(
            family="segments", run_id=run.info.run_id, model_uri={}, metrics=flat(numbers),
            config=msgspec.to_builtins(config), files={"card": "model_card.md", "expectations": EXPECTATIONS},
            details={"names": {name: list(found.names) for name, found in cuts.items()}, "sizes": sizes,
                     "published": {name: found.published for name, found in cuts.items()}},
            lake=versions,
        )  # fmt: skip
        return finish(config, staged, record)


def cut_by(
    rows: Floats,
    names: tuple[str, ...],
    describe: tuple[Floats, tuple[str, ...]] | None,
    who: Ints,
    size: int,
    config: SegmentsConfig,
) -> Cut:
    """Cluster some people and say how stable it is.

    Args:
        rows: float64[N, F], of the people ``who``.
        names: Of its columns, for people; anything where ``describe`` is given.
        describe: float64[N, D] and names to describe clusters with instead.
        who: int64[N], places among all people.
        size: Number of all people.
        config: Numbers, resamples, threshold.

    Raises:
        ValueError: Fewer distinct people than clusters.
    """
    drawn = np.random.default_rng(config.seed).permutation(len(rows))[: config.sample]
    words = names or tuple(f"direction {place + 1}" for place in range(rows.shape[1]))
    told = None if describe is None else (describe[0][drawn], describe[1])
    fitted = segments.fit(
        rows[drawn], words, numbers=config.numbers, pairs=config.pairs, describe=told, seed=config.seed
    )
    label = np.full(size, NO_SEGMENT, np.int64)
    label[who] = fitted.predict(rows)
    stable = float(fitted.stability[len(fitted.names)])
    by_number = {int(number): float(value) for number, value in fitted.stability.items()}
    return Cut(label, fitted.names, stable, by_number, stable >= config.least_stability)


def taste(
    settings: Any, everybody: Behaviour, until: float, config: SegmentsConfig
) -> tuple[Floats, Floats, tuple[str, ...], Ints]:
    """Where each person's interest lies.

    Returns:
        float64[N, D] embedding, float64[N, T] share of interest by type, the types, and int64[N] places of the people.

    Raises:
        ValueError: Nobody showed interest in anything.
    """
    con = connect(threads=config.threads)
    for name in ("events", "identity_events", "products"):
        attach(con, name, settings.lake / name)
    acts = ", ".join(f"'{name}'" for name in INTERESTED)
    rows = con.execute(
        f"""select p.person_id as person, t.type, count(*)::double as number
        from events e join identity_events p using (source, event_id) join products t using (product_id)
        where e.action in ({acts}) and t.type is not null and p.person_id is not null
            and epoch_us(e.occurred_at) < {int(until * 86_400_000_000)}
        group by all order by all"""
    ).fetchnumpy()
    person = np.asarray(rows["person"]).astype(np.str_)
    types, of_type = np.unique(np.asarray(rows["type"]).astype(np.str_), return_inverse=True)
    place = np.minimum(np.searchsorted(everybody.people, person), len(everybody.people) - 1)
    keep = everybody.people[place] == person
    if not keep.any():
        raise ValueError(
            "nobody looked at or bought a product with a type; expected some interest to cluster"
        )
    who, row = np.unique(place[keep], return_inverse=True)
    counts = np.zeros((len(who), len(types)))
    counts[row, of_type[keep]] = np.asarray(rows["number"])[keep]
    often = np.sort(np.argsort(-counts.sum(axis=0), kind="stable")[: config.types])
    counts = counts[:, often]
    some = counts.sum(axis=1) > 0
    who, counts = who[some], counts[some]
    rare = np.log(len(counts) / np.maximum((counts > 0).sum(axis=0), 1))
    weighed = np.log1p(counts) * np.maximum(rare, 0.05)
    weighed /= np.maximum(np.linalg.norm(weighed, axis=1, keepdims=True), 1e-9)
    centred = weighed - weighed.mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    embedded = centred @ directions[: min(DIMENSIONS, len(directions))].T
    return embedded, counts / counts.sum(axis=1, keepdims=True), tuple(types[often].tolist()), who


def stability_figure(by_number: dict[int, float], name: str) -> Any:
    """Stability by number of segments."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0, 3.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(list(by_number), list(by_number.values()), marker="o", color="#0b6e4f")
    axes.set_xlabel("segments")
    axes.set_ylabel("agreement of resamples")
    axes.set_title(f"How stable segments by {name} are", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _behaviour(X: Floats) -> Floats:
    columns = []
    for name in BEHAVIOUR:
        values = np.nan_to_num(X[:, FEATURES.index(name)])
        columns.append(np.log1p(values) if name in AMOUNTS else values)
    return np.column_stack(columns)


def _spend(everybody: Behaviour, until: float) -> Floats:
    visits = everybody.visits.before(until)
    return np.bincount(visits.person, visits.money, minlength=len(everybody.people))


def _listed(found: Cut, sizes: dict[str, int]) -> str:
    listed = "; ".join(f"{name} ({sizes[name]})" for name in found.names)
    return listed if found.published else f"not published, resamples do not agree: {listed}"
