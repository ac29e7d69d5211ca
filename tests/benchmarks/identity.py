"""Identity on the atelier, whose truth is known: precision and recall over pairs, undo, scale.

Pairs of events. Precision: of all pairs of events that were given to one person, the share whose true
person is one; every event counts, kiosks and households included. Recall: of all pairs of linkable events
of one true person, the share that were given to one person; linkable is the simulator's own word for what
identifiers and forms can tell (a till without a name cannot be). ``*_identifiers`` are the same over pairs
of identifiers that belong to one person. ``*_deterministic`` are before forms are matched. The seeds are not
those that the guards were chosen on.
"""

from __future__ import annotations

import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import duckdb
import pyarrow as pa

from feature_repo.snapshots import connect
from orchestration.lake import merges
from orchestration.lake.identity import Stitched, stitch
from orchestration.lake.identity_events import EVENT_PERSONS_SQL
from orchestration.lake.identity_probabilistic import match_forms
from training.rehearsal import Atelier, AtelierConfig, simulate

SEEDS = (20261, 20262, 20263)
SHOPPERS, DAYS, BOTS = 3_000, 180, 3
COPIES = (1, 4, 8)
"""How often the stream is repeated under other names to see how time grows."""

PAIRS_SQL = """
with joined as (
    select t.person_id as truth, t.linkable, g.person_id as given from truth t left join given g using (key)
), cells as (
    select truth, given, count(*) as n, count(*) filter (where linkable) as linked
    from joined where given is not null group by all
), correct as (
    select coalesce(sum(n * (n - 1) / 2) filter (where truth is not null), 0) as hits,
        coalesce(sum(linked * (linked - 1) / 2) filter (where truth is not null), 0) as linked_hits from cells
), said as (select coalesce(sum(n * (n - 1) / 2), 0) as pairs from (
    select given, sum(n) as n from cells group by given)
), real as (select coalesce(sum(n * (n - 1) / 2), 0) as pairs from (
    select truth, count(*) as n from joined where linkable and truth is not null group by truth))
select hits / said.pairs, linked_hits / real.pairs, said.pairs, real.pairs from correct, said, real
"""


def run(quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Stitch simulated shops and hold the answer against their truth.

    Args:
        quick: One small shop.
        say: Receives one line per shop.

    Returns:
        The worst of the shops for precision and recall; ``undo_exact`` whether taking every merge back gives
        the former mapping byte for byte; ``cpu_seconds_per_million`` at the largest size (of all threads), and
        ``growth``, the exponent of that time over events (1 is linear).
    """
    seeds = SEEDS[:1] if quick else SEEDS
    shoppers, days = (800, 120) if quick else (SHOPPERS, DAYS)
    results = []
    for seed in seeds:
        shop = simulate(AtelierConfig(seed=seed, shoppers=shoppers, days=days, bots=BOTS))
        results.append(_measure(shop))
        line = ", ".join(
            f"{name} {value:.4f}" for name, value in results[-1].items() if isinstance(value, float)
        )
        say(f"seed {seed}, {shop.events.num_rows:,} events: {line}")
    worst = {name: min(result[name] for result in results) for name in results[0] if name != "events"}
    worst["bots_found"] = bool(worst["bots_found"])
    worst["undo_exact"] = bool(worst["undo_exact"])
    worst |= _scale(shop.events, COPIES[:2] if quick else COPIES, say)
    setup = {
        "seeds": list(seeds), "shoppers": shoppers, "days": days, "bots": BOTS,
        "events": [result["events"] for result in results], "pairs": "of events; worst seed",
    }  # fmt: skip
    return {"measured": worst, "setup": setup}


def open_shop(shop: Atelier) -> duckdb.DuckDBPyConnection:
    """A connection with the shop's events and its truth."""
    con = connect("3GB")
    con.register("atelier_events", shop.events)
    con.execute("create view events as select *, occurred_at::date as day from atelier_events")
    con.register("identity_truth", shop.identity)
    con.register("identifier_truth", shop.identifiers)
    return con


def scores(found: Stitched) -> dict[str, float]:
    """Pairwise precision and recall over events and over identifiers."""
    con = found.con
    con.execute(
        "create or replace temp view truth as select event_id as key, person_id, linkable from identity_truth"
    )
    con.execute(
        f"create or replace temp table given as select event_id as key, person_id from ({EVENT_PERSONS_SQL})"
    )
    precision, recall, *_ = con.sql(PAIRS_SQL).fetchall()[0]
    con.execute(
        "create or replace temp view truth as select kind || ':' || value as key, person_id, linkable "
        "from identifier_truth where not shared"
    )
    con.register("links_found", found.links)
    con.execute(
        "create or replace temp table given as select kind || ':' || value as key, person_id from links_found"
    )
    by_name = con.sql(PAIRS_SQL).fetchall()[0]
    return {
        "precision": float(precision), "recall": float(recall),
        "precision_identifiers": float(by_name[0]), "recall_identifiers": float(by_name[1]),
    }  # fmt: skip


def _measure(shop: Atelier) -> dict[str, Any]:
    alone = stitch(open_shop(shop))
    before = scores(alone)
    matched = match_forms(alone)
    with tempfile.TemporaryDirectory(prefix="continuum-bench-") as folder:
        lake = pathlib.Path(folder)
        entries = merges.merge(lake, matched.proposals, "probabilistic", "splink")
        joined = stitch(open_shop(shop), ledger=entries, anchors=alone.anchors)
        after = scores(joined)
        merges.undo_all(lake, [entry.entry_id for entry in entries])
        apart = stitch(open_shop(shop), ledger=merges.read_ledger(lake), anchors=joined.anchors)
    person = {
        (row["kind"], row["value"]): row["person_id"]
        for row in shop.identifiers.to_pylist()
        if not row["shared"]
    }
    right = sum(
        person.get(p.left) is not None and person.get(p.left) == person.get(p.right)
        for p in matched.proposals
    )
    quarantined = {row["value"] for row in joined.bots.to_pylist() if row["quarantined"]}
    crawlers = {
        row["value"]
        for row in shop.identifiers.to_pylist()
        if row["person_id"] is None and not row["linkable"]
    }
    return {
        **after,
        "precision_deterministic": before["precision"],
        "recall_deterministic": before["recall"],
        "form_merges_right": right / max(1, len(matched.proposals)),
        "form_merges": len(matched.proposals),
        "bots_found": len(quarantined) == BOTS and quarantined <= crawlers,
        "undo_exact": _same(alone, apart),
        "events": shop.events.num_rows,
    }


def _same(left: Stitched, right: Stitched) -> bool:
    """Whether two mappings are equal in every byte: identifiers, and events in their order."""
    parts = []
    for found in (left, right):
        sink = pa.BufferOutputStream()
        events = found.events().read_all().sort_by([("source", "ascending"), ("event_id", "ascending")])
        for table in (found.links, events):
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table.combine_chunks())
        parts.append(sink.getvalue().to_pybytes())
    return parts[0] == parts[1]


def _scale(events: pa.Table, copies: tuple[int, ...], say: Callable[[str], None]) -> dict[str, float]:
    """Time of stitching the stream many times over, every copy with people of its own."""
    import math

    sizes, seconds = [], []
    for count in copies:
        with tempfile.TemporaryDirectory(prefix="continuum-bench-") as folder:
            path = f"{folder}/events.parquet"
            con = connect("3GB")
            con.register("one", events)
            con.execute(
                f"""copy (select * replace (
                    replace(identifiers, '"value":"', '"value":"' || copy || '-') as identifiers,
                    copy || '-' || event_id as event_id, copy || '-' || session_id as session_id),
                    occurred_at::date as day
                from one, range({count}) copies(copy)) to '{path}' (format parquet)"""
            )
            con.execute(f"create view events as select * from '{path}'")
            took = []
            for _ in range(2):
                begun = time.process_time()
                found = stitch(con)
                rows = sum(batch.num_rows for batch in found.events())
                took.append(time.process_time() - begun)
            con.close()
        sizes.append(rows)
        seconds.append(min(took))
        say(f"{rows:,} events stitched in {seconds[-1]:.1f} CPU s")
    slope = statistics.linear_regression([math.log(n) for n in sizes], [math.log(s) for s in seconds]).slope
    return {
        "scaled_events": sizes[-1],
        "cpu_seconds_per_million": seconds[-1] / sizes[-1] * 1e6,
        "growth": slope,
    }
