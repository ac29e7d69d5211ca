"""The shop at a glance, put together from the lake for the pages (`contracts.overview`).

Belongs here: which numbers are shown, over which window, and writing them as one file. Does not belong here:
how they are defined (`kpis.py`, `journeys.py`, `attribution.py`, `moments.py`, `training/relationship`).
"""

from __future__ import annotations

import datetime as dt
import os
import pathlib
import uuid
from typing import TYPE_CHECKING

import duckdb
import msgspec
import numpy as np
import pyarrow as pa

from contracts.moments import BAD
from contracts.overview import (
    OVERVIEW_FILE,
    Contribution,
    Credit,
    Follow,
    Journeys,
    Kpi,
    MomentDay,
    MomentKind,
    Overview,
    Segment,
    Transition,
    Trial,
)
from contracts.retailer import Retailer
from contracts.settings import Settings
from feature_repo.snapshots import SnapshotError, attach, connect
from orchestration.lake import attribution, journeys, kpis
from orchestration.lake.causes import effects_of_trials
from orchestration.lake.identity_tables import LINKS
from orchestration.lake.trials import TRIALS

if TYPE_CHECKING:
    from collections.abc import Sequence

KPI_DAYS = 90
"""Numbers of the shop are those of the last so many days."""

SHOWN: tuple[str, ...] = (
    "conversion", "retention", "value", "order_value", "moment_quality", "recovery", "time_to_recovery", "reach",
)  # fmt: skip
FOLLOWERS = 2
"""Of each bad moment, so many of the commonest next ones are shown."""

METHODS = {"last_touch": "last touch", "markov_1": "Markov", "shapley": "Shapley"}
"""Attribution methods that the page shows, of `attribution.METHODS`, with their names for people."""

PATH_TOUCHES = tuple(dict.fromkeys((*attribution.TOUCHES, *journeys.JOURNEY_TOUCHES)))
CAUSAL = "causal effect (simulated)"


def publish_overview(settings: Settings, retailer: Retailer, memory_limit: str = "2GB") -> Overview:
    """Put the overview together and replace the published one.

    Args:
        settings: The installation.
        retailer: The shop.
        memory_limit: What DuckDB may hold.

    Raises:
        SnapshotError: A table of the lake is missing.
    """
    made = build_overview(settings, retailer, memory_limit)
    settings.overview.mkdir(parents=True, exist_ok=True)
    staged = settings.overview / f".{uuid.uuid4().hex}"
    staged.write_bytes(msgspec.json.encode(made))
    os.replace(staged, settings.overview / OVERVIEW_FILE)
    return made


def build_overview(settings: Settings, retailer: Retailer, memory_limit: str = "2GB") -> Overview:
    """The overview of everything that the lake holds."""
    con = connect(memory_limit)
    lake = settings.lake
    tables = kpis.attach_tables(con, lake)
    row = con.execute(
        "select count(*), count(distinct person_id), min(day), max(day), max(occurred_at) from known"
    ).fetchall()[0]
    if not row[0]:
        today = dt.datetime.now(dt.UTC)
        return Overview(
            retailer=retailer.name, simulated=retailer.simulated, made_at=today, first_day=today.date(),
            last_day=today.date(), events=0, people=0,
        )  # fmt: skip
    events, people, first_day, last_day, latest = row
    steps = con.sql(
        "select person_id, occurred_at, source, event_id, channel, action from known"
    ).to_arrow_table()
    moments = _moments(con, tables, first_day, latest.astimezone(dt.UTC))
    return Overview(
        retailer=retailer.name,
        simulated=retailer.simulated,
        made_at=dt.datetime.now(dt.UTC),
        first_day=first_day,
        last_day=last_day,
        events=events,
        people=people,
        kpis=_kpis(tables, retailer, latest.astimezone(dt.UTC)),
        contributions=_contributions(tables, latest.astimezone(dt.UTC)),
        journeys=_journeys(con, steps),
        moment_days=_moment_days(con),
        moments=moments,
        credits=_credits(steps, retailer),
        segments=(*_segments(con, latest), *_learned_segments(settings)),
        trials=_trials(con, lake),
        follows=_follows(con, moments),
    )


def _kpis(tables: kpis.Tables, retailer: Retailer, latest: dt.datetime) -> tuple[Kpi, ...]:
    end = latest + dt.timedelta(microseconds=1)
    window = kpis.Window(end - dt.timedelta(days=KPI_DAYS), end)
    shown = []
    for name in SHOWN:
        value = kpis.measure(name, tables, window).to_pyarrow()["value"][0].as_py()
        if value is None or not np.isfinite(value):
            continue  # A share over nobody, such as the recovery of a shop without bad moments.
        unit = retailer.currency if kpis.KPIS[name].unit == "money" else kpis.KPIS[name].unit
        about = f"{kpis.KPIS[name].meaning} Last {KPI_DAYS} days."
        shown.append(Kpi(name=name, value=float(value), unit=unit, about=about))
    return tuple(shown)


def _journeys(con: duckdb.DuckDBPyConnection, steps: pa.Table) -> Journeys | None:
    shape = journeys.path_shape(attribution.paths_of(steps, "person_id", touches=PATH_TOUCHES, quiet_days=30))
    graph = journeys.channel_graph(steps, "person_id")
    if not shape.purchases and not graph.num_rows:
        return None
    hours = con.execute(
        """select median(hours) from (select date_diff('second', lag(started_at) over
        (partition by person_id order by started_at), started_at) / 3600.0 as hours from sessions)"""
    ).fetchall()[0][0]
    return Journeys(
        transitions=tuple(
            Transition(source=move["from_channel"], target=move["to_channel"], count=move["moves"])
            for move in graph.to_pylist()
        ),
        path_entropy=shape.entropy_bits,
        paths=shape.paths,
        commonest_path=shape.commonest,
        commonest_share=shape.commonest_share,
        hours_between=None if hours is None else float(hours),
    )


def _moment_days(con: duckdb.DuckDBPyConnection) -> tuple[MomentDay, ...]:
    rows = con.execute(
        "select (occurred_at at time zone 'UTC')::date as day, kind, count(*) from moments group by all order by all"
    ).fetchall()
    return tuple(MomentDay(day=day, moment=kind, count=count) for day, kind, count in rows)


def _contributions(tables: kpis.Tables, latest: dt.datetime) -> tuple[Contribution, ...]:
    """Shares of revenue, the largest first; departments that nobody named are left out."""
    end = latest + dt.timedelta(microseconds=1)
    window = kpis.Window(end - dt.timedelta(days=KPI_DAYS), end)
    found = []
    for by in ("channel", "department"):
        share, revenue = (
            {
                row[by]: row["value"]
                for row in kpis.measure(name, tables, window, [by]).to_pyarrow().to_pylist()
            }
            for name in ("contribution", "revenue")
        )
        found += [
            Contribution(by=by, name=name, share=float(value), revenue=float(revenue[name] or 0.0))
            for name, value in sorted(share.items(), key=lambda pair: (-(pair[1] or 0.0), str(pair[0])))
            if name and value is not None
        ]
    return tuple(found)


def _moments(
    con: duckdb.DuckDBPyConnection, tables: kpis.Tables, first_day: dt.date, latest: dt.datetime
) -> tuple[MomentKind, ...]:
    """Bad kinds first, those that were made good least often of all; then the wants."""
    rows = con.execute(
        "select kind, count(*), count(distinct person_id) from moments group by kind"
    ).fetchall()
    start = dt.datetime.combine(first_day, dt.time(), dt.UTC)
    window = kpis.Window(start, latest + dt.timedelta(microseconds=1))
    recovered, hours = (
        {
            row["kind"]: row["value"]
            for row in kpis.measure(name, tables, window, ["kind"]).to_pyarrow().to_pylist()
        }
        for name in ("recovery", "time_to_recovery")
    )
    kinds = [
        MomentKind(
            moment=kind,
            bad=kind in BAD,
            count=count,
            people=people,
            recovered=recovered.get(kind) if kind in BAD else None,
            hours_to_recovery=hours.get(kind) if kind in BAD else None,
        )
        for kind, count, people in rows
    ]
    return tuple(
        sorted(
            kinds, key=lambda kind: (not kind.bad, -kind.count * (1 - (kind.recovered or 0.0)), kind.moment)
        )
    )


def _credits(steps: pa.Table, retailer: Retailer) -> tuple[Credit, ...]:
    paths = attribution.paths_of(steps, "person_id")
    if not any(path.conversions for path in paths):
        return ()
    found = attribution.attribute(paths)
    shares = {title: _shares(found[method]) for method, title in METHODS.items()}
    known = _causal(retailer)
    if known:
        shares[CAUSAL] = _shares(known)
    return tuple(
        Credit(method=method, channel=channel, share=share)
        for method, channels in shares.items()
        for channel, share in channels.items()
    )


def _shares(credit: dict[str, float]) -> dict[str, float]:
    total = sum(credit.values())
    return {channel: value / total for channel, value in credit.items()} if total > 0 else {}


def _causal(retailer: Retailer) -> dict[str, float]:
    """Purchases that each channel's contacts caused, where a simulator knows; negative effects count as none."""
    if retailer.source != "atelier":
        return {}
    from orchestration.sources.atelier import causal_purchases

    return {channel: max(effect, 0.0) for channel, effect in causal_purchases().items()}


def _segments(con: duckdb.DuckDBPyConnection, latest: dt.datetime) -> tuple[Segment, ...]:
    from training.relationship.segments import RFM_NAMES, rfm

    rows = con.execute(
        """select date_diff('second', max(occurred_at), $latest) / 86400.0 as since,
            count(distinct occurred_at) as orders, sum(coalesce(quantity, 1) * coalesce(unit_price, 0)) as spend
        from known where action = 'purchase' group by person_id order by person_id""",
        {"latest": latest},
    ).fetchnumpy()
    if not len(rows["since"]):
        return ()
    spend = np.asarray(rows["spend"], np.float64)
    found = rfm(np.asarray(rows["since"], np.float64), np.asarray(rows["orders"], np.float64), spend)
    segments: Sequence[Segment] = [
        Segment(
            name=name.capitalize(),
            about=about,
            customers=int((found.segment == name).sum()),
            spend=float(spend[found.segment == name].mean()),
        )
        for name, about in RFM_NAMES.items()
        if (found.segment == name).any()
    ]
    return tuple(sorted(segments, key=lambda segment: -(segment.spend or 0.0)))


def _learned_segments(settings: Settings) -> tuple[Segment, ...]:
    """Groups by behaviour and by taste, as the job ``relationship`` named them; none before it has run."""
    from orchestration.lake.predictions import OUTLOOK_FILE

    path = settings.overview / OUTLOOK_FILE
    if not path.is_file():
        return ()
    with np.load(path, allow_pickle=False) as arrays:
        found = []
        for cut in ("behaviour", "taste"):
            place = arrays[f"p_{cut}"]
            for number, name in enumerate(arrays[f"{cut}_names"].tolist()):
                size = int((place == number).sum())
                if size:
                    found.append(Segment(name=name[:1].upper() + name[1:], about="", customers=size, cut=cut))
    return tuple(sorted(found, key=lambda segment: (segment.cut, -segment.customers)))


def _trials(con: duckdb.DuckDBPyConnection, lake: pathlib.Path) -> tuple[Trial, ...]:
    """What contacts cause, where the shop has held people out at random."""
    try:
        attach(con, "trials", TRIALS.path(lake))
    except SnapshotError:
        return ()
    attach(con, "links", LINKS.path(lake))
    return effects_of_trials(con)


def _follows(con: duckdb.DuckDBPyConnection, moments: Sequence[MomentKind]) -> tuple[Follow, ...]:
    """The `FOLLOWERS` commonest next moments of each bad kind."""
    rows = con.sql("select person_id, kind, occurred_at, source, event_id from moments").to_arrow_table()
    found = journeys.time_between_moments(rows).to_pylist()
    follows: list[Follow] = []
    for kind in moments:
        own = [row for row in found if kind.bad and row["from_kind"] == kind.moment][:FOLLOWERS]
        follows += [
            Follow(
                moment=kind.moment, next=row["to_kind"], count=row["count"], share=row["share"],
                hours=row["median_hours"],
            )
            for row in own
        ]  # fmt: skip
    return tuple(follows)
