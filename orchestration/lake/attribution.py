"""What each channel is credited with, by six methods over the same paths.

A path is what touched a person before a conversion or before they went quiet. Every method hands out the
conversions exactly: its credits sum to their number (or to their value).

* first touch, last touch, linear: the customs of the trade.
* Markov removal effect (Anderl et al. 2016, "Mapping the customer journey", IJRM 33(3)), order 1 to 3: paths are
  walks of a chain from a start to conversion or loss whose state is the last k touches. The removal effect of
  a channel is the share of conversions lost when every state that ends in it leads to loss. In closed form:
  with Q the moves between states, r the moves to conversion and s the start, P = s (I - Q)^-1 r, and for a
  channel c the same with c's states cut out. Credits are removal effects, normalised to the conversions.
* Shapley value over the channels that a path holds: the worth of a set is the conversions of the paths whose
  channels lie inside it. That game is a sum of unanimity games, so its exact value divides each path's
  conversions evenly among its distinct channels (Shapley 1953), for any number of channels.
  `shapley_of` gives the value of any other game, exactly, up to `MOST_PLAYERS` channels.

None of these is causal. `distance` tells how far credits lie from causal shares where an experiment or a
simulator knows them.

Belongs here: paths, credits, distance. Does not belong here: effects of contacts (`training/relationship`).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from feature_repo.snapshots import connect, quoted

ORDERS = (1, 2, 3)
MOST_PLAYERS = 16

TOUCHES: tuple[str, ...] = ("impression", "open", "click")
"""Actions by which a channel reaches a person or brings them; a visit follows from a touch and is none."""

State = tuple[str, ...]


class AttributionError(ValueError):
    """Paths that cannot be credited; the message names what was found and what was expected."""


@dataclasses.dataclass(frozen=True)
class Path:
    """Equal walks through the channels.

    Attributes:
        channels: Touches, earliest first; at least one.
        conversions: How many of the walks ended in a conversion.
        losses: How many did not.
    """

    channels: tuple[str, ...]
    conversions: float
    losses: float = 0.0

    def __post_init__(self) -> None:
        if not self.channels:
            raise AttributionError("a path has no channel; expected at least one touch")
        for name in ("conversions", "losses"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise AttributionError(f"a path has {name} {value}; expected a finite number of at least 0")


Credits = dict[str, float]


def first_touch(paths: Sequence[Path]) -> Credits:
    """All credit to the first channel."""
    return _shared(paths, lambda path: {path.channels[0]: 1.0})


def last_touch(paths: Sequence[Path]) -> Credits:
    """All credit to the last channel."""
    return _shared(paths, lambda path: {path.channels[-1]: 1.0})


def linear(paths: Sequence[Path]) -> Credits:
    """Equal credit to every touch."""
    return _shared(
        paths, lambda path: {c: path.channels.count(c) / len(path.channels) for c in path.channels}
    )


def shapley(paths: Sequence[Path]) -> Credits:
    """Exact Shapley value over the channel sets of the paths; see the module's text."""
    return _shared(paths, lambda path: {c: 1 / len(set(path.channels)) for c in path.channels})


def shapley_of(players: Sequence[str], worth: Callable[[frozenset[str]], float]) -> Credits:
    """Exact Shapley value of any game, by its definition over all sets.

    Args:
        players: At most `MOST_PLAYERS` different names.
        worth: What a set of players achieves.

    Raises:
        AttributionError: Too many players (the work doubles with each) or one twice.
    """
    count = len(players)
    if count > MOST_PLAYERS or len(set(players)) < count:
        raise AttributionError(f"{count} players; expected at most {MOST_PLAYERS} different ones")
    values = np.array(
        [worth(frozenset(p for i, p in enumerate(players) if mask >> i & 1)) for mask in range(1 << count)]
    )
    masks = np.arange(1 << count)
    size = np.bitwise_count(masks)
    weight = np.array(
        [math.factorial(n) * math.factorial(count - n - 1) / math.factorial(count) for n in range(count)]
    )
    answer = {}
    for place, player in enumerate(players):
        without = masks[(masks >> place & 1) == 0]
        answer[player] = float(weight[size[without]] @ (values[without | 1 << place] - values[without]))
    return answer


def conversions_within(paths: Sequence[Path]) -> Callable[[frozenset[str]], float]:
    """The game that `shapley` solves: conversions of the paths that need no channel outside a set."""
    sets = [(frozenset(path.channels), path.conversions) for path in paths]
    return lambda chosen: sum(conversions for need, conversions in sets if need <= chosen)


def removal_effects(paths: Sequence[Path], order: int = 1) -> Credits:
    """Share of conversions that the chain loses without a channel, by channel.

    Args:
        paths: With conversions and losses.
        order: How many last touches make a state.

    Raises:
        AttributionError: Order outside 1 to 3 or no path.
    """
    if order not in ORDERS:
        raise AttributionError(f"order is {order}; expected 1, 2 or 3")
    states, moves, ends, start = _chain(paths, order)
    whole = _converts(moves, ends, start)
    effects: Credits = {}
    for channel in _channels(paths):
        kept = np.array([state[-1] != channel for state in states], bool)
        left = _converts(moves[np.ix_(kept, kept)], ends[kept], start[kept])
        effects[channel] = 1 - left / whole if whole > 0 else 0.0
    return effects


def markov(paths: Sequence[Path], order: int = 1) -> Credits:
    """Removal effects, normalised to the number of conversions.

    Raises:
        AttributionError: As `removal_effects`.
    """
    effects = removal_effects(paths, order)
    total, conversions = sum(effects.values()), sum(path.conversions for path in paths)
    return {name: conversions * effect / total if total > 0 else 0.0 for name, effect in effects.items()}


METHODS: dict[str, Callable[[Sequence[Path]], Credits]] = {
    "last_touch": last_touch,
    "first_touch": first_touch,
    "linear": linear,
    "shapley": shapley,
    "markov_1": lambda paths: markov(paths, 1),
    "markov_2": lambda paths: markov(paths, 2),
    "markov_3": lambda paths: markov(paths, 3),
}
"""All methods by name."""


def attribute(paths: Sequence[Path]) -> dict[str, Credits]:
    """Credits by method and channel, channels in order of name.

    Raises:
        AttributionError: There is no path.
    """
    if not paths:
        raise AttributionError("there are no paths; expected at least one")
    names = _channels(paths)
    answers = {method: function(paths) for method, function in METHODS.items()}
    return {method: {name: credit.get(name, 0.0) for name in names} for method, credit in answers.items()}


def distance(credit: Mapping[str, float], causal: Mapping[str, float]) -> float:
    """Total variation between shares of credit and shares of causal effect, from 0 (equal) to 1.

    Both are normalised over the channels whose causal effect is known; negative effects count as none.

    Raises:
        AttributionError: Nothing is credited to those channels, or no effect is known.
    """
    names = sorted(causal)
    given = np.array([max(credit.get(name, 0.0), 0.0) for name in names])
    true = np.array([max(causal[name], 0.0) for name in names])
    if given.sum() <= 0 or true.sum() <= 0:
        raise AttributionError("credits or effects sum to 0 over the known channels; expected more than 0")
    return float(np.abs(given / given.sum() - true / true.sum()).sum() / 2)


def paths_of(
    events: pa.Table,
    person: str = "customer_id",
    touches: Sequence[str] = TOUCHES,
    lookback_days: int = 30,
    quiet_days: int = 30,
) -> list[Path]:
    """Paths of a table of events.

    A touch is an event of one of the given actions; touches of one channel in a row count once. All lines
    bought in one instant are one conversion. A path holds the touches since the person's conversion before,
    at most `lookback_days` old; a purchase without any has the path of its own channel. What follows the last
    conversion is lost once `quiet_days` have passed without one, and left out while it is still open.

    Args:
        events: With person, occurred_at, source, event_id, channel and action.
        person: Column of the person's id; rows where it is null have no path.
        touches: Actions that count as touches.
        lookback_days: Oldest touch that may have mattered.
        quiet_days: When a walk counts as lost.
    """
    con = connect()
    try:
        con.register("events", events)
        con.execute("create temp table wanted as select unnest(?::varchar[]) as action", [list(touches)])
        rows = con.sql(_paths_sql(person, lookback_days, quiet_days)).fetchall()
    finally:
        con.close()
    return [Path(tuple(channels), float(won), float(lost)) for channels, won, lost in rows]


def _paths_sql(person: str, lookback_days: int, quiet_days: int) -> str:
    """Distinct paths with counts: conversions cut each person's rows, touches between are folded to runs."""
    return f"""
        with rows as (
            select {quoted(person)} as who, occurred_at as moment, source, event_id, channel, action = 'purchase' as buys
            from events
            where {quoted(person)} is not null and (action = 'purchase' or action in (select action from wanted))
        ), bought as (
            select who, moment as ends, first(channel order by source, event_id) as till
            from rows where buys group by who, moment
        ), touched as (
            select t.who, t.moment, t.source, t.event_id, t.channel, b.ends
            from (select * from rows where not buys) t asof left join bought b on t.who = b.who and t.moment <= b.ends
        ), near as (
            select * from touched where ends is null or moment >= ends - interval {int(lookback_days)} day
        ), runs as (
            select *, lag(channel) over (partition by who, ends order by moment, source, event_id) as before from near
        ), won as (
            select b.who, b.ends, coalesce(
                list(r.channel order by r.moment, r.source, r.event_id) filter (r.channel is not null), [any_value(b.till)]
            ) as channels
            from bought b left join
                (select * from runs where before is null or before <> channel) r
                on r.who = b.who and r.ends = b.ends
            group by b.who, b.ends
        ), lost as (
            select who, list(channel order by moment, source, event_id) filter (before is null or before <> channel)
                as channels
            from runs where ends is null group by who
            having max(moment) < (select max(occurred_at) from events) - interval {int(quiet_days)} day
        )
        select channels, sum(won)::double, sum(lost)::double from (
            select channels, 1 as won, 0 as lost from won union all select channels, 0, 1 from lost
        ) group by channels order by channels
    """


def _shared(paths: Sequence[Path], shares: Callable[[Path], Credits]) -> Credits:
    answer = dict.fromkeys(_channels(paths), 0.0)
    for path in paths:
        for channel, share in shares(path).items():
            answer[channel] += share * path.conversions
    return answer


def _channels(paths: Sequence[Path]) -> list[str]:
    return sorted({channel for path in paths for channel in path.channels})


def _chain(
    paths: Sequence[Path], order: int
) -> tuple[list[State], npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """States, moves between them ``(S, S)``, to conversion ``(S,)`` and from the start ``(S,)``."""
    if not paths:
        raise AttributionError("there are no paths; expected at least one")
    walks = [
        ([path.channels[max(0, i + 1 - order) : i + 1] for i in range(len(path.channels))], path)
        for path in paths
    ]
    states = sorted({state for walk, _ in walks for state in walk})
    index = {state: place for place, state in enumerate(states)}
    moves, ends = np.zeros((len(states), len(states))), np.zeros(len(states))
    start, out = np.zeros(len(states)), np.zeros(len(states))
    for walk, path in walks:
        weight = path.conversions + path.losses
        places = [index[state] for state in walk]
        start[places[0]] += weight
        for here, there in itertools.pairwise(places):
            moves[here, there] += weight
            out[here] += weight
        ends[places[-1]] += path.conversions
        out[places[-1]] += weight
    out = np.where(out > 0, out, 1.0)
    return states, moves / out[:, None], ends / out, start / max(start.sum(), 1e-300)


def _converts(
    moves: npt.NDArray[np.float64], ends: npt.NDArray[np.float64], start: npt.NDArray[np.float64]
) -> float:
    """Probability of conversion: start times the fundamental matrix times the moves to conversion."""
    if not len(ends):
        return 0.0
    return float(start @ np.linalg.solve(np.eye(len(ends)) - moves, ends))
