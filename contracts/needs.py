"""What a person needs right now: the open need behind the session that is under way, with its probability.

`need_features` turns a stream into one row per act, from what the person did up to and including that act
(never later): counts in the session, words that ask for a place or a way, how it began, and what is left of
the wants and purchases of earlier sessions. `needs` applies a softmax model of a few dozen coefficients to
it. Lake and server call the same two functions; the coefficients (`NeedModel`) are fitted by
`orchestration/lake/needs.py` and travel as JSON.

Belongs here: features and arithmetic of the need model. Does not belong here: fitting, single moments
(`contracts/moments.py`).
"""

from __future__ import annotations

from typing import Any

import msgspec

from contracts.moments import SEARCHES, WANTS, MomentRules, wants
from contracts.sessions import ACTION, CHANNEL, Array, Sessions, Stream, is_any, sessions, text_key

NEEDS: tuple[str, ...] = WANTS
"""The needs that are told apart, in the model's order."""

GO_WORDS: tuple[str, ...] = (
    "store",
    "shop",
    "near",
    "nearest",
    "opening",
    "hours",
    "open",
    "directions",
    "address",
)
DO_WORDS: tuple[str, ...] = ("how", "style", "wash", "care", "wear", "combine", "ideas", "guide")
KNOW_WORDS: tuple[str, ...] = ("review", "reviews", "best", "versus", "vs", "size", "fit", "material")
HALF_LIVES_DAYS: tuple[float, ...] = (2.0, 14.0)
"""How fast wants of earlier sessions fade."""

FAR_DAYS = 60.0

FEATURES: tuple[str, ...] = (
    "acts", "minutes", "views", "plain_views", "distinct_views", "know_pages", "go_pages", "do_pages", "searches",
    "failed", "go_words", "do_words", "know_words", "carts", "removed", "wishes", "checkouts", "purchases", "errors",
    "stockouts", "last_view", "last_search", "last_cart", "any_know", "any_go", "any_do", "any_cart",
    *(f"channel_{name}" for name in ("web", "app", "store", "marketplace", "support")),
    *(f"entry_{name}" for name in ("email", "sms", "push", "social", "search", "affiliate")),
    *(f"past_{want.removeprefix('want_to_')}_{half:g}" for want in WANTS for half in HALF_LIVES_DAYS),
    "since_session", "since_purchase", "known_before",
)  # fmt: skip
"""Columns of `need_features`, in order."""


class NeedModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Softmax coefficients over standardised features.

    Attributes:
        features: Must be `FEATURES`: a model of other columns is refused.
        mean: Of each feature.
        scale: Of each feature, above 0.
        weight: One row per need, one value per feature.
        bias: One per need.
        origin: What the model was fitted on, for people.
    """

    features: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weight: tuple[tuple[float, ...], ...]
    bias: tuple[float, ...]
    origin: str

    def __post_init__(self) -> None:
        if self.features != FEATURES:
            raise ValueError(
                "`$.features` differ from contracts.needs.FEATURES; expected a model fitted on them"
            )
        size = len(FEATURES)
        if len(self.mean) != size or len(self.scale) != size or min(self.scale) <= 0:
            raise ValueError(f"`$.mean` and `$.scale` must hold {size} numbers, scales above 0")
        if len(self.weight) != len(NEEDS) or len(self.bias) != len(NEEDS):
            raise ValueError(f"`$.weight` and `$.bias` must hold {len(NEEDS)} rows")
        if any(len(row) != size for row in self.weight):
            raise ValueError(f"`$.weight` has a row of another length; expected {size}")


def need_features(stream: Stream, rules: MomentRules, xp: Any) -> tuple[Array, Array, Sessions]:
    """Features of every event that lies in a session.

    Args:
        stream: Of any number of people.
        rules: Says what a page is for.
        xp: Array module (numpy).

    Returns:
        Rows of the stream int64 ``(N,)``, features float64 ``(N, len(FEATURES))``, sessions.
    """
    cut = sessions(stream, rules.session, xp)
    rows = xp.flatnonzero(
        (cut.of_event >= 0) & ~is_any(stream.action, ("impression", "delivery"), ACTION, xp)
    )
    number = cut.of_event[rows]
    begin = xp.searchsorted(number, number, side="left")
    columns = _in_session(stream, cut, rows, number, begin, xp)
    columns |= _before(stream, cut, rows, number, rules, xp)
    if not len(rows):
        return rows, xp.zeros((0, len(FEATURES))), cut
    return rows, xp.stack([xp.asarray(columns[name], xp.float64) for name in FEATURES], axis=1), cut


def needs(features: Array, model: NeedModel, xp: Any) -> Array:
    """Probabilities of the needs, ``(N, len(FEATURES))`` to ``(N, len(NEEDS))``."""
    scaled = (features - xp.asarray(model.mean)) / xp.asarray(model.scale)
    # A sum per row and not a matrix product: the latter's rounding depends on how many rows come together.
    scores = xp.stack(
        [
            (scaled * xp.asarray(row)).sum(axis=1) + bias
            for row, bias in zip(model.weight, model.bias, strict=True)
        ],
        axis=1,
    )
    odds = xp.exp(scores - scores.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def _in_session(
    stream: Stream, cut: Sessions, rows: Array, number: Array, begin: Array, xp: Any
) -> dict[str, Array]:
    action, place = stream.action[rows], stream.place[rows]
    views = action == ACTION["view"]
    searches = is_any(action, SEARCHES, ACTION, xp)
    product = stream.product[rows]
    order = xp.lexsort((xp.arange(len(rows)), product, number))
    fresh = xp.ones(len(rows), bool)
    fresh[order[1:]] = (number[order[1:]] != number[order[:-1]]) | (product[order[1:]] != product[order[:-1]])
    marks = {
        "acts": xp.ones(len(rows), bool), "views": views, "plain_views": views & (place == 0),
        "distinct_views": views & fresh, "know_pages": views & (place == 1), "go_pages": views & (place == 2),
        "do_pages": views & (place == 3), "searches": searches, "failed": searches & (stream.results[rows] == 0),
        "go_words": _asks(stream, rows, GO_WORDS, xp), "do_words": _asks(stream, rows, DO_WORDS, xp),
        "know_words": _asks(stream, rows, KNOW_WORDS, xp),
        **{name: action == ACTION[code] for name, code in (
            ("carts", "add_to_cart"), ("removed", "remove_from_cart"), ("wishes", "wishlist"),
            ("checkouts", "checkout"), ("purchases", "purchase"), ("errors", "error"), ("stockouts", "stockout"))},
    }  # fmt: skip
    counts = {name: _so_far(mark, begin, xp) for name, mark in marks.items()}
    channel, entry = stream.channel[rows], stream.channel[cut.first_row[number]]
    return {
        **{name: xp.log1p(count) for name, count in counts.items()},
        "minutes": xp.log1p((stream.at_us[rows] - cut.start_us[number]) / 60e6),
        "last_view": views, "last_search": searches, "last_cart": action == ACTION["add_to_cart"],
        "any_know": counts["know_pages"] > 0, "any_go": counts["go_pages"] > 0, "any_do": counts["do_pages"] > 0,
        "any_cart": counts["carts"] > 0,
        **{f"channel_{name}": channel == CHANNEL[name] for name in ("web", "app", "store", "marketplace", "support")},
        **{f"entry_{name}": entry == CHANNEL[name]
           for name in ("email", "sms", "push", "social", "search", "affiliate")},
    }  # fmt: skip


def _before(
    stream: Stream, cut: Sessions, rows: Array, number: Array, rules: MomentRules, xp: Any
) -> dict[str, Array]:
    """What is left of earlier sessions when the present one begins."""
    count = len(cut)
    start, person = cut.start_us / 86_400e6, cut.person
    fresh = xp.ones(count, bool)
    fresh[1:] = person[1:] != person[:-1]
    at = xp.arange(count)
    first = xp.maximum.accumulate(xp.where(fresh, at, 0)) if count else at
    since = xp.full(count, FAR_DAYS)
    since[1:] = xp.where(fresh[1:], FAR_DAYS, start[1:] - cut.end_us[:-1] / 86_400e6)
    out: dict[str, Array] = {
        "since_session": xp.log1p(xp.minimum(since, FAR_DAYS)),
        "known_before": xp.log1p(at - first),
    }
    inside = stream.action[rows]
    for want, mask in wants(stream, xp).items():
        held = _any_of_session(mask[rows], number, count, xp)
        for half in HALF_LIVES_DAYS:
            out[f"past_{want.removeprefix('want_to_')}_{half:g}"] = _fading(held, start, first, half, xp)
    bought = _any_of_session(inside == ACTION["purchase"], number, count, xp)
    latest = xp.where(bought, at, -1)
    latest = xp.maximum.accumulate(latest) if count else latest
    before = xp.full(count, -1, xp.int64)
    before[1:] = latest[:-1]
    ago = xp.where(before >= first, start - start[xp.maximum(before, 0)], FAR_DAYS) if count else start
    out["since_purchase"] = xp.log1p(xp.minimum(ago, FAR_DAYS))
    return {name: values[number] for name, values in out.items()}


def _fading(held: Array, start: Array, first: Array, half: float, xp: Any) -> Array:
    """Sum over a person's earlier sessions that held something of 2 ** (-days / half).

    Over the `LOOK_BACK` sessions before, one shifted addition each, so that a person's value does not depend
    on who else is in the stream.
    """
    total = xp.zeros(len(start))
    at = xp.arange(len(start))
    for back in range(1, LOOK_BACK + 1):
        late = at[at - back >= first]
        if not len(late):
            break
        early = late - back
        total[late] += held[early] * xp.exp2(-(start[late] - start[early]) / half)
    return total


LOOK_BACK = 12
"""Earlier sessions whose wants are remembered."""


def _so_far(mark: Array, begin: Array, xp: Any) -> Array:
    total = xp.cumsum(mark)
    return total - (total[begin] - mark[begin])


def _any_of_session(mark: Array, number: Array, count: int, xp: Any) -> Array:
    held = xp.zeros(count, bool)
    held[number[mark]] = True
    return held


def _asks(stream: Stream, rows: Array, words: tuple[str, ...], xp: Any) -> Array:
    keys = xp.asarray([text_key(word) for word in words], xp.uint64)
    known = xp.concatenate([xp.isin(stream.words, keys).any(axis=1), xp.zeros(1, bool)])
    return known[stream.query[rows]]
