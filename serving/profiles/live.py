"""Live profiles: the published snapshot merged on read with the inbox's tail.

Every read asks the inbox for the customer's rows after those already merged (one indexed query of a
few microseconds), so an event is visible to the first request after its acknowledgement, whichever
process took it in. Merged histories and their folds are cached per customer, bounded, and thrown away
when the release or the snapshot changes.

Belongs here: who is known and what they did. Does not belong here: scoring.
"""

from __future__ import annotations

import collections
import dataclasses
import threading
from collections.abc import Mapping
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from contracts.events import ACTIONS, CHANNELS, Event
from serving.engine.memory import Memory
from serving.inbox.reader import InboxView
from serving.profiles.history import (
    History,
    empty_history,
    make_history,
    merge_histories,
    session_key,
    size_key,
    to_microseconds,
)
from serving.profiles.snapshot import Snapshot

STORE_PREFIX = "store:"

_DECODER = msgspec.json.Decoder(Event)
_ACTION = {name: place for place, name in enumerate(ACTIONS)}
_CHANNEL = {name: place for place, name in enumerate(CHANNELS)}


class Tables(Protocol):
    """What a release's item table must answer here."""

    index: dict[str, int]
    store_index: dict[str, int]

    def lookup(self, product_ids: NDArray[np.str_]) -> NDArray[np.int32]:
        """Item index by product id, with a last extra -1."""

    def lookup_stores(self, stores: NDArray[np.str_]) -> NDArray[np.int32]:
        """Store index by store id, with a last extra -1."""


@dataclasses.dataclass(slots=True)
class Profile:
    """What is known of one customer or session, in the terms of one release.

    Attributes:
        known: False for a customer whom neither the snapshot nor the inbox knows.
        history: All events known now.
        base: The snapshot's part.
        tail: The inbox's part in the lake's order: occurred, received, event id, event.
        merged: Inbox offsets already merged, of the customer and of the session.
        memory: The digest of the latest question's events, kept by the engine's thread alone.
    """

    known: bool
    history: History
    base: History
    tail: list[tuple[int, int, str, Event]]
    merged: tuple[int, int]
    memory: Memory | None = None


class Profiles:
    """Live profiles of one server.

    Args:
        view: The inbox.
        capacity: Profiles kept in memory.
    """

    def __init__(self, view: InboxView, capacity: int = 4096) -> None:
        self._view = view
        self._capacity = capacity
        self._lock = threading.RLock()
        self._snapshot: Snapshot | None = None
        self._cache: collections.OrderedDict[tuple[str | None, str | None], Profile] = (
            collections.OrderedDict()
        )
        self._tables: Tables | None = None
        self._maps: tuple[NDArray[np.int32], NDArray[np.int32]] | None = None

    @property
    def snapshot(self) -> Snapshot | None:
        """The snapshot in use."""
        return self._snapshot

    def use_snapshot(self, snapshot: Snapshot) -> None:
        """Switch to a newer snapshot; what the inbox holds after its offset is merged as before."""
        with self._lock:
            tables = self._tables
            maps = None if tables is None else _maps(tables, snapshot)
            self._snapshot, self._maps = snapshot, maps
            self._cache.clear()

    def get(self, tables: Tables, customer_id: str | None, session_id: str | None) -> Profile:
        """The profile of a customer, of an anonymous session, or of both together.

        Args:
            tables: Item table of the release that will answer.
            customer_id: Known customer, or None.
            session_id: Session whose events without a customer belong to the same person, or None.

        Raises:
            InboxError: The inbox cannot be read.
        """
        with self._lock:
            if tables is not self._tables:
                self._tables = tables
                self._maps = None if self._snapshot is None else _maps(tables, self._snapshot)
                self._cache.clear()
            key = (customer_id, session_id)
            profile = self._cache.get(key)
            if profile is None:
                profile = self._first(customer_id)
                self._cache[key] = profile
                if len(self._cache) > self._capacity:
                    self._cache.popitem(last=False)
            else:
                self._cache.move_to_end(key)
            try:
                self._catch_up(profile, tables, customer_id, session_id)
            except BaseException:
                del self._cache[key]
                raise
            return profile

    def sent(self, customer_id: str) -> list[Event]:
        """Every event of a customer that came in live, in order of arrival, with all that it told.

        Raises:
            InboxError: The inbox cannot be read.
        """
        return [_DECODER.decode(raw) for _, raw in self._view.of_customer(customer_id, 0)]

    def _first(self, customer_id: str | None) -> Profile:
        base, known, offset = empty_history(), False, 0
        if self._snapshot is not None and self._maps is not None:
            offset = self._snapshot.meta.inbox_offset
            row = -1 if customer_id is None else self._snapshot.row(customer_id)
            if row >= 0:
                base, known = self._snapshot.history(row, *self._maps), True
        return Profile(known, base, base, [], (offset, 0))

    def _catch_up(
        self, profile: Profile, tables: Tables, customer_id: str | None, session_id: str | None
    ) -> None:
        of_customer, of_session = profile.merged
        added = 0
        if customer_id is not None:
            for offset, raw in self._view.of_customer(customer_id, of_customer):
                profile.tail.append(_ordered(raw))
                of_customer, added, profile.known = offset, added + 1, True
        if session_id is not None:
            for offset, raw in self._view.of_session(session_id, of_session):
                profile.tail.append(_ordered(raw))
                of_session, added = offset, added + 1
        if added:
            profile.merged = (of_customer, of_session)
            profile.tail.sort(key=lambda row: row[:3])
            live = events_history([row[3] for row in profile.tail], tables.index, tables.store_index)
            profile.history = merge_histories([profile.base, live])
            profile.memory = None


def events_history(events: list[Event], items: Mapping[str, int], stores: Mapping[str, int]) -> History:
    """Events as a history, in the terms of a release.

    Args:
        events: In the lake's order: by occurred_at, received_at, event_id.
        items: Item index by product id.
        stores: Store index by store id.
    """
    return make_history(
        at_us=[to_microseconds(event.occurred_at) for event in events],
        item=[items.get(event.product_id or "", -1) for event in events],
        action=[_ACTION[event.action] for event in events],
        channel=[_CHANNEL[event.channel] for event in events],
        session=[session_key(event.session_id) for event in events],
        quantity=[event.quantity or 0.0 for event in events],
        unit_price=[event.unit_price or 0.0 for event in events],
        discount=[event.discount or 0.0 for event in events],
        store=[stores.get(store_of(event.touchpoint) or "", -1) for event in events],
        size=[size_key(event.detail.get("size")) for event in events],
    )


def store_of(touchpoint: str | None) -> str | None:
    """The store id inside a touchpoint ``store:<id>``, or None."""
    if touchpoint is None or not touchpoint.startswith(STORE_PREFIX):
        return None
    return touchpoint.removeprefix(STORE_PREFIX) or None


def _ordered(raw: bytes) -> tuple[int, int, str, Event]:
    event = _DECODER.decode(raw)
    received = event.received_at or event.occurred_at
    return to_microseconds(event.occurred_at), to_microseconds(received), event.event_id, event


def _maps(tables: Tables, snapshot: Snapshot) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    return tables.lookup(snapshot.products), tables.lookup_stores(snapshot.stores)
