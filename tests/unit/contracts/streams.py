"""Streams out of short rows, for tests of sessions, moments and needs."""

import numpy as np

from contracts.moments import MOMENT
from contracts.sessions import ACTION, CHANNEL, PLACES, WORDS, Stream, query_row, text_key

MINUTE = 60_000_000


def stream(*rows: dict) -> Stream:
    """Rows ``{at (minutes), action, person, channel, place, product, price, query, results, late, named}``."""
    queries = [row["query"] for row in rows if "query" in row]
    people = [row.get("person", 0) for row in rows]
    return Stream(
        person=np.array(people, np.int64),
        person_key=np.array([text_key(str(person)) for person in people], np.uint64),
        at_us=np.array([int(row["at"] * MINUTE) for row in rows], np.int64),
        action=np.array([ACTION[row["action"]] for row in rows], np.int8),
        channel=np.array([CHANNEL[row.get("channel", "web")] for row in rows], np.int8),
        place=np.array([PLACES.index(row.get("place", "other")) for row in rows], np.int8),
        product=np.array([row.get("product", -1) for row in rows], np.int64),
        price=np.array([row.get("price", np.nan) for row in rows], np.float64),
        query=np.array([queries.index(row["query"]) if "query" in row else -1 for row in rows], np.int64),
        words=np.array([query_row(text) for text in queries], np.uint64).reshape(-1, WORDS),
        results=np.array([row.get("results", np.nan) for row in rows], np.float64),
        late_days=np.array([row.get("late", np.nan) for row in rows], np.float64),
        named=np.array([MOMENT.get(row.get("named"), -1) for row in rows], np.int8),
    )
