"""The way of the intake bench, gone in pandas: what a data team would write by hand, in memory.

It does less than the platform at every stage, which favours pandas: no dead letters, no merges that can be undone
(identifiers that occur together are one component), the moments that a single row or a repeated query shows, and
only the customer's features (running counts and sums), not those of products, stores and pairs.

Belongs here: the peer. Does not belong here: timing of the platform (`intake.py`).
"""

from __future__ import annotations

import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from contracts.events import ACTIONS, CHANNELS
from orchestration.lake import tables

GAP = pd.Timedelta(minutes=30)


def go(
    paths: list[pathlib.Path], events: int, target: pathlib.Path, progress: Callable[[str], None]
) -> dict[str, float]:
    """Go the whole way.

    Args:
        paths: Raw files.
        events: How many of their events.
        target: Folder to write to.
        progress: Receives one line per stage.

    Returns:
        Seconds by stage.
    """
    seconds: dict[str, float] = {}
    frame: Any = None
    for name, stage in (
        ("land", _land),
        ("identity", _identity),
        ("moments", _moments),
        ("features", _features),
    ):
        begun = time.perf_counter()
        frame = stage((paths, events), target) if frame is None else stage(frame, target)
        seconds[name] = time.perf_counter() - begun
        progress(f"pandas, {events:,} events, {name}: {seconds[name]:.2f} s")
    return seconds


def _land(raw: tuple[list[pathlib.Path], int], target: pathlib.Path) -> pd.DataFrame:
    paths, events = raw
    frame = pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True).iloc[:events]
    frame = frame[_keeps_contract(frame)].drop_duplicates("event_id")
    frame["source"] = "files"
    frame["received_at"] = frame["occurred_at"]
    frame["customer_id"] = frame["identifiers"].map(_customer)
    touchpoint = frame["touchpoint"].fillna("")
    frame["store_id"] = touchpoint.str.slice(6).where(touchpoint.str.startswith("store:"))
    frame["day"] = frame["occurred_at"].dt.date
    for name in set(tables.EVENTS.names) - set(frame.columns):
        frame[name] = None
    frame.to_parquet(target / "events", partition_cols=["day"])
    return frame


def _identity(frame: pd.DataFrame, target: pathlib.Path) -> pd.DataFrame:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    found = frame["identifiers"].map(
        lambda text: [f"{one['kind']}:{one['value']}" for one in json.loads(text)]
    )
    long = found.explode()
    codes, names = pd.factorize(long)
    first = pd.Series(codes, index=long.index).groupby(level=0).transform("first").to_numpy()
    ones = np.ones(len(codes), np.int8)
    _, component = connected_components(
        coo_matrix((ones, (first, codes)), (len(names), len(names))), directed=False
    )
    frame = frame.assign(person=pd.Series(component[codes], index=long.index).groupby(level=0).first())
    links = pd.DataFrame({"identifier": names, "person": component})
    links.to_parquet(target / "links.parquet")
    frame[["source", "event_id", "person"]].to_parquet(target / "persons.parquet")
    return frame


def _moments(frame: pd.DataFrame, target: pathlib.Path) -> pd.DataFrame:
    frame = frame.sort_values(["person", "occurred_at", "event_id"], kind="stable")
    opens = (frame["person"] != frame["person"].shift()) | (frame["occurred_at"].diff() > GAP)
    frame["visit"], frame["bought"] = opens.cumsum(), frame["action"].eq("purchase")
    visits = frame.groupby("visit").agg(
        person=("person", "first"), started_at=("occurred_at", "first"), ended_at=("occurred_at", "last"),
        acts=("event_id", "size"), channels=("channel", "nunique"), first_channel=("channel", "first"),
        purchases=("bought", "sum"),
    )  # fmt: skip
    visits.to_parquet(target / "visits.parquet")
    plain = {
        "stockout": "out_of_stock",
        "return": "return",
        "add_to_cart": "want_to_buy",
        "search": "want_to_know",
    }
    kinds = frame["action"].map(plain)
    searches = frame[frame["query"].notna()]
    repeated = searches.duplicated(["visit", "query"])
    kinds.loc[repeated[repeated].index] = "repeated_search"
    frame.assign(kind=kinds).dropna(subset="kind")[
        ["person", "visit", "kind", "occurred_at", "event_id"]
    ].to_parquet(target / "moments.parquet")
    return frame


def _features(frame: pd.DataFrame, target: pathlib.Path) -> pd.DataFrame:
    rows = frame[frame["customer_id"].notna()].sort_values(["customer_id", "occurred_at"], kind="stable")
    bought = rows["action"].eq("purchase")
    quantity, price = (rows[name].astype(float) for name in ("quantity", "unit_price"))
    spend = (quantity.fillna(1) * price.fillna(0)).where(bought, 0.0)
    values = pd.DataFrame({
        "orders": bought.astype(float), "spend": spend, "discounts": (bought & rows["discount"].gt(0)).astype(float),
        "store": rows["channel"].eq("store").astype(float), "mail": rows["channel"].eq("email").astype(float),
    })  # fmt: skip
    who = rows["customer_id"]
    table = values.groupby(who).cumsum()
    at = rows["occurred_at"].astype("int64") / 86_400e6
    table["since_order"] = at - at.where(bought).groupby(who).ffill()
    for half_life in (7.0, 28.0):
        # The decayed sum at t is exp(-t) times a running sum of exp(t): time counts from each customer's first event.
        age = (at - at.groupby(who).transform("first")) * np.log(2) / half_life
        table[f"decay_orders_{half_life:.0f}"] = (values["orders"] * np.exp(age)).groupby(
            who
        ).cumsum() * np.exp(-age)
    table.assign(customer_id=who, event_timestamp=rows["occurred_at"]).to_parquet(target / "customer.parquet")
    return frame


def _keeps_contract(frame: pd.DataFrame) -> Any:
    good = frame["channel"].isin(CHANNELS) & frame["action"].isin(ACTIONS) & frame["occurred_at"].notna()
    good &= frame["occurred_at"] <= pd.Timestamp.now("UTC")
    for name in ("event_id", "session_id", "touchpoint", "product_id", "decision_id"):
        length = frame[name].str.len()
        good &= length.isna() | length.between(1, 256)
    for name in ("quantity", "unit_price", "discount", "position"):
        good &= frame[name].isna() | (frame[name] >= 0)
    good &= frame["currency"].isna() | frame["currency"].str.fullmatch("[A-Z]{3}")
    good &= ~(frame["action"].eq("purchase") & frame["product_id"].isna())
    for name in ("identifiers", "detail", "consent"):
        good &= frame[name].map(_is_json)
    return good


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _customer(text: str) -> str | None:
    return next((str(one["value"]) for one in json.loads(text) if one["kind"] == "customer"), None)
