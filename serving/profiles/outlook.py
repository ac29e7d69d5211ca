"""What is expected of each customer next and what to do about it, as orchestration last published it.

``outlook.npz`` (no pickles) holds customers U[C] sorted, as_of_us int64, seen_us int64[C], the columns of
`contracts.predictions.PREDICTION_COLUMNS` float32[C] (NaN for nothing), and the names of segments. ``actions.sqlite``
holds one record per customer (`contracts.actions.Action` as JSON). Either may be missing.

Belongs here: finding, checking and looking up. Does not belong here: predicting, deciding.
"""

from __future__ import annotations

import datetime as dt
import math
import pathlib
import sqlite3

import msgspec
import numpy as np
from numpy.typing import NDArray

from contracts.actions import ACTIONS_FILE, Action
from contracts.events import CHANNELS
from contracts.predictions import CONTACT_CHANNELS, PREDICTION_COLUMNS, RFM_SEGMENTS, VISIT_KINDS
from serving.profiles.history import to_moment
from serving.profiles.predictions import PredictionsError
from serving.profiles.published import Published

FILE = "outlook.npz"


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """What is expected of one customer; None where nothing is.

    Attributes:
        segment: By recency, frequency and money.
        behaviour: By behaviour, in words.
        taste: By taste, in words.
        visit_days: Days until a visit is as likely as not.
        visit_soon: Probability of a visit within ``soon_days``.
        soon_days: Horizon of it.
        channel: Where the next visit is most likely, and how likely.
        action: What it is most likely about, and how likely.
        intent: Probability of a purchase as their latest session stood, and when that was.
        uplift: Change of the chance of a visit by a contact, by channel.
        as_of: Moment that all this is expected from.
    """

    segment: str | None
    behaviour: str | None
    taste: str | None
    visit_days: float | None
    visit_soon: float | None
    soon_days: float | None
    channel: tuple[str, float] | None
    action: tuple[str, float] | None
    intent: tuple[float, dt.datetime] | None
    uplift: dict[str, float]
    as_of: dt.datetime

    @property
    def visit_at(self) -> dt.datetime | None:
        """Day by which a visit is as likely as not."""
        return None if self.visit_days is None else self.as_of + dt.timedelta(days=self.visit_days)


class Outlooks:
    """The newest published outlook and actions; read again when a file changes.

    Args:
        folder: Where orchestration publishes, or None for nowhere.
    """

    def __init__(self, folder: pathlib.Path | None) -> None:
        self._folder = folder
        self._table = Published(folder, FILE, _read)

    def of(self, customer_id: str) -> Outlook | None:
        """What is expected of a customer, or None where nothing is.

        Raises:
            PredictionsError: The published file is damaged.
        """
        table = self._table.current()
        return None if table is None else table.of(customer_id)

    def action(self, customer_id: str) -> Action | None:
        """The customer's next best action, or None where none is published.

        Raises:
            PredictionsError: The published file is damaged.
        """
        path = None if self._folder is None else self._folder / ACTIONS_FILE
        if path is None or not path.is_file():
            return None
        try:
            con = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
            try:
                row = con.execute(
                    "select record from actions where customer_id = ?", (customer_id,)
                ).fetchone()
            finally:
                con.close()
            return None if row is None else msgspec.json.decode(row[0], type=Action)
        except (sqlite3.Error, msgspec.ValidationError, msgspec.DecodeError) as error:
            raise PredictionsError(f"{path.name} cannot be used: {error}") from error


class _Table:
    def __init__(self, arrays: dict[str, NDArray[np.generic]]) -> None:
        size = len(arrays["customers"])
        for name in PREDICTION_COLUMNS:
            if arrays[name].shape != (size,) or arrays[name].dtype != np.float32:
                raise ValueError(f"'{name}' is no float32[{size}]")
        if arrays["seen_us"].shape != (size,) or arrays["seen_us"].dtype != np.int64:
            raise ValueError(f"'seen_us' is no int64[{size}]")
        self._customers = arrays["customers"].astype(np.str_)
        self._arrays = arrays
        self._names = {cut: arrays[f"{cut}_names"].astype(np.str_).tolist() for cut in ("behaviour", "taste")}
        self._as_of = to_moment(int(arrays["as_of_us"]))

    def of(self, customer_id: str) -> Outlook | None:
        place = int(np.searchsorted(self._customers, customer_id))
        if place >= len(self._customers) or self._customers[place] != customer_id:
            return None

        def value(name: str) -> float | None:
            found = float(self._arrays[f"p_{name}"][place])
            return found if math.isfinite(found) else None

        def likeliest(kind: str, names: tuple[str, ...]) -> tuple[str, float] | None:
            chances = [(value(f"{kind}_{name}") or 0.0, name) for name in names]
            chance, name = max(chances, key=lambda pair: pair[0])
            return (name, chance) if chance > 0 else None

        def named(cut: str, names: list[str]) -> str | None:
            number = value(cut)
            return names[int(number)] if number is not None and 0 <= int(number) < len(names) else None

        intent, seen = value("intent"), int(self._arrays["seen_us"][place])
        uplift = {name: value(f"uplift_{name}") for name in CONTACT_CHANNELS}
        return Outlook(
            segment=named("rfm", list(RFM_SEGMENTS)),
            behaviour=named("behaviour", self._names["behaviour"]),
            taste=named("taste", self._names["taste"]),
            visit_days=value("visit_days"),
            visit_soon=value("visit_soon"),
            soon_days=value("visit_soon_days"),
            channel=likeliest("channel", CHANNELS),
            action=likeliest("action", VISIT_KINDS),
            intent=None if intent is None or seen < 0 else (intent, to_moment(seen)),
            uplift={name: found for name, found in uplift.items() if found is not None},
            as_of=self._as_of,
        )


def _read(path: pathlib.Path) -> _Table:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return _Table({name: archive[name] for name in archive.files})
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise PredictionsError(f"{path.name} cannot be used: {error}") from error
