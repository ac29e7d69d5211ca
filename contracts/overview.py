"""What people see of a shop's continuum at a glance: numbers that orchestration publishes and pages show.

Belongs here: the types. Does not belong here: how the numbers come about (`orchestration/lake`), and how
they are drawn (`serving/pages`).
"""

from __future__ import annotations

import datetime as dt

import msgspec

OVERVIEW_FILE = "overview.json"
"""Name inside ``Settings.overview``; replaced as a whole."""


class Kpi(msgspec.Struct, frozen=True, kw_only=True):
    """One number of the shop.

    Attributes:
        name: Standard term, for example ``conversion``.
        value: The number.
        unit: ``share``, ``count``, ``days``, ``hours`` or a currency.
        about: How it is defined, in one sentence.
    """

    name: str
    value: float
    unit: str
    about: str


class Transition(msgspec.Struct, frozen=True, kw_only=True):
    """How often one channel followed another in the life of one person.

    Attributes:
        source: Channel of the earlier visit, or ``start``.
        target: Channel of the next visit, or ``purchase``.
        count: How often.
    """

    source: str
    target: str
    count: int


class Journeys(msgspec.Struct, frozen=True, kw_only=True):
    """How people move over channels.

    Attributes:
        transitions: The channel graph.
        path_entropy: Bits of uncertainty about the path that leads to a purchase.
        paths: How many different paths led to purchases.
        commonest_path: The one that most purchases followed.
        commonest_share: The share of purchases that did.
        hours_between: Median hours between two visits of one person.
    """

    transitions: tuple[Transition, ...]
    path_entropy: float
    paths: int
    commonest_path: tuple[str, ...]
    commonest_share: float
    hours_between: float | None


class MomentDay(msgspec.Struct, frozen=True, kw_only=True):
    """Moments of one kind on one day.

    Attributes:
        day: UTC day.
        moment: Kind (`contracts.events.MOMENTS`).
        count: How many.
    """

    day: dt.date
    moment: str
    count: int


class MomentKind(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the moments of one kind.

    Attributes:
        moment: Kind.
        bad: True where it speaks against the shop.
        count: How many.
        people: How many people met it.
        recovered: Share of people who bought again afterwards, for bad ones.
        hours_to_recovery: Median hours until they did.
    """

    moment: str
    bad: bool
    count: int
    people: int
    recovered: float | None = None
    hours_to_recovery: float | None = None


class Credit(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the conversions one method gives one channel.

    Attributes:
        method: Attribution method, or ``causal effect``.
        channel: Channel.
        share: Share of conversions, 0 to 1.
    """

    method: str
    channel: str
    share: float


class Contribution(msgspec.Struct, frozen=True, kw_only=True):
    """What a channel or a department contributes to the shop's revenue.

    Attributes:
        by: ``channel`` or ``department``.
        name: Which.
        share: Share of revenue.
        revenue: Money.
    """

    by: str
    name: str
    share: float
    revenue: float


class Follow(msgspec.Struct, frozen=True, kw_only=True):
    """What comes next in the life of people who met a moment.

    Attributes:
        moment: The earlier.
        next: The same person's next.
        count: How often.
        share: Of everything that follows `moment`, 0 to 1.
        hours: Median time between them.
    """

    moment: str
    next: str
    count: int
    share: float
    hours: float


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What contacts over one channel caused, by trials that held some people out at random.

    Attributes:
        channel: Of the contacts.
        effect: Orders that one contact caused, contacted less held out.
        low: Lower end of its 95 % interval.
        high: Upper end.
        contacted: People who were.
        held_out: People who were not.
        days: After the contact, in which orders count.
    """

    channel: str
    effect: float
    low: float
    high: float
    contacted: int
    held_out: int
    days: int


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """A group of customers who are alike.

    Attributes:
        name: In plain words.
        about: What sets it apart; empty where the name says it.
        customers: How many.
        spend: Mean spend of one of them, or None where it was not counted.
        cut: By what people were told apart.
    """

    name: str
    about: str
    customers: int
    spend: float | None = None
    cut: str = "recency, frequency and money"


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """A shop at a glance.

    Attributes:
        retailer: Shop.
        simulated: True where shoppers are simulated.
        made_at: When the numbers were made.
        first_day: First UTC day they cover.
        last_day: Last UTC day they cover.
        events: How many events.
        people: How many persons.
        kpis: Numbers of the shop.
        journeys: How people move; None where there are no visits.
        moment_days: Moments over time.
        moments: Moments by kind, the worst first.
        credits: Attribution by method and channel.
        contributions: Revenue by channel and by department, over the days of the KPIs.
        segments: Groups of customers.
        trials: What contacts cause, by channel; the surest effect first.
        follows: What most often comes after each bad moment, in the order of `moments`.
    """

    retailer: str
    simulated: bool
    made_at: dt.datetime
    first_day: dt.date
    last_day: dt.date
    events: int
    people: int
    kpis: tuple[Kpi, ...] = ()
    journeys: Journeys | None = None
    moment_days: tuple[MomentDay, ...] = ()
    moments: tuple[MomentKind, ...] = ()
    credits: tuple[Credit, ...] = ()
    contributions: tuple[Contribution, ...] = ()
    segments: tuple[Segment, ...] = ()
    trials: tuple[Trial, ...] = ()
    follows: tuple[Follow, ...] = ()
