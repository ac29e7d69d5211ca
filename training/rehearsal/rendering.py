"""From the log's integers to the contract's columns as Arrow arrays.

Belongs here: text of ids, queries, details; clocks and arrival. Does not belong here: truth (`truth.py`).
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contracts.events import ACTIONS, CHANNELS
from training.rehearsal import forms, log
from training.rehearsal.catalogue import ADJECTIVES, SIZES, TYPES, UNSOLD, size_systems
from training.rehearsal.config import AtelierConfig
from training.rehearsal.draws import Draws, Ints, mix
from training.rehearsal.forms import Identities
from training.rehearsal.log import Chunk
from training.rehearsal.sessions import GUIDE
from training.rehearsal.world import World

SOURCE = "atelier"
TIMESTAMP = pa.timestamp("us", tz="UTC")
DAY = 86_400_000_000
REASONS = ("too small", "too large", "not as shown", "changed my mind", "question", "late or broken promise")
"""Of returns (first four) and of calls to support (last two)."""

_HOLDERS = ("phone", "laptop", "app", "home", "kiosk")


def midnight(config: AtelierConfig, day: int = 0) -> int:
    """Microseconds of the beginning of a day."""
    start = dt.datetime.combine(config.first_day, dt.time(), dt.UTC)
    return int(start.timestamp()) * 1_000_000 + day * DAY


def skew(config: AtelierConfig, events: Chunk) -> Chunk:
    """Give some devices a wrong clock for a session, and put the events into the order that they claim."""
    draws = Draws(config.seed, -6)
    session = events["session"]
    wrong = (events["device"] >= 0) & (session >= 0)
    wrong &= draws.uniform("wrong clock", session) < config.skew_share
    shift = ((draws.uniform("clock", session) - 0.5) * 180e6).astype(np.int64)
    time = events["time"] + np.where(wrong, shift, 0)
    order = np.argsort(time, kind="stable")
    return {**{name: column[order] for name, column in events.items()}, "time": time[order],
            "true_time": events["time"][order]}  # fmt: skip


def event_ids(config: AtelierConfig, rows: int) -> pa.Array:
    """Ids in the order of the rows."""
    return _text(f"e-{config.prefix}", pa.array(np.arange(rows) + 1_000_000_000))


def person_ids(config: AtelierConfig, numbers: Ints) -> pa.Array:
    """Ids of persons."""
    return _text(f"person-{config.prefix}", pa.array(np.asarray(numbers, np.int64) + 10_000_000))


def household_ids(config: AtelierConfig, numbers: Ints) -> pa.Array:
    """Ids of households."""
    return _text(f"home-{config.prefix}", pa.array(np.asarray(numbers, np.int64)))


def session_ids(config: AtelierConfig, numbers: Ints) -> pa.Array:
    """Ids of sessions; null where there is none."""
    numbers = np.asarray(numbers, np.int64)
    return _text(f"s-{config.prefix}", pa.array(numbers, mask=numbers < 0))


def events_table(world: World, identities: Identities, events: Chunk) -> pa.Table:
    """All events with the contract's columns."""
    config, rows = world.config, len(events["time"])
    nothing = pa.nulls(rows, pa.string())
    priced = ~np.isnan(events["price"])
    columns: dict[str, pa.Array] = {
        "event_id": event_ids(config, rows),
        "source": pa.repeat(SOURCE, rows),
        "occurred_at": pa.array(events["time"]).cast(TIMESTAMP),
        "received_at": pa.array(_received(config, events)).cast(TIMESTAMP),
        "identifiers": identifiers(world, identities, events),
        "session_id": session_ids(config, events["session"]),
        "channel": _words(CHANNELS, events["channel"]),
        "touchpoint": _touchpoints(config, events["touchpoint"]),
        "action": _words(ACTIONS, events["action"]),
        "product_id": _products(world, events["product"]),
        "quantity": pa.array(events["quantity"].astype(np.float64), from_pandas=True),
        "unit_price": pa.array(events["price"], from_pandas=True),
        "discount": pa.array(np.round(events["discount"], 2), from_pandas=True),
        "currency": pc.if_else(pa.array(priced), "EUR", pa.scalar(None, pa.string())),
        "query": _queries(events),
        "media_id": _text("photo-", pa.array(events["media"], mask=events["media"] < 0)),
        "decision_id": nothing,
        "position": pa.array(events["position"], mask=events["position"] < 0),
        "moment": nothing,
        "detail": _details(world, identities, events),
        "consent": _consent(world, events),
    }
    return pa.table(columns)


def device_text(config: AtelierConfig, number: int) -> str:
    """Value of a device identifier: a kiosk by its store, all others as an opaque cookie."""
    kind = number >> 56
    if kind == len(_HOLDERS) - 1:
        return f"kiosk-{(number >> 16) & 0xFFFFFFFFFF}"
    secret = mix(np.array([(number ^ (config.seed << 24)) & (2**64 - 1)], np.uint64))[0]
    return f"d-{config.prefix}{int(secret):016x}"


def identifiers(world: World, identities: Identities, events: Chunk) -> pa.Array:
    """JSON lists of the identifiers that each event carries."""
    ids, person = events["ids"], events["person"]
    parts = []
    for bit, kind, values in (
        (log.CUSTOMER, "customer", identities.customer), (log.CARD, "loyalty_card", identities.card),
        (log.EMAIL, "email_sha256", identities.email), (log.EMAIL_TWO, "email_sha256", identities.email_two),
        (log.PHONE, "phone_sha256", identities.phone),
    ):  # fmt: skip
        texts = pa.array([_pair(kind, value) for value in values])
        parts.append(texts.take(pa.array(person, mask=(ids & bit) == 0)))
    numbers, at = np.unique(events["device"], return_inverse=True)
    cookies = pa.array([_pair("device", device_text(world.config, int(number))) for number in numbers])
    parts.append(cookies.take(pa.array(at, mask=((ids & log.DEVICE) == 0) | (events["device"] < 0))))
    # Not null_handling="skip": pyarrow 25 then loses the rows in which every part is null.
    inside = pc.binary_join_element_wise(*parts, "", null_handling="replace", null_replacement="")
    return pc.binary_join_element_wise("[", pc.ascii_rtrim(inside, ","), "]", "")


def _pair(kind: str, value: str) -> str:
    return f'{{"kind":"{kind}","value":"{value}"}},'


def _text(prefix: str, numbers: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(prefix, numbers.cast(pa.string()), "")


def _words(words: tuple[str, ...], codes: Ints) -> pa.Array:
    return pa.array(words).take(pa.array(codes.astype(np.int32)))


def _each(codes: Ints, render: Callable[[int], str | None]) -> pa.Array:
    """Text of each code, rendered once per distinct code."""
    distinct, at = np.unique(codes, return_inverse=True)
    return pa.array([render(int(code)) for code in distinct], pa.string()).take(pa.array(at))


def _touchpoints(config: AtelierConfig, codes: Ints) -> pa.Array:
    def render(code: int) -> str | None:
        if code >= log.KIOSK:
            return f"kiosk:{code - log.KIOSK}"
        if code >= log.STORE:
            return f"store:{code - log.STORE}"
        return log.TOUCHPOINTS[code] if code >= 0 else None

    return _each(codes, render)


def _products(world: World, codes: Ints) -> pa.Array:
    goods = len(world.shop)
    at = np.where(codes >= GUIDE, codes - GUIDE + goods, codes)
    return world.shop.ids().take(pa.array(at, mask=codes < 0))


def query_text(kind: int, adjective: int, mode: int) -> str:
    """The words of a query."""
    word = TYPES[kind] if kind < len(TYPES) else UNSOLD[kind - len(TYPES)]
    if mode == log.QUERY_GO:
        return "store opening hours"
    if mode == log.QUERY_DO:
        return f"how to style {word}"
    if adjective < 0:
        return word
    first = ADJECTIVES[adjective]
    return f"{word} {first}" if mode == log.QUERY_BACKWARD else f"{first} {word}"


def _queries(events: Chunk) -> pa.Array:
    kind, adjective, mode = (
        events[name].astype(np.int64) for name in ("query_type", "query_adjective", "query_mode")
    )
    code = np.where(kind < 0, -1, (kind * 64 + adjective + 1) * 8 + mode)

    def render(code: int) -> str | None:
        return None if code < 0 else query_text(code // 512, code // 8 % 64 - 1, code % 8)

    return _each(code, render)


def _details(world: World, identities: Identities, events: Chunk) -> pa.Array:
    kind, a, b, person = events["detail"], events["a"], events["b"], events["person"]
    texts = ["{}"]
    codes = np.zeros(len(kind), np.int64)

    def put(which: int, values: Ints, render: Callable[[int], str]) -> None:
        rows = np.flatnonzero(kind == which)
        distinct, at = np.unique(values[rows], return_inverse=True)
        codes[rows] = len(texts) + at
        texts.extend(render(int(value)) for value in distinct)

    put(log.RESULTS, a, lambda results: f'{{"results":{results}}}')
    names = [SIZES[system] for system in size_systems()]
    sizes = a + 8 * world.shop.kind[np.clip(events["product"], 0, len(world.shop) - 1)]
    put(log.SIZE, sizes, lambda code: f'{{"size":"{names[code // 8][code % 8]}"}}')
    put(log.ERROR, a, lambda code: f'{{"code":{code},"page":"checkout"}}')
    put(log.CAMPAIGN, a, lambda number: f'{{"campaign":"k-{number}"}}')
    every = np.arange(len(kind))
    put(log.REASON, every, lambda row: _reason(world.config, int(a[row]), int(events["session"][row])))
    put(log.LATE, every, lambda row: _delivery(
        world.config, int(a[row]), int(b[row]), int(events["true_time"][row]), int(events["session"][row])))  # fmt: skip

    def form(row: int) -> str:
        filled = forms.fill_in(identities, int(person[row]), int(a[row]), int(b[row]), world.config)
        return json.dumps({"form": filled}, ensure_ascii=False)

    put(log.FORM, every, form)
    put(log.OFFER, a, lambda number: f'{{"offer_id":"o-{number}","campaign":"k-{number}"}}')
    return pa.array(texts).take(pa.array(codes))


def _reason(config: AtelierConfig, reason: int, session: int) -> str:
    order = f',"order":"s-{config.prefix}{-2 - session}"' if session < -1 else ""
    return f'{{"reason":"{REASONS[reason]}"{order}}}'


def _delivery(config: AtelierConfig, late: int, promised: int, delivered: int, session: int) -> str:
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    due = epoch + dt.timedelta(microseconds=midnight(config, promised))
    came = epoch + dt.timedelta(microseconds=delivered)
    return (
        f'{{"order":"s-{config.prefix}{-2 - session}","promised":"{due.date().isoformat()}",'
        f'"delivered":"{came.isoformat()}","late_days":{late}}}'
    )


def _received(config: AtelierConfig, events: Chunk) -> Ints:
    draws = Draws(config.seed, -7)
    number = np.arange(len(events["time"]))
    late = draws.uniform("late", number) < config.late_share
    soon = np.exp(draws.normal("soon", number) * 0.8 - 0.5) * 1e6
    hours = draws.uniform("how late", number) ** 3 * config.late_days * 24
    delay = np.where(late, (1 + hours) * 3600e6, soon)
    return np.asarray(events["true_time"] + delay.astype(np.int64))


def _consent(world: World, events: Chunk) -> pa.Array:
    opted = world.people.opted[:, 0][np.maximum(events["person"], 0)]
    named = (events["ids"] & ~log.DEVICE) != 0
    code = np.where(named, np.where(opted, 2, 1), np.where(events["ids"] != 0, 1, 0))
    texts = ("[]", '["analytics","personalization"]', '["analytics","personalization","marketing"]')
    return pa.array(texts).take(pa.array(code))
