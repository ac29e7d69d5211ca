"""Golden requests: a release proves on the server that it answers as it did where it was assembled.

Belongs here: the file's form, writing it from an engine, checking an engine against it. Does not
belong here: choosing the requests (orchestration does, from the evaluation set).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from contracts.events import ACTIONS, CHANNELS
from contracts.features import MICROSECONDS_PER_DAY
from serving.engine.engine import Engine
from serving.profiles.history import History, make_history
from serving.releases.verify import ReleaseError

FORMAT = 1
TOLERANCE = 1e-3
"""Scores may differ by this share of their range: another CPU or a GPU rounds differently."""


class GoldenEvents(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A history in words, so that it does not depend on any table's order.

    Attributes:
        at_us: Microseconds since 1970-01-01 UTC.
        product_id: Empty for none.
        action: Names from `contracts.events.ACTIONS`.
        channel: Names from `contracts.events.CHANNELS`.
        session: `session_key`, -1 for none.
        quantity: Units.
        unit_price: Paid per unit.
        discount: Per unit.
        store_id: Empty for none.
    """

    at_us: list[int]
    product_id: list[str]
    action: list[str]
    channel: list[str]
    session: list[int]
    quantity: list[float]
    unit_price: list[float]
    discount: list[float]
    store_id: list[str]


class GoldenCase(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One request and its answer.

    Attributes:
        name: For messages.
        as_of_us: Moment of the request, microseconds since 1970-01-01 UTC.
        store_id: Store of the request, empty for none.
        events: The history.
        product_ids: Expected items, best first.
        scores: Expected ranker scores.
    """

    name: str
    as_of_us: int
    store_id: str
    events: GoldenEvents
    product_ids: list[str]
    scores: list[float]


class Golden(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of golden.json.

    Attributes:
        format: Version of this layout.
        cases: The requests.
    """

    format: int
    cases: list[GoldenCase]


class GoldenRequest(msgspec.Struct, frozen=True):
    """A request to record.

    Attributes:
        name: For messages.
        history: In the terms of the engine's item table.
        as_of_us: Moment, microseconds since 1970-01-01 UTC.
        store: Store index, -1 for none.
    """

    name: str
    history: History
    as_of_us: int
    store: int = -1


def record_golden(engine: Engine, requests: Sequence[GoldenRequest], n: int = 20) -> bytes:
    """Answer requests and write them down with their answers, as the content of golden.json.

    Args:
        engine: Engine of the release that is being assembled (`load_release`).
        requests: A handful: short, long and empty histories.
        n: Items per answer.
    """
    cases = []
    for request in requests:
        ranked = engine.rank(request.history, request.as_of_us / MICROSECONDS_PER_DAY, request.store, n)
        cases.append(
            GoldenCase(
                name=request.name,
                as_of_us=request.as_of_us,
                store_id=engine.items.stores[request.store] if request.store >= 0 else "",
                events=_words(engine, request.history),
                product_ids=[engine.items.product_ids[item] for item in ranked.items.tolist()],
                scores=[float(score) for score in ranked.scores],
            )
        )
    return msgspec.json.encode(Golden(format=FORMAT, cases=cases))


def check_golden(engine: Engine, content: bytes) -> None:
    """Answer every golden request again and compare.

    Raises:
        ReleaseError: The file is malformed or empty, or an answer differs by more than a tie.
    """
    try:
        golden = msgspec.json.decode(content, type=Golden)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise ReleaseError(f"golden.json: {error}") from error
    if golden.format != FORMAT or not golden.cases:
        raise ReleaseError(f"golden.json has format {golden.format} and {len(golden.cases)} cases")
    for case in golden.cases:
        try:
            history = _history(engine, case.events)
        except ValueError as error:
            raise ReleaseError(f"golden request '{case.name}': {error}") from error
        store = engine.items.store_index.get(case.store_id, -1)
        n = len(case.product_ids)
        ranked = engine.rank(history, case.as_of_us / MICROSECONDS_PER_DAY, store, n)
        got = [engine.items.product_ids[item] for item in ranked.items.tolist()]
        if not same_answer(case.product_ids, case.scores, got, ranked.scores):
            raise ReleaseError(
                f"golden request '{case.name}' is answered differently: expected "
                f"{case.product_ids[:3]}..., got {got[:3]}..."
            )


def same_answer(
    expected: Sequence[str],
    expected_scores: Sequence[float],
    got: Sequence[str],
    got_scores: NDArray[np.float32],
    tolerance: float = TOLERANCE,
) -> bool:
    """Whether two answers are the same up to ties.

    Every position must have the expected score, and every item that the two share its own; items may
    change places, or leave at the end, only where their scores tie within the tolerance.
    """
    if len(expected) != len(got) or len(expected_scores) != len(expected):
        return False
    want = np.asarray(expected_scores, np.float64)
    have = np.asarray(got_scores, np.float64)
    if not len(want):
        return True
    margin = tolerance * max(float(want.max() - want.min()), 1e-3)
    if not np.isfinite(have).all() or bool(np.any(np.abs(want - have) > margin)):
        return False
    score_of = dict(zip(got, have.tolist(), strict=True))
    last = float(want[-1])
    for product_id, score in zip(expected, want.tolist(), strict=True):
        found = score_of.get(product_id)
        if found is None and score > last + 2 * margin:
            return False
        if found is not None and abs(found - score) > margin:
            return False
    return True


def _words(engine: Engine, history: History) -> GoldenEvents:
    ids, stores = [*engine.items.product_ids, ""], [*engine.items.stores, ""]
    return GoldenEvents(
        at_us=history.at_us.tolist(),
        product_id=[ids[item] for item in history.item.tolist()],
        action=[ACTIONS[action] for action in history.action.tolist()],
        channel=[CHANNELS[channel] for channel in history.channel.tolist()],
        session=history.session.tolist(),
        quantity=history.quantity.tolist(),
        unit_price=history.unit_price.tolist(),
        discount=history.discount.tolist(),
        store_id=[stores[store] for store in history.store.tolist()],
    )


def _history(engine: Engine, events: GoldenEvents) -> History:
    return make_history(
        at_us=events.at_us,
        item=engine.items.indices(events.product_id),
        action=[ACTIONS.index(action) for action in events.action],
        channel=[CHANNELS.index(channel) for channel in events.channel],
        session=events.session,
        quantity=events.quantity,
        unit_price=events.unit_price,
        discount=events.discount,
        store=[engine.items.store_index.get(store, -1) for store in events.store_id],
    )
