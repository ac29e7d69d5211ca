"""A shop's contact trials as rows to learn from: who, what was known of them, whether contacted, what followed.

The outcome of a contact is a visit within a few days after it (`behaviour.VISIT_ACTS`, not on a help channel). What was
known is cut at the UTC day's beginning, hours before anything was sent.

Belongs here: lake -> rows. Does not belong here: learners (`uplift.py`), training (`train_contacts.py`).
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from contracts.events import CHANNELS
from contracts.features import MICROSECONDS_PER_DAY
from contracts.settings import Settings
from feature_repo.snapshots import SnapshotError, attach, connect
from training.relationship.behaviour import HELP, Behaviour, features

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True, eq=False)
class Trials:
    """Contacts given or withheld at random, over one channel, in order of time.

    Attributes:
        person: int64[M], index into the behaviour's people.
        at: float64[M], days since 1970 of the sending (of those held out: when it would have been).
        treated: bool[M].
        X: float64[M, F], `behaviour.FEATURES` before the day of sending.
        outcome: float64[M], 1 for a visit within the days after.
    """

    person: Ints
    at: Floats
    treated: Flags
    X: Floats
    outcome: Floats

    def __len__(self) -> int:
        return len(self.at)

    def select(self, keep: Flags) -> Trials:
        """Some of them."""
        return Trials(*(getattr(self, field.name)[keep] for field in dataclasses.fields(self)))


def read_trials(
    settings: Settings, behaviour: Behaviour, until: float, days: float, threads: int = 1
) -> tuple[int, dict[str, Trials]]:
    """The lake's trials by channel, those whose outcome is known by a moment.

    Args:
        settings: The installation.
        behaviour: Everybody.
        until: Days since 1970; a trial sent less than ``days`` before it is left out.
        days: After the contact.
        threads: Of the query.

    Returns:
        Version of the table (-1 where there is none), and the trials; empty where the shop has none.
    """
    con = connect(threads=threads)
    try:
        version = attach(con, "trials", settings.lake / "trials")
    except SnapshotError:
        return -1, {}
    rows = con.execute(
        "select customer_id, channel, epoch_us(sent_at) as us, treated from trials order by us, customer_id"
    ).fetchnumpy()
    at = np.asarray(rows["us"], np.int64) / MICROSECONDS_PER_DAY
    customer = np.asarray(rows["customer_id"]).astype(np.str_)
    place = np.searchsorted(behaviour.customers, customer)
    known = np.zeros(len(at), bool)
    inside = place < len(behaviour.customers)
    known[inside] = behaviour.customers[place[inside]] == customer[inside]
    keep = known & (at + days <= until)
    at, person = at[keep], behaviour.person_of[place[keep]]
    channel, treated = np.asarray(rows["channel"])[keep], np.asarray(rows["treated"], bool)[keep]
    X = np.empty((len(at), features(behaviour, -1e9).shape[1]), np.float32)
    day = np.floor(at)
    for cut in np.unique(day):
        then = day == cut
        X[then] = features(behaviour, float(cut))[person[then]]
    outcome = visited(behaviour, person, at, days).astype(np.float64)
    found = {}
    for name in sorted(set(channel.tolist())):
        mine = channel == name
        found[str(name)] = Trials(
            person[mine], at[mine], treated[mine], X[mine].astype(np.float64), outcome[mine]
        )
    return version, found


def visited(behaviour: Behaviour, person: Ints, at: Floats, days: float) -> Flags:
    """bool[M]: whether a person visits within so many days after a moment (help channels do not count)."""
    visits = behaviour.visits
    shops = visits.select(~np.isin(visits.channel, [CHANNELS.index(name) for name in HELP]))
    # Person and time as one ascending number: times are below 1e6 days, far below the step between people.
    key = shops.person * 1e7 + shops.at
    start, stop = (np.searchsorted(key, person * 1e7 + moment, side="right") for moment in (at, at + days))
    return stop > start
