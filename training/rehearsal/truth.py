"""Truth about people, tastes, needs, campaigns and causes, as tables.

Belongs here: what the simulation knows and nobody else may. Does not belong here: identity
(`identity.py`) and moments (`moments.py`).
"""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa

from contracts.events import MOMENTS
from training.rehearsal import forms, log, rendering
from training.rehearsal.catalogue import COLOURS, PATTERNS, TYPES, size_name
from training.rehearsal.config import CONTACT_CHANNELS
from training.rehearsal.draws import Ints
from training.rehearsal.forms import Identities
from training.rehearsal.log import ACT, Chunk
from training.rehearsal.sessions import PLACES
from training.rehearsal.state import NEEDS
from training.rehearsal.world import World

assert set(NEEDS) <= set(MOMENTS)

_AGES = ((25, "16-24"), (35, "25-34"), (45, "35-44"), (55, "45-54"), (65, "55-64"), (200, "65+"))


def customers(world: World, identities: Identities, events: Chunk) -> pa.Table:
    """Every login that occurs in the stream, with an age band."""
    who = np.unique(events["person"][((events["ids"] & log.CUSTOMER) > 0) & (events["person"] >= 0)])
    ages = world.people.age[who]
    bands = [next(name for limit, name in _AGES if age < limit) for age in ages.tolist()]
    return pa.table(
        {
            "customer_id": pa.array([identities.customer[i] for i in who], pa.string()),
            "age": pa.array(bands, pa.string()),
        }
    )


def records(world: World, identities: Identities, events: Chunk, table: pa.Table) -> pa.Table:
    """The table ``records``: every filled form, with the identifiers that came with it."""
    rows = np.flatnonzero(events["detail"] == log.FORM)
    columns: dict[str, list[object]] = {
        name: []
        for name in (
            "record_id",
            "event_id",
            "recorded_at",
            "identifier_kind",
            "identifier_value",
            *forms.FIELDS,
        )
    }
    event_ids = table["event_id"].take(pa.array(rows)).to_pylist()
    for event_id, row in zip(event_ids, rows.tolist(), strict=True):
        person, ids = int(events["person"][row]), int(events["ids"][row])
        form = forms.fill_in(identities, person, int(events["a"][row]), int(events["b"][row]), world.config)
        for bit, kind, values in (
            (log.CUSTOMER, "customer", identities.customer), (log.CARD, "loyalty_card", identities.card),
            (log.EMAIL, "email_sha256", identities.email), (log.EMAIL_TWO, "email_sha256", identities.email_two),
        ):  # fmt: skip
            if ids & bit:
                columns["record_id"].append(f"r-{world.config.prefix}{len(columns['record_id'])}")
                columns["event_id"].append(event_id)
                columns["recorded_at"].append(int(events["time"][row]))
                columns["identifier_kind"].append(kind)
                columns["identifier_value"].append(values[person])
                for name in forms.FIELDS:
                    columns[name].append(form[name])
    kinds = {"recorded_at": pa.int64(), "birth_year": pa.int64()}
    made = pa.table(
        {name: pa.array(values, kinds.get(name, pa.string())) for name, values in columns.items()}
    )
    at = made.column_names.index("recorded_at")
    return made.set_column(at, "recorded_at", made["recorded_at"].cast(rendering.TIMESTAMP))


def persons(world: World, identities: Identities) -> pa.Table:
    """The truth table ``persons``."""
    people, state, config = world.people, world.state, world.config
    first = np.datetime64(config.first_day, "D")
    churned = first + state.churned.astype("timedelta64[D]")
    names = {
        name: pa.array([row[column] for row in identities.names]) for column, name in enumerate(forms.FIELDS)
    }
    return pa.table(
        {
            "person_id": rendering.person_ids(world.config, np.arange(len(people))),
            "household_id": rendering.household_ids(config, people.household),
            **names,
            "joined_on": pa.array(first + people.joined.astype("timedelta64[D]")),
            "churned_on": pa.array(churned, mask=state.churned < 0),
            "yearly_sessions": people.rate * 365.25,
            "archetype": people.archetype[:, 0],
        }
    )


def needs(world: World) -> pa.Table:
    """The truth table ``needs``: one row per session on web, app, marketplace or in a store."""
    first = rendering.midnight(world.config)
    parts = {name: np.concatenate([part[name] for part in world.needs]) for name in world.needs[0]}
    since = parts["since"]
    return pa.table(
        {
            "session_id": rendering.session_ids(world.config, parts["session"]),
            "person_id": rendering.person_ids(world.config, parts["person"]),
            "started_at": pa.array(parts["started"]).cast(rendering.TIMESTAMP),
            "channel": pa.array(PLACES).take(pa.array(parts["channel"])),
            "need": pa.array(NEEDS).take(pa.array(parts["need"])),
            "product_type": pa.array(TYPES).take(pa.array(parts["wanted"])),
            "open_since": pa.array(first + since * rendering.DAY, mask=since < 0).cast(rendering.TIMESTAMP),
        }
    )


def tastes(world: World) -> pa.Table:
    """The truth table ``tastes``."""
    people, style = world.people, world.style
    weight = people.mixture[:, None]

    def mixed(rows: np.ndarray) -> pa.Array:
        values = weight * rows[people.archetype[:, 0]] + (1 - weight) * rows[people.archetype[:, 1]]
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])

    letters = [size_name(TYPES.index("shirt"), index) for index in people.size[:, 0].tolist()]
    assert style.colours.shape[1] == len(COLOURS)
    assert style.patterns.shape[1] == len(PATTERNS)
    return pa.table(
        {
            "person_id": rendering.person_ids(world.config, np.arange(len(people))),
            "archetype": people.archetype[:, 0], "second_archetype": people.archetype[:, 1],
            "weight": people.mixture, "types": mixed(style.types), "colours": mixed(style.colours),
            "patterns": mixed(style.patterns), "price_level": people.price_level, "size": pa.array(letters),
        }
    )  # fmt: skip


def campaigns(world: World) -> pa.Table:
    """The truth table ``campaigns``."""
    rows = world.campaigns
    first = world.config.first_day
    return pa.table(
        {
            "campaign_id": pa.array([f"k-{number}" for number in range(len(rows))], pa.string()),
            "channel": pa.array([row["channel"] for row in rows], pa.string()),
            "starts_on": pa.array([first + dt.timedelta(days=row["day"]) for row in rows], pa.date32()),
            "product_type": pa.array([TYPES[row["theme"]] for row in rows], pa.string()),
            "audience": pa.array([len(row["person"]) for row in rows], pa.int64()),
            "treated": pa.array([int(row["treated"].sum()) for row in rows], pa.int64()),
        }
    )


def assignments(world: World, identities: Identities) -> pa.Table:
    """The truth table ``assignments``."""
    rows = world.campaigns
    sizes = [len(row["person"]) for row in rows]

    def column(name: str, kind: type) -> np.ndarray:
        return np.concatenate([np.empty(0, kind), *(row[name] for row in rows)]).astype(kind)

    who = column("person", np.int64)
    number = np.repeat(np.arange(len(rows)), sizes)
    account = world.state.account[who]
    return pa.table(
        {
            "campaign_id": pa.array([f"k-{index}" for index in range(len(rows))], pa.string()).take(
                pa.array(number)
            ),
            "person_id": rendering.person_ids(world.config, who),
            "customer_id": pa.array(identities.customer).take(pa.array(who, mask=~account)),
            "channel": pa.array([row["channel"] for row in rows], pa.string()).take(pa.array(number)),
            "sent_at": pa.array(column("sent", np.int64)).cast(rendering.TIMESTAMP),
            "treated": column("treated", bool),
            "effect_visit": column("effect", np.float64),
        }
    )


def purchase_causes(world: World, events: Chunk) -> pa.Table:
    """The truth table ``purchase_causes``."""
    rows, channels = [], []
    cause = _purchases(events, events["cause"].astype(np.int64))
    for index in range(len(CONTACT_CHANNELS)):
        caused = np.flatnonzero((cause >> index) & 1)
        rows.append(caused)
        channels.append(np.full(len(caused), index))
    at = np.concatenate(rows)
    return pa.table(
        {
            "event_id": rendering.event_ids(world.config, len(cause)).take(pa.array(at)),
            "session_id": rendering.session_ids(world.config, events["session"][at]),
            "channel": pa.array(CONTACT_CHANNELS).take(pa.array(np.concatenate(channels))),
        }
    )


def effects(world: World, events: Chunk) -> pa.Table:
    """The truth table ``effects``: sessions, lines and revenue with and without each channel's contacts."""
    visits = np.concatenate([part["cause"] for part in world.needs])
    cause = _purchases(events, events["cause"].astype(np.int64))
    bought = events["action"] == ACT["purchase"]
    revenue = np.where(bought, np.nan_to_num(events["price"] * events["quantity"]), 0.0)
    lost = [((cause >> index) & 1) > 0 for index in range(len(CONTACT_CHANNELS))]
    put_off = world.prevented.tolist()
    total, money = int(bought.sum()), float(revenue.sum())
    return pa.table(
        {
            "channel": pa.array(CONTACT_CHANNELS),
            "sessions": pa.array([len(visits)] * len(lost)),
            "sessions_without": pa.array(
                [
                    len(visits) - int(((visits >> index) & 1).sum()) + int(put_off[index][0])
                    for index in range(len(lost))
                ]
            ),
            "purchases": pa.array([total] * len(lost)),
            "purchases_without": pa.array(
                [total - int(mask.sum()) + int(off[1]) for mask, off in zip(lost, put_off, strict=True)]
            ),
            "revenue": pa.array([money] * len(lost)),
            "revenue_without": pa.array(
                [money - float(revenue[mask].sum()) + off[2] for mask, off in zip(lost, put_off, strict=True)]
            ),
        }
    )


def _purchases(events: Chunk, cause: Ints) -> Ints:
    return np.where(events["action"] == ACT["purchase"], cause, 0)


def friends(world: World) -> pa.Table:
    """The truth table ``friends``."""
    circle = world.people.friends
    pairs = np.unique(
        np.stack([np.repeat(np.arange(len(circle)), circle.shape[1]), circle.ravel()], 1), axis=0
    )
    return pa.table(
        {
            "person_id": rendering.person_ids(world.config, pairs[:, 0]),
            "friend_id": rendering.person_ids(world.config, pairs[:, 1]),
        }
    )


def outages(world: World) -> pa.Table:
    """The truth table ``outages``."""
    open_ = [(*key, since, -1) for key, since in world.outages.since.items()]
    rows = np.array([*world.outages.closed, *open_], np.int64).reshape(-1, 4)
    first = rendering.midnight(world.config)
    sizes = [size_name(int(world.shop.kind[product]), int(size)) for product, size in rows[:, :2].tolist()]
    return pa.table(
        {
            "product_id": world.shop.ids().take(pa.array(rows[:, 0])),
            "size": pa.array(sizes, pa.string()),
            "from": pa.array(first + rows[:, 2] * rendering.DAY).cast(rendering.TIMESTAMP),
            "until": pa.array(first + rows[:, 3] * rendering.DAY, mask=rows[:, 3] < 0).cast(
                rendering.TIMESTAMP
            ),
        }
    )
