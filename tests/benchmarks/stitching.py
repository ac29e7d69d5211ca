"""Who did what, from identifiers in the events alone: the plain stitch that benches of moments and channels use.

An event belongs to its login; else to the login that its e-mail, card, phone or device was seen with, if that was
only one; else to that identifier itself. No truth is read. (The lake's own identity does better.)
"""

from __future__ import annotations

import collections
import json

import pyarrow as pa

STRENGTH = ("customer", "email_sha256", "loyalty_card", "phone_sha256", "phone", "device")


def stitched(events: pa.Table) -> pa.Table:
    """Events with a column ``person_id``, null for events without any identifier."""
    encoded = events["identifiers"].combine_chunks().dictionary_encode()
    parsed = [
        {row["kind"]: row["value"] for row in json.loads(text or "[]")}
        for text in encoded.dictionary.to_pylist()
    ]
    logins = collections.defaultdict(set)
    for names in parsed:
        if "customer" in names:
            for kind, value in names.items():
                logins[kind, value].add(names["customer"])
    people = pa.array([_person(names, logins) for names in parsed], pa.string())
    return events.append_column("person_id", people.take(encoded.indices))


def _person(names: dict[str, str], logins: dict[tuple[str, str], set[str]]) -> str | None:
    order = [kind for kind in STRENGTH if kind in names] + sorted(set(names) - set(STRENGTH))
    for kind in order:
        known = logins.get((kind, names[kind]), set())
        if len(known) == 1:
            return "customer:" + next(iter(known))
    return f"{order[0]}:{names[order[0]]}" if order else None
