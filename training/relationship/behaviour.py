"""What customers do and what the shop does to them, as arrays, and features of every customer at a moment.

A *visit* is a session in which a person did something of their own accord (`VISIT_ACTS`): opening a message is an
answer to a contact and no visit, or every contact would seem to cause one. Its channel is that of its first such act;
its kind is the most telling thing in it (`KINDS`, in rising order).

Features at a moment are computed from what happened strictly before it, so they cannot see what they predict.

Belongs here: lake -> arrays -> features. Does not belong here: models, outcomes of trials (`trials.py`).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from contracts.events import ACTIONS, CHANNELS
from contracts.features import MICROSECONDS_PER_DAY
from contracts.moments import BAD
from contracts.predictions import CONTACT_CHANNELS, VISIT_KINDS
from contracts.settings import Settings
from feature_repo.snapshots import attach, connect, delta_files

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

NOT_A_VISIT = (
    "impression", "open", "click", "dismiss", "delivery", "subscribe", "unsubscribe", "stockout", "error",
)  # fmt: skip
VISIT_ACTS: tuple[str, ...] = tuple(action for action in ACTIONS if action not in NOT_A_VISIT)

KINDS = VISIT_KINDS
"""What a visit was about, in rising order: the last that occurs in it counts; looking around is ``view``."""

HELP = ("support", "chat")
"""Channels on which a visit asks for help and answers no offer."""

WINDOWS = (7.0, 28.0, 91.0)
HALF = 56.0
FAR = 365.0
CONTACTED = CONTACT_CHANNELS
"""Channels whose contacts are counted."""

FEATURES: tuple[str, ...] = (
    "age", "days_known", "days_since_visit", "days_since_purchase", "visits", "purchases", "visits_half",
    *(f"visits_{window:.0f}d" for window in WINDOWS), *(f"purchases_{window:.0f}d" for window in WINDOWS),
    *(f"spend_{window:.0f}d" for window in WINDOWS), "gap_mean", "gap_last",
    *(f"on_{channel}" for channel in CHANNELS), *(f"since_{channel}" for channel in CHANNELS),
    *(f"did_{kind}" for kind in KINDS), "last_kind",
    *(f"contacts_{channel}_{window:.0f}d" for channel in CONTACTED for window in WINDOWS[:2]),
    *(f"opened_{channel}" for channel in CONTACTED),
    "bad_7d", "bad_28d", "days_since_bad", "weekday",
)  # fmt: skip
"""Columns of `features`: counts, money, days since (NaN for never), shares by channel and kind (decayed)."""


@dataclasses.dataclass(frozen=True, eq=False)
class Log:
    """Things that happened, sorted by person and time.

    Attributes:
        person: int64[E], index into `Behaviour.people`.
        at: float64[E], days since 1970.
        channel: int64[E], index in CHANNELS.
        kind: int64[E]; of a visit its place in KINDS, of a contact 1 for opened and 0 for sent, else 0.
        money: float64[E], paid in it.
    """

    person: Ints
    at: Floats
    channel: Ints
    kind: Ints
    money: Floats

    def __len__(self) -> int:
        return len(self.at)

    def before(self, moment: float) -> Log:
        """What happened strictly before a moment."""
        return self.select(self.at < moment)

    def select(self, keep: Flags) -> Log:
        """Some of it."""
        return Log(*(getattr(self, field.name)[keep] for field in dataclasses.fields(self)))


@dataclasses.dataclass(frozen=True, eq=False)
class Behaviour:
    """Everybody with a login.

    Attributes:
        people: str[P], person ids, ascending.
        customers: str[C], logins, ascending.
        person_of: int64[C], index into ``people``.
        age: float64[P], lower end of the age band, NaN where unknown.
        visits: See the head of this module.
        contacts: What was sent and opened.
        bad: Bad moments.
    """

    people: npt.NDArray[np.str_]
    customers: npt.NDArray[np.str_]
    person_of: Ints
    age: Floats
    visits: Log
    contacts: Log
    bad: Log


def known(behaviour: Behaviour, cut: float) -> Flags:
    """bool[P]: who had visited or been contacted before a moment."""
    found = np.zeros(len(behaviour.people), bool)
    for log in (behaviour.visits, behaviour.contacts):
        found[log.person[log.at < cut]] = True
    return found


def features(behaviour: Behaviour, cut: float) -> Floats:
    """float64[P, len(FEATURES)] as of a moment, for everybody (see `known` for whom it says something).

    Args:
        behaviour: Any history; nothing at or after the cut is read.
        cut: Days since 1970.
    """
    size = len(behaviour.people)
    visits, contacts, bad = (log.before(cut) for log in (behaviour.visits, behaviour.contacts, behaviour.bad))

    def total(log: Log, weight: Any = None) -> Floats:
        return np.bincount(log.person, weight, minlength=size).astype(np.float64)

    def since(log: Log, keep: Flags | None = None) -> Floats:
        last = np.full(size, -np.inf)
        chosen = log if keep is None else log.select(keep)
        np.maximum.at(last, chosen.person, chosen.at)
        return np.where(np.isfinite(last), np.minimum(cut - last, FAR), np.nan)

    ago = cut - visits.at
    fade = np.exp2(-ago / HALF)
    bought = visits.kind == KINDS.index("purchase")
    faded = total(visits, fade)
    shares = np.maximum(faded, 1e-9)
    first = np.full(size, np.inf)
    for log in (visits, contacts):
        np.minimum.at(first, log.person, log.at)
    gap_mean, gap_last = _gaps(visits, size)
    columns: dict[str, Floats] = {
        "age": behaviour.age,
        "days_known": np.where(np.isfinite(first), cut - first, np.nan),
        "days_since_visit": since(visits), "days_since_purchase": since(visits, bought),
        "visits": total(visits), "purchases": total(visits, bought), "visits_half": faded,
        "gap_mean": gap_mean, "gap_last": gap_last, "last_kind": _last(visits, size),
        "bad_7d": total(bad, cut - bad.at <= 7), "bad_28d": total(bad, cut - bad.at <= 28),
        "days_since_bad": since(bad), "weekday": np.full(size, np.floor(cut + 3) % 7),
    }  # fmt: skip
    for window in WINDOWS:
        inside = ago <= window
        columns[f"visits_{window:.0f}d"] = total(visits, inside)
        columns[f"purchases_{window:.0f}d"] = total(visits, inside & bought)
        columns[f"spend_{window:.0f}d"] = total(visits, inside * visits.money)
    for place, channel in enumerate(CHANNELS):
        there = visits.channel == place
        columns[f"on_{channel}"] = total(visits, fade * there) / shares
        columns[f"since_{channel}"] = since(visits, there)
    for place, kind in enumerate(KINDS):
        columns[f"did_{kind}"] = total(visits, fade * (visits.kind == place)) / shares
    recent = cut - contacts.at
    for channel in CONTACTED:
        over = contacts.channel == CHANNELS.index(channel)
        sent = over & (contacts.kind == 0)
        for window in WINDOWS[:2]:
            columns[f"contacts_{channel}_{window:.0f}d"] = total(contacts, sent & (recent <= window))
        late = recent <= WINDOWS[-1]
        columns[f"opened_{channel}"] = total(contacts, over & (contacts.kind == 1) & late) / np.maximum(
            total(contacts, sent & late), 1
        )
    return np.column_stack([columns[name] for name in FEATURES])


def _gaps(visits: Log, size: int) -> tuple[Floats, Floats]:
    same = visits.person[1:] == visits.person[:-1]
    gap, owner = np.diff(visits.at)[same], visits.person[1:][same]
    number = np.bincount(owner, minlength=size)
    mean = np.bincount(owner, gap, minlength=size) / np.where(number > 0, number, np.nan)
    last = np.full(size, np.nan)
    last[owner] = gap  # Sorted by time: the latest is written last.
    return mean, last


def _last(visits: Log, size: int) -> Floats:
    found = np.full(size, np.nan)
    found[visits.person] = visits.kind
    return found


def read_behaviour(settings: Settings, threads: int = 1) -> tuple[dict[str, int], Behaviour]:
    """Everybody with a login, from the lake.

    Args:
        settings: The installation; identities, sessions and moments must have been made.
        threads: Of the query.

    Returns:
        Version of each table that was read, and the arrays.

    Raises:
        SnapshotError: A table is missing.
    """
    con = connect(threads=threads)
    lake = settings.lake
    names = ("events", "identity_events", "identity_links", "sessions", "moments", "customers")
    versions = {name: attach(con, name, lake / name, delta_files(lake / name)[0]) for name in names}
    con.execute(
        """create temp table logins as
        select l.value as customer_id, l.person_id, c.age from identity_links l
        left join customers c on c.customer_id = l.value
        where l.kind = 'customer' and l.state = 'linked' and l.person_id is not null;
        create temp table mine as
        select p.person_id, e.occurred_at, e.channel, e.action,
            coalesce(e.quantity, 1) * coalesce(e.unit_price, 0) as money
        from events e join identity_events p using (source, event_id)
        semi join logins on logins.person_id = p.person_id"""
    )
    logins = con.execute(
        "select customer_id, person_id, age from logins order by customer_id, person_id"
    ).fetchnumpy()
    customer = np.asarray(logins["customer_id"]).astype(np.str_)
    people, person_of = np.unique(np.asarray(logins["person_id"]).astype(np.str_), return_inverse=True)
    age = np.full(len(people), np.nan)
    age[person_of] = [_age(band) for band in np.ma.filled(logins["age"], None)]
    acts = ", ".join(f"'{name}'" for name in VISIT_ACTS)
    kinds = " ".join(f"when action in ({_acts(kind)}) then {place}" for place, kind in enumerate(KINDS))
    visits = con.execute(
        f"""select a.person_id as person, epoch_us(min(a.occurred_at)) as us,
            arg_min(a.channel, a.occurred_at) as channel, max(case {kinds} else 0 end) as kind,
            sum(case when action = 'purchase' then money else 0 end)::double as money
        from (select * from mine where action in ({acts})) a asof join sessions s
            on a.person_id = s.person_id and a.occurred_at >= s.started_at
        group by a.person_id, s.started_at order by person, us"""
    ).fetchnumpy()
    contacts = con.execute(
        """select person_id as person, epoch_us(occurred_at) as us, channel, (action = 'open')::int as kind,
            0.0::double as money
        from mine where action in ('impression', 'open') order by person, us"""
    ).fetchnumpy()
    hurt = ", ".join(f"'{kind}'" for kind in BAD)
    bad = con.execute(
        f"""select m.person_id as person, epoch_us(m.occurred_at) as us, m.channel, 0 as kind,
            0.0::double as money
        from moments m semi join logins on logins.person_id = m.person_id where kind in ({hurt})
        order by person, us"""
    ).fetchnumpy()
    return versions, Behaviour(
        people, customer, person_of.astype(np.int64), age,
        *(_log(rows, people) for rows in (visits, contacts, bad)),
    )  # fmt: skip


_ACTS_OF = {
    "add_to_cart": ("add_to_cart", "checkout", "wishlist"),
    "contact_support": ("contact_support", "complaint"),
    "return": ("return",),
    "purchase": ("purchase",),
}


def _acts(kind: str) -> str:
    return ", ".join(f"'{name}'" for name in _ACTS_OF.get(kind, ("view",)))


def _log(rows: dict[str, Any], people: npt.NDArray[np.str_]) -> Log:
    place = {name: number for number, name in enumerate(CHANNELS)}
    person = np.searchsorted(people, np.asarray(rows["person"]).astype(np.str_)).astype(np.int64)
    at = np.asarray(rows["us"], np.int64) / MICROSECONDS_PER_DAY
    channel = np.array([place[name] for name in np.asarray(rows["channel"]).tolist()], np.int64)
    return Log(person, at, channel, np.asarray(rows["kind"], np.int64), np.asarray(rows["money"], np.float64))


def _age(band: str | None) -> float:
    """Lower end of an age band such as ``25-34`` or ``65+``."""
    digits = "" if band is None else band.replace("+", "-").split("-")[0].strip()
    return float(digits) if digits.isdigit() else float("nan")
