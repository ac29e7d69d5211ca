"""The atelier's shoppers: who they are, what they like, what they are known by.

Belongs here: everything about people that the simulation does not change. Does not belong here: their mood,
memory and needs (`state.py`), names on forms (`forms.py`).
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from training.rehearsal import catalogue
from training.rehearsal.catalogue import COLOURS, PATTERNS, TYPES, Catalogue
from training.rehearsal.config import CONTACT_CHANNELS, AtelierConfig
from training.rehearsal.draws import Draws, Floats, Ints

Flags = npt.NDArray[np.bool_]

ARCHETYPES = 48
"""Ways to dress; a person mixes two of them."""

FRIENDS = 4

_LIFT = {
    "email": (0.8, 0.5), "sms": (0.55, 0.7), "push": (0.6, 0.5), "direct_mail": (0.7, 0.5),
    "social": (0.6, 0.4), "search": (0.0, 0.0), "affiliate": (0.05, 0.1), "referral": (0.9, 0.3),
}  # fmt: skip
"""Mean and spread over people of the relative lift of the visit rate by one contact; some are below zero."""

_HALF_YOUNG = {"email": -0.3, "sms": 0.25, "push": 0.3, "direct_mail": -0.4, "social": 0.3}
"""How the lift moves from the oldest to the youngest, which makes it learnable from age."""


@dataclasses.dataclass(frozen=True)
class People:
    """All shoppers as arrays ``[N]``.

    Attributes:
        household: Number of the household.
        size_of_household: How many shoppers live there.
        joined: Day of first interest; 0 for most.
        rate: Sessions per day that the person is inclined to (heavy-tailed).
        age: Years.
        price_level: Log of liked price over the typical one.
        thrift: How strongly a high price deters.
        archetype: int64[N, 2] and ``mixture`` float64[N], weight of the first.
        size: int64[N, 2], size index for garments and for shoes.
        home_store: Store they go to.
        channel: float64[N, 4], inclination to web, app, store, marketplace.
        account: Has or will open a login; ``card``: loyalty card; ``app``; ``second_email``.
        opted: bool[N, contact channels].
        lift: float64[N, contact channels], relative lift of one contact.
        decisive: How quickly wanting to know becomes wanting to buy.
        complains: Inclination to contact support.
        budget: Money for clothes per month.
        shared_device: The household has a device for all (on its members); ``shared_card`` likewise.
        friends: int64[N, FRIENDS].
    """

    household: Ints
    size_of_household: Ints
    joined: Ints
    rate: Floats
    age: Ints
    price_level: Floats
    thrift: Floats
    archetype: Ints
    mixture: Floats
    size: Ints
    home_store: Ints
    channel: Floats
    account: Flags
    card: Flags
    app: Flags
    second_email: Flags
    opted: Flags
    lift: Floats
    decisive: Floats
    complains: Floats
    budget: Floats
    shared_device: Flags
    shared_card: Flags
    friends: Ints

    def __len__(self) -> int:
        return len(self.rate)


@dataclasses.dataclass(frozen=True)
class Style:
    """What each archetype likes: weights that multiply into a product's attraction.

    Attributes:
        types: float64[A, T]; ``colours`` float64[A, C]; ``patterns`` float64[A, Pn]; each row sums to 1.
        level: float64[A], liked log price over typical.
    """

    types: Floats
    colours: Floats
    patterns: Floats
    level: Floats


def build(config: AtelierConfig) -> People:
    """Draw the population of a shop."""
    draws = Draws(config.seed, -1)
    number = np.arange(config.shoppers)
    household, members = _households(config, draws, number)
    home = household  # what a household shares is keyed by its number
    age = 16 + draws.below("age", number, 60)
    young = (46 - age) / 30
    level = 0.25 * draws.normal("price level", number)
    base = np.array([0.5, 0.42, 0.24, 0.04])
    inclination = base * np.exp(0.8 * draws.normal("channel", number[:, None] * 4 + np.arange(4)))
    inclination[:, 1] *= np.exp(0.5 * young)
    inclination[:, 2] *= np.exp(-0.4 * young)
    app = draws.uniform("app", number) < config.app_share * (1 + 0.4 * young)
    inclination[~app, 1] = 0
    account = draws.uniform("account", number) < config.account_share
    account |= app & (draws.uniform("app account", number) < 0.9)
    card = draws.uniform("card", number) < config.card_share
    several = members > 1
    joined = draws.below("joined", number, config.days)
    joined[draws.uniform("new", number) < 0.7] = 0
    return People(
        household=household, size_of_household=members, joined=joined,
        rate=0.042 * np.exp(0.95 * draws.normal("rate", number)),
        age=age, price_level=level, thrift=np.exp(0.4 * draws.normal("thrift", number)),
        archetype=draws.below("archetype", number[:, None] * 2 + np.arange(2), ARCHETYPES),
        mixture=0.6 + 0.35 * draws.uniform("mixture", number),
        size=draws.choice("size", np.repeat(number * 2, 2) + np.tile([0, 1], len(number)),
                          [0.08, 0.24, 0.3, 0.22, 0.11, 0.05]).reshape(-1, 2),
        home_store=draws.below("home store", home, config.stores),
        channel=inclination / inclination.sum(axis=1, keepdims=True),
        account=account, card=card, app=app,
        second_email=draws.uniform("second email", number) < config.second_email_share,
        opted=_consent(draws, number, account, app), lift=_lifts(draws, number, young),
        decisive=np.exp(0.45 * draws.normal("decisive", number)),
        complains=np.exp(0.6 * draws.normal("complains", number)),
        budget=60 * np.exp(0.7 * draws.normal("budget", number) + 0.8 * level),
        shared_device=several & (draws.uniform("shared device", home) < config.shared_device_share),
        shared_card=several & (draws.uniform("shared card", home) < config.shared_card_share),
        friends=_friends(draws, number, household, members),
    )  # fmt: skip


def styles(config: AtelierConfig) -> Style:
    """Draw the archetypes."""
    draws = Draws(config.seed, -3)

    def rows(purpose: str, width: int, spread: float, base: Floats | None = None) -> Floats:
        keys = np.arange(ARCHETYPES)[:, None] * 64 + np.arange(width)
        weights = np.exp(spread * draws.normal(purpose, keys)) * (1 if base is None else base)
        return weights / weights.sum(axis=1, keepdims=True)

    demand = np.array([row[6] for row in catalogue._KINDS])
    return Style(
        types=rows("types", len(TYPES), 0.9, demand),
        colours=rows("colours", len(COLOURS), 1.1),
        patterns=rows("patterns", len(PATTERNS), 0.9),
        level=0.25 * draws.normal("level", np.arange(ARCHETYPES)),
    )


def attraction(style: Style, shop: Catalogue, season: Floats) -> tuple[Floats, Floats]:
    """Cumulative choice probabilities over all products for every archetype.

    Returns:
        ``flat`` float64[A * P], non-decreasing, archetype a's part in (a, a + 1]; and ``edges``
        float64[A, T + 1], where each type begins in it.
    """
    colour = style.colours[:, shop.colour] * len(COLOURS)
    pattern = style.patterns[:, shop.pattern] * len(PATTERNS)
    level = np.log(shop.base_price / typical_price(shop))
    liked = np.exp(-1.2 * (level[None, :] - style.level[:, None]) ** 2)
    weight = style.types[:, shop.kind] * shop.appeal * season * colour * pattern * liked + 1e-12
    cumulative = np.cumsum(weight, axis=1)
    cumulative /= cumulative[:, -1:]
    shifted = cumulative + np.arange(ARCHETYPES)[:, None]
    begin = np.concatenate([np.arange(ARCHETYPES)[:, None], shifted], axis=1)
    return shifted.ravel(), begin[:, shop.first_of]


def typical_price(shop: Catalogue) -> Floats:
    """Typical price of each product's type."""
    return np.array([row[3] for row in catalogue._KINDS])[shop.kind]


def _households(config: AtelierConfig, draws: Draws, number: Ints) -> tuple[Ints, Ints]:
    # A person lives with someone if they joined the one before or the next joined them.
    joins = draws.uniform("household", number) < 1 - np.sqrt(1 - config.household_share)
    joins[0] = False
    household = np.cumsum(~joins) - 1
    # A person who joins lives with the one before; runs longer than four are rare and real.
    return household, np.bincount(household)[household]


def _consent(draws: Draws, number: Ints, account: Flags, app: Flags) -> Flags:
    share = {"email": 0.62, "sms": 0.3, "push": 0.55, "direct_mail": 0.5}
    opted = np.ones((len(number), len(CONTACT_CHANNELS)), bool)
    for index, channel in enumerate(CONTACT_CHANNELS):
        if channel in share:
            reachable = app if channel == "push" else account
            opted[:, index] = reachable & (draws.uniform(f"opt {channel}", number) < share[channel])
    return opted


def _lifts(draws: Draws, number: Ints, young: Floats) -> Floats:
    columns = []
    for channel in CONTACT_CHANNELS:
        mean, spread = _LIFT[channel]
        own = mean + spread * draws.normal(f"lift {channel}", number) + _HALF_YOUNG.get(channel, 0.0) * young
        columns.append(np.clip(own, -0.5, 2.5))
    return np.stack(columns, axis=1)


def _friends(draws: Draws, number: Ints, household: Ints, members: Ints) -> Ints:
    total = len(number)
    # Circles: most friends live within a ring of forty, some anywhere (small world, Watts and Strogatz 1998).
    keys = number[:, None] * FRIENDS + np.arange(FRIENDS)
    near = (number[:, None] // 40) * 40 + draws.below("circle", keys, 40)
    far = draws.below("anywhere", keys, total)
    friends = np.where(draws.uniform("far friend", keys) < 0.2, far, near) % total
    return np.where(friends == number[:, None], (friends + 1) % total, friends)
