"""Everything a simulated day works on, in one place.

Belongs here: the shared objects and the few questions that every kind of session asks. Does not belong
here: sessions themselves.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from training.rehearsal import catalogue, people, state
from training.rehearsal.aftermath import Orders
from training.rehearsal.catalogue import Catalogue
from training.rehearsal.config import CONTACT_CHANNELS, AtelierConfig
from training.rehearsal.draws import Draws, Floats, Ints
from training.rehearsal.log import Log
from training.rehearsal.people import People, Style
from training.rehearsal.state import State


@dataclasses.dataclass
class Outages:
    """Times at which sizes were out of stock, seen once a day at closing time.

    Attributes:
        since: Day from which a (product, size) is missing.
        closed: Rows of product, size, first day, day of return.
    """

    since: dict[tuple[int, int], int] = dataclasses.field(default_factory=dict)
    closed: list[tuple[int, int, int, int]] = dataclasses.field(default_factory=list)

    def look(self, shop: Catalogue, day: int) -> None:
        """Note what is missing at the end of a day."""
        missing = {(int(p), int(s)) for p, s in zip(*np.nonzero(catalogue.shelf(shop)), strict=True)}
        for key in [key for key in self.since if key not in missing]:
            self.closed.append((*key, self.since.pop(key), day))
        for key in missing - self.since.keys():
            self.since[key] = day


@dataclasses.dataclass
class World:
    """The shop, its people and what was written so far.

    Attributes:
        config: What was asked for.
        people: The population.
        style: Archetypes.
        shop: Products, shelves, prices.
        state: What changes about people.
        log: Events.
        orders: Parcels under way and what follows from them.
        typical: float64[P], typical price of each product's type.
        day: Number of the day.
        hidden: Pairs of session numbers and moment that left no trace.
        prevented: float64[contact channels, 3], visits, purchased lines and revenue that a channel's contacts
            prevented by putting people off.
        needs: What people wanted, one dict of arrays per part of a day.
        campaigns: What was sent to whom, one dict per campaign.
        outages: When which size was out of stock.
        wish: float64[N, T], what a person's next need will be about (not normalised).
    """

    config: AtelierConfig
    people: People
    style: Style
    shop: Catalogue
    state: State
    log: Log
    orders: Orders
    typical: Floats
    day: int = 0
    hidden: list[tuple[Ints, int]] = dataclasses.field(default_factory=list)
    prevented: Floats = dataclasses.field(default_factory=lambda: np.zeros((len(CONTACT_CHANNELS), 3)))
    needs: list[dict[str, npt.NDArray[Any]]] = dataclasses.field(default_factory=list)
    campaigns: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    outages: Outages = dataclasses.field(default_factory=lambda: Outages())
    wish: Floats = dataclasses.field(default_factory=lambda: np.empty((0, 0)))
    _flat: Floats = dataclasses.field(default_factory=lambda: np.empty(0))
    _edges: Floats = dataclasses.field(default_factory=lambda: np.empty((0, 0)))

    def turn_season(self, day_of_year: int) -> None:
        """Recompute what attracts whom; once a week is enough."""
        season = catalogue.season_weight(self.shop, day_of_year)
        self._flat, self._edges = people.attraction(self.style, self.shop, season)
        by_type = season[np.minimum(self.shop.first_of[:-1], len(self.shop) - 1)]
        mixture = self.people.mixture[:, None]
        first, second = (self.style.types[self.people.archetype[:, column]] for column in (0, 1))
        self.wish = (mixture * first + (1 - mixture) * second) * by_type

    def choose(self, draws: Draws, key: Ints, who: Ints, kind: Ints) -> Ints:
        """One product for each key, by the person's taste.

        Args:
            draws: Of the day.
            key: int64[E], keys of the draws.
            who: int64[E], persons.
            kind: int64[E], product type to choose from, or -1 for any.
        """
        first = draws.uniform("which style", key) < self.people.mixture[who]
        style = self.people.archetype[who, np.where(first, 0, 1)]
        any_ = kind < 0
        low = np.where(any_, style, self._edges[style, np.maximum(kind, 0)])
        high = np.where(any_, style + 1.0, self._edges[style, np.maximum(kind, 0) + 1])
        at = low + draws.uniform("which product", key) * (high - low)
        found = np.searchsorted(self._flat, at, side="right") - style * len(self.shop)
        least = np.where(any_, 0, self.shop.first_of[np.maximum(kind, 0)])
        most = np.where(any_, len(self.shop), self.shop.first_of[np.maximum(kind, 0) + 1]) - 1
        return np.clip(found, least, most)

    def size_of(self, who: Ints, product: Ints) -> Ints:
        """Size index that each person takes of each product."""
        system = _SYSTEM[self.shop.kind[product]]
        return np.where(system == 2, 0, self.people.size[who, np.minimum(system, 1)])

    def sell(self, who: Ints, product: Ints, quantity: Ints, paid: Floats) -> None:
        """Take pieces off the shelves and money out of budgets."""
        np.subtract.at(self.shop.stock, (product, self.size_of(who, product)), quantity)
        np.maximum(self.shop.stock, 0, out=self.shop.stock)
        np.subtract.at(self.state.budget, who, quantity * paid)

    def redeems(self, draws: Draws, key: Ints, who: Ints, product: Ints) -> npt.NDArray[np.bool_]:
        """Which bought products are paid with a coupon; key: int64[E], keys of the sessions' draws."""
        good = (self.state.coupon_until[who] >= self.day) & (
            self.state.coupon_kind[who] == self.shop.kind[product]
        )
        return good & (draws.uniform("redeem", key) < 0.7)

    def hide(self, session: Ints, moment: int) -> None:
        """Note a moment that happened in these sessions and left no trace."""
        if len(session):
            self.hidden.append((session, moment))

    def session_number(self, who: Ints, part: npt.ArrayLike) -> Ints:
        """Number of a session: a person has at most one per part of the day."""
        return (np.int64(self.day) * 8 + np.asarray(part)) * len(self.people) + who


_SYSTEM = np.array([{"letters": 0, "shoes": 1, "one": 2}[system] for system in catalogue.size_systems()])


def create(config: AtelierConfig) -> World:
    """The world before its first day."""
    shop = catalogue.build(config)
    population = people.build(config)
    return World(
        config=config,
        people=population,
        style=people.styles(config),
        shop=shop,
        state=state.begin(population, Draws(config.seed, -4)),
        log=Log(),
        orders=Orders(config),
        typical=people.typical_price(shop),
    )
