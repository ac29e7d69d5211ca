"""What shoppers chose among what looked alike: pairs that the visual models can learn from.

A click names the decision that showed the product (`Event.decision_id`), and the decision says what was
searched for: a product, words, or an item of a photo, whose vector is there only if the shopper agreed
to keep it. What stood above the chosen product in the same list and was passed over comes with it, and
so does the propensity, so that a learner can correct for what the policy chose to show.

Belongs here: decisions and events -> pairs. Does not belong here: learning from them, how a decision is made
(`serving/vision`).
"""

from __future__ import annotations

import base64
import pathlib
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import msgspec
import pyarrow as pa

from contracts.decisions import Decision
from orchestration.lake.tables import TIMESTAMP

CHOSEN: tuple[str, ...] = ("click", "view", "wishlist", "add_to_cart", "purchase")
"""Acts that show that a result was what was meant, the weakest first."""

SURFACES: tuple[str, ...] = ("image", "text", "similar", "look", "hotspots")

PAIRS = pa.schema(
    [
        pa.field("decision_id", pa.string()),
        pa.field("occurred_at", TIMESTAMP),
        pa.field("surface", pa.string()),
        pa.field("query_product_ids", pa.list_(pa.string())),
        pa.field("query_words", pa.string()),
        pa.field("query_vector", pa.binary()),
        pa.field("query_class", pa.string()),
        pa.field("query_media_id", pa.string()),
        pa.field("query_box", pa.list_(pa.float64())),
        pa.field("product_id", pa.string()),
        pa.field("action", pa.string()),
        pa.field("position", pa.int32()),
        pa.field("place", pa.int32()),
        pa.field("propensity", pa.float64()),
        pa.field("passed_over", pa.list_(pa.string())),
        pa.field("release", pa.string()),
    ]
)
"""One row per decision and chosen product, with its strongest act and the time of the first. ``query_vector`` is
float16 and comes from the embedder of ``release``; ``query_box`` are shares of the photo, or of the look
``query_media_id``; ``place`` is the place in its own list, from 0."""

_CHUNK = 500
_DECODER = msgspec.json.Decoder(Decision)


def visual_pairs(con: duckdb.DuckDBPyConnection, decisions: pathlib.Path) -> pa.Table:
    """Join what was chosen with what was shown.

    Args:
        con: Connection with a view `events` (`tables.EVENTS`).
        decisions: SQLite file of decision records; a missing one gives no pairs.

    Returns:
        `PAIRS`, by time.
    """
    acts = ", ".join(f"'{action}'" for action in CHOSEN)
    rank = f"list_position([{acts}], action)"
    chosen = con.sql(
        f"select decision_id, product_id, min(occurred_at) as first_at, max_by(action, {rank}) as action "
        f"from events where decision_id is not null and product_id is not null and action in ({acts}) "
        "group by decision_id, product_id order by first_at, decision_id, product_id"
    ).fetchall()
    found = _read(decisions, sorted({row[0] for row in chosen}))
    rows = [
        _pair(found[decision_id], product_id, at, action)
        for decision_id, product_id, at, action in chosen
        if decision_id in found
    ]
    return pa.Table.from_pylist([row for row in rows if row is not None], schema=PAIRS)


def _read(path: pathlib.Path, ids: Sequence[str]) -> dict[str, Decision]:
    """The visual ones among some decisions."""
    if not path.is_file():
        return {}
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5.0)
    try:
        decisions = [_DECODER.decode(raw) for raw in _raw(connection, ids)]
    finally:
        connection.close()
    return {d.decision_id: d for d in decisions if d.context.get("surface") in SURFACES}


def _raw(connection: sqlite3.Connection, ids: Sequence[str]) -> Iterator[bytes]:
    for start in range(0, len(ids), _CHUNK):
        some = ids[start : start + _CHUNK]
        marks = ", ".join("?" * len(some))
        for (raw,) in connection.execute(f"select raw from decisions where decision_id in ({marks})", some):
            yield bytes(raw)


def _pair(decision: Decision, product_id: str, at: Any, action: str) -> dict[str, Any] | None:
    """A row, or None where the decision did not show the product (it was reached in another way)."""
    shown = next((item for item in decision.items if item.product_id == product_id), None)
    if shown is None:
        return None
    context = decision.context
    starts = [start for start in context.get("lists_begin", [0]) if start <= shown.position]
    number, begins = len(starts) - 1, max(starts, default=0)
    objects, parts = context.get("objects", ()), context.get("parts", ())
    item = objects[number] if number < len(objects) else {}
    kept = item.get("vector")
    asked = context.get("product_ids") or ([context["product_id"]] if "product_id" in context else [])
    return {
        "decision_id": decision.decision_id,
        "occurred_at": at,
        "surface": context["surface"],
        "query_product_ids": asked,
        "query_words": context.get("query"),
        "query_vector": None if kept is None else base64.b64decode(kept),
        "query_class": item.get("class") or (parts[number] if number < len(parts) else None),
        "query_media_id": context.get("media_id"),
        "query_box": item.get("box"),
        "product_id": product_id,
        "action": action,
        "position": shown.position,
        "place": shown.position - begins,
        "propensity": shown.propensity,
        "passed_over": [
            other.product_id for other in decision.items if begins <= other.position < shown.position
        ],
        "release": decision.release,
    }
