"""From events and products to what the encoder reads: a vocabulary, its content, and sequences.

Belongs here: reading the lake into arrays, item content codes, plain sequence files as sequences.
Does not belong here: windows and targets (`batches.py`), anything of torch.

Time of an event in a sequence: its own, except that purchases of one session all carry the time of the
session's first purchase, because a basket has no order inside. Events of one customer at one time
form a *step*; everything in the encoder is causal by step.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from contracts.events import ACTIONS, CHANNELS

MICROSECONDS_PER_DAY = 86_400_000_000


class DataError(ValueError):
    """Data that nothing can be learned from; the message says what was expected."""


@dataclasses.dataclass(frozen=True)
class Content:
    """What is known of each item beside its id.

    Attributes:
        fields: Names of the coded fields.
        values: Per field, the value of code 1, 2, ...; code 0 is unknown.
        codes: int64[V + 1, F]; row 0 is padding.
        vectors: float32[V + 1, P] of further content (text or image embeddings), or None.
        tags: int64[V + 1, M] codes of a field with many values per item, 1 and up, padded with 0, or None.
    """

    fields: tuple[str, ...]
    values: tuple[npt.NDArray[np.str_], ...]
    codes: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float32] | None = None
    tags: npt.NDArray[np.int64] | None = None


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The items that the encoder knows.

    Attributes:
        product_id: str[V + 1], row = encoder id, row 0 is empty: padding and every unknown item.
        count: float64[V + 1], times each was a target action before ``train_until``.
        content: Content of the same rows.
        cold: bool[V + 1], items that get no embedding of their own and live from content alone.
    """

    product_id: npt.NDArray[np.str_]
    count: npt.NDArray[np.float64]
    content: Content
    cold: npt.NDArray[np.bool_]

    @property
    def size(self) -> int:
        """V, the number of items without the padding row."""
        return len(self.product_id) - 1


@dataclasses.dataclass(frozen=True)
class Sequences:
    """Events of all customers, by customer, then time.

    Attributes:
        customers: str[C], sorted.
        offsets: int64[C + 1] into the event arrays.
        at: float64[E], days since 1970-01-01 UTC.
        item: int32[E], encoder id, 0 where the event has no known item.
        action: int8[E], index in ACTIONS.
        channel: int8[E], index in CHANNELS.
        session: int64[E], dense over all sessions, -1 for none.
    """

    customers: npt.NDArray[np.str_]
    offsets: npt.NDArray[np.int64]
    at: npt.NDArray[np.float64]
    item: npt.NDArray[np.int32]
    action: npt.NDArray[np.int8]
    channel: npt.NDArray[np.int8]
    session: npt.NDArray[np.int64]

    def until(self, moment: float) -> Sequences:
        """The same customers with only their events strictly before a moment (days)."""
        keep = self.at < moment
        lengths = (
            np.add.reduceat(np.append(keep, False), self.offsets[:-1])
            if len(self.at)
            else np.diff(self.offsets)
        )
        lengths = np.where(np.diff(self.offsets) > 0, lengths, 0)
        return Sequences(
            self.customers, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            self.at[keep], self.item[keep], self.action[keep], self.channel[keep], self.session[keep],
        )  # fmt: skip

    def both_ways(self) -> Sequences:
        """Every history, then every history once more from its end to its beginning; distances in time stay."""
        sizes, starts = np.diff(self.offsets), self.offsets[:-1]
        owner, some = np.repeat(np.arange(len(sizes)), sizes), sizes > 0
        turned = np.repeat(starts + self.offsets[1:] - 1, sizes) - np.arange(len(self.at))
        ends = np.zeros(len(sizes))
        ends[some] = self.at[starts[some]] + self.at[self.offsets[1:][some] - 1]
        again = self.session[turned] + np.where(
            self.session[turned] >= 0, self.session.max(initial=-1) + 1, 0
        )
        return Sequences(
            np.concatenate([self.customers, self.customers]),
            np.concatenate([self.offsets, self.offsets[1:] + len(self.at)]),
            np.concatenate([self.at, ends[owner] - self.at[turned]]),
            *(np.concatenate([column, column[turned]]) for column in (self.item, self.action, self.channel)),
            np.concatenate([self.session, again]),
        )


def read_vocabulary(
    con: duckdb.DuckDBPyConnection,
    until_days: float,
    *,
    min_count: int,
    fields: Sequence[str],
    price_bands: int,
    cold_count: int = 0,
    actions: Sequence[str] = ("purchase",),
) -> Vocabulary:
    """Items with enough target actions before a moment, with their content.

    Args:
        con: Connection with views ``events`` and ``products`` (see `feature_repo.snapshots.attach`).
        until_days: Only events strictly before this moment count.
        min_count: Fewest events that bring an item in with an embedding of its own.
        fields: Content fields, of `training.config.CONTENT_FIELDS`.
        price_bands: Quantile bands of the mean paid unit price, for field ``price_band``.
        cold_count: Fewest events that bring an item in at all; 0 stands for ``min_count``.
        actions: Actions that count.

    Raises:
        DataError: No item has enough events.
    """
    columns = [name for name in fields if name != "price_band"]
    rows = con.execute(
        f"""
        with sold as (
            select product_id, count(*) as n, avg(unit_price) filter (unit_price > 0) as price
            from events
            where product_id is not null and list_contains($actions, action) and epoch_us(occurred_at) < $until
            group by product_id having count(*) >= $least
        )
        select sold.*{"".join(f", coalesce(p.{name}, '') as {name}" for name in columns)}
        from sold left join products p using (product_id) order by product_id
        """,
        {
            "actions": list(actions),
            "until": _micros(until_days),
            "least": min(cold_count or min_count, min_count),
        },
    ).fetchnumpy()
    if not len(rows["product_id"]):
        raise DataError(
            f"no product has {min_count} events of {list(actions)} before day {until_days}; expected some"
        )
    price = np.ma.filled(np.ma.asarray(rows["price"]), np.nan).astype(float)
    texts = {name: np.asarray(rows[name]).astype(str) for name in columns}
    if "price_band" in fields:
        texts["price_band"] = price_band(price, price_bands)
    count = np.concatenate([[0.0], np.asarray(rows["n"], dtype=float)])
    ids = np.concatenate([[""], np.asarray(rows["product_id"]).astype(str)])
    content = encode_content({name: texts[name] for name in fields}, len(ids) - 1)
    cold = count < min_count
    cold[0] = False
    return Vocabulary(ids, count, content, cold)


def encode_content(
    texts: dict[str, npt.NDArray[np.str_]], size: int, vectors: npt.NDArray[np.float32] | None = None
) -> Content:
    """Code text fields of items; codes are dense and ordered by value, 0 is empty or padding.

    Args:
        texts: Field name to str[V].
        size: V.
        vectors: float32[V, P] of further content.
    """
    values, codes = [], []
    for column in texts.values():
        known = np.unique(column[column != ""])
        values.append(known)
        codes.append(np.concatenate([[0], np.where(column == "", 0, np.searchsorted(known, column) + 1)]))
    table = np.stack(codes, axis=1).astype(np.int64) if codes else np.zeros((size + 1, 0), np.int64)
    padded = None if vectors is None else np.concatenate([np.zeros_like(vectors[:1]), vectors])
    return Content(tuple(texts), tuple(values), table, padded)


def price_band(price: npt.NDArray[np.float64], bands: int) -> npt.NDArray[np.str_]:
    """Quantile band of each price as text (``"03"``), empty where the price is not known."""
    known = np.isfinite(price)
    edges = np.quantile(price[known], np.linspace(0, 1, bands + 1)[1:-1]) if known.any() else np.zeros(0)
    band = np.searchsorted(edges, np.where(known, price, 0.0), side="right")
    return np.where(known, np.char.zfill(band.astype(str), 2), "")


def read_sequences(
    con: duckdb.DuckDBPyConnection, product_ids: npt.NDArray[np.str_], until_days: float | None = None
) -> Sequences:
    """Events of every known customer as arrays.

    Args:
        con: Connection with a view ``events``.
        product_ids: str[V + 1] of a vocabulary; its rows become the item ids.
        until_days: Only events strictly before this moment; all by default.
    """
    con.register(
        "encoder_items", pa.table({"product_id": product_ids[1:], "id": np.arange(1, len(product_ids))})
    )
    con.register("encoder_actions", pa.table({"action": list(ACTIONS), "action_id": np.arange(len(ACTIONS))}))
    con.register(
        "encoder_channels", pa.table({"channel": list(CHANNELS), "channel_id": np.arange(len(CHANNELS))})
    )
    limit = "" if until_days is None else f"and epoch_us(occurred_at) < {_micros(until_days)}"
    rows = con.execute(
        f"""
        with kept as (
            select customer_id, session_id, product_id, action, channel, occurred_at, received_at, event_id,
                   case when action = 'purchase' and session_id is not null
                        then min(epoch_us(occurred_at)) over (partition by customer_id, session_id, action)
                        else epoch_us(occurred_at) end as us
            from events where customer_id is not null {limit}
        )
        select dense_rank() over (order by customer_id) - 1 as customer, us,
               coalesce(i.id, 0)::int as item, action_id::tinyint as action, channel_id::tinyint as channel,
               case when session_id is null then -1
                    else dense_rank() over (order by customer_id, session_id) end as session
        from kept join encoder_actions using (action) join encoder_channels using (channel)
             left join encoder_items i using (product_id)
        order by customer_id, us, occurred_at, received_at, event_id
        """
    ).fetchnumpy()
    names = con.execute(
        f"select distinct customer_id from events where customer_id is not null {limit} order by customer_id"
    ).fetchnumpy()["customer_id"]
    for name in ("encoder_items", "encoder_actions", "encoder_channels"):
        con.unregister(name)
    customer = np.asarray(rows["customer"], dtype=np.int64)
    return Sequences(
        customers=np.asarray(names).astype(str),
        offsets=np.searchsorted(customer, np.arange(len(names) + 1)).astype(np.int64),
        at=np.asarray(rows["us"], dtype=np.int64) / MICROSECONDS_PER_DAY,
        item=np.asarray(rows["item"], dtype=np.int32),
        action=np.asarray(rows["action"], dtype=np.int8),
        channel=np.asarray(rows["channel"], dtype=np.int8),
        session=np.asarray(rows["session"], dtype=np.int64),
    )


def plain_sequences(
    items: Sequence[Sequence[int]], times: Sequence[Sequence[float]] | None = None
) -> Sequences:
    """Sequences of single items (one step each), for public data sets without actions or channels.

    Args:
        items: Per customer, encoder ids in time order.
        times: Per customer, strictly increasing days; by default the position.
    """
    lengths = np.array([len(row) for row in items], dtype=np.int64)
    moments = [range(n) for n in lengths] if times is None else times
    flat = np.array([item for row in items for item in row], dtype=np.int32)
    at = np.array([moment for row in moments for moment in row], dtype=np.float64)
    width = len(str(len(items)))
    return Sequences(
        customers=np.array([str(row).zfill(width) for row in range(len(items))]),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        at=at,
        item=flat,
        action=np.full(len(flat), ACTIONS.index("purchase"), np.int8),
        channel=np.full(len(flat), CHANNELS.index("web"), np.int8),
        session=np.full(len(flat), -1, np.int64),
    )


def save_vocabulary(path: pathlib.Path, vocabulary: Vocabulary) -> None:
    """Write a vocabulary as npz without pickles."""
    content = vocabulary.content
    arrays = {f"values_{name}": values for name, values in zip(content.fields, content.values, strict=True)}
    if content.vectors is not None:
        arrays["vectors"] = content.vectors
    if content.tags is not None:
        arrays["tags"] = content.tags
    np.savez_compressed(
        path, product_id=vocabulary.product_id, count=vocabulary.count, cold=vocabulary.cold, codes=content.codes,
        fields=np.array(content.fields, dtype=str), **arrays,
    )  # fmt: skip


def load_vocabulary(path: pathlib.Path) -> Vocabulary:
    """Read what `save_vocabulary` wrote."""
    with np.load(path, allow_pickle=False) as file:
        fields = tuple(str(name) for name in file["fields"])
        values = tuple(file[f"values_{name}"] for name in fields)
        content = Content(fields, values, file["codes"], file.get("vectors"), file.get("tags"))
        return Vocabulary(file["product_id"], file["count"], content, file["cold"])


def _micros(days: float) -> int:
    return round(days * MICROSECONDS_PER_DAY)
