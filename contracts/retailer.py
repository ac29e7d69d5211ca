"""One shop as its yaml states it: sources, models, gate, pictures, audiences, policy.

Belongs here: the typed sections of a retailer's yaml. Does not belong here: finding, reading and checking the file, and
what the environment says (`settings.py`).
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal

import msgspec

from contracts.outbound import Audience, Destination
from contracts.policy import ActionPolicy

Positive = Annotated[int, msgspec.Meta(ge=1)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Retraining(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When new evidence is enough to train again.

    Attributes:
        min_new_events: Purchases since the champion's snapshot that make a retraining due.
        max_psi: Population stability index of any ranker feature above which it is due at once.
        min_hours_between: Quiet time after a retraining, by the wall clock.
    """

    min_new_events: Positive = 20_000
    max_psi: float = 0.25
    min_hours_between: float = 0.0


class Guard(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A number of the shop that must not have fallen when a release is to be promoted.

    Attributes:
        kpi: Name of a KPI (`orchestration/lake/kpis.py`).
        most_drop: Share by which it may be worse than in the days before.
        days: Latest days, compared with as many before.
    """

    kpi: str
    most_drop: Share = 0.2
    days: Positive = 28


class Gate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a challenger must show on the frozen set.

    Attributes:
        least_ratio: Lower bound of its NDCG@10 over the best baseline's must exceed this; below 1 only for
            shops (or tests) with too few requests for a narrow interval.
        most_loss: Share of the champion's NDCG@10 by which it may be worse: the upper bound of the difference must
            not lie further below 0. Above 0 likewise.
        approval: ``gate``: a challenger that passes becomes champion; ``person``: it waits for one.
        guards: Numbers of the shop that must not have fallen.
    """

    least_ratio: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    most_loss: Share = 0.0
    approval: Literal["gate", "person"] = "gate"
    guards: tuple[Guard, ...] = ()


Path = str | tuple[str, ...]
"""Where a value lies in a row: a column, a JSON path (``$.a.b``, ``@.a`` inside an exploded item), a
template (``store:{shop}``), ``sha256(path)``, or a list of them of which the first that is not empty counts."""

EventField = Literal[
    "event_id", "occurred_at", "received_at", "session_id", "channel", "touchpoint", "action", "product_id",
    "quantity", "unit_price", "line_total", "discount", "currency", "query", "media_id", "decision_id",
    "position", "moment",
    # A feed of products or customers:
    "name", "department", "category", "type", "brand", "manufacturer", "size", "kind", "sellable",
    "customer_id", "age", "income", "home_ownership", "marital_status", "household_size",
    "household_composition", "kids",
]  # fmt: skip
"""What a column can be mapped to; ``line_total`` is divided by the quantity to give the unit price."""

FeedFormat = Literal[
    "auto", "rows", "canonical", "segment", "ga4", "snowplow", "cloudevents", "shopify_orders",
    "shopify_customers", "shopify_products",
]  # fmt: skip


class Feed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One stream of raw rows and how they become events: an entry under ``mapping`` of a retailer's yaml.

    Attributes:
        files: A file, a folder or a pattern (``exports/**/*.csv.gz``), relative to the yaml; or
        table: a table of `connection`; or
        query: a SQL query on `connection`.
        connection: Key under ``connections``.
        high_water: Column that only grows (a number or a time); only rows at or above the last value seen are read.
        format: How rows are shaped; ``auto`` finds out, ``rows`` means plain columns that ``fields`` maps.
        rows: What a row is.
        encoding: Of text files; found out where it is not given.
        delimiter: Of delimited text; found out where it is not given.
        columns: Names of the columns of a delimited file without a header line.
        time_zone: IANA name of the zone of times that carry none.
        time_format: strptime pattern, or ``epoch_s``, ``epoch_ms``, ``epoch_us``; ISO 8601 otherwise.
        decimal: Decimal sign of numbers.
        currency: Where a row names none; the shop's own by default.
        earliest: Times before this day count as a broken clock.
        fields: Field of the event -> where it lies in a row.
        identifiers: Kind of identifier -> where it lies, the customer's own number under ``customer``.
        values: Field -> their word -> ours; an action of ``ignore`` leaves rows out, counted.
        constants: Field -> value where a row has none.
        consent: Purpose -> where its yes or no lies.
        items: Path of a list inside the row that makes one event per element.
        detail: Columns to keep in ``detail``, or ``rest`` for all that nothing else uses.
    """

    files: str | tuple[str, ...] | None = None
    table: str | None = None
    query: str | None = None
    connection: str | None = None
    high_water: str | None = None
    format: FeedFormat = "auto"
    rows: Literal["events", "products", "customers"] = "events"
    encoding: str | None = None
    delimiter: Annotated[str, msgspec.Meta(min_length=1, max_length=1)] | None = None
    columns: tuple[str, ...] = ()
    time_zone: str | None = None
    time_format: str | None = None
    decimal: Literal[".", ","] = "."
    currency: Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}$")] | None = None
    earliest: dt.date = dt.date(2000, 1, 1)
    fields: dict[EventField, Path] = {}
    identifiers: dict[str, Path] = {}
    values: dict[EventField, dict[str, str]] = {}
    constants: dict[EventField, str | int | float] = {}
    consent: dict[Literal["analytics", "personalization", "marketing"], Path] = {}
    items: str | None = None
    detail: Literal["rest"] | tuple[str, ...] = "rest"


class Pictures(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Pictures of a shop's products, and what the visual models learn from beside them.

    Roots may hold ``${VARIABLE}``; a shop whose ``root`` names a variable that is not set has no pictures, and a set
    to learn from whose variable is not set is left out. Relative roots begin at the yaml's folder.

    Attributes:
        layout: ``drawn`` (by the project, for the atelier), ``fashion-products``, ``grocery-catalogue``, ``table``
            (a CSV beside a folder or zip of photos) or ``hub`` (a data set by its name).
        root: Folder of the pictures, or the name of a hub's data set; nothing for ``drawn``.
        options: Of the layouts ``table`` and ``hub``: columns by label (`training/visual/own_pictures.py`).
        belongs: How a picture finds its product: ``id``: its label ``product_id`` is the product's; ``alike``: to
            a product of its type and colour; ``type``: it shows a type of product, and `types` says which.
        types: CSV file of ``belongs: type``: class_id, class_name, department, category, type.
        learn: Further sets by layout, to learn from.
        looks: Editorial pictures: how many to draw (layout ``drawn``), or the folder or zip that holds them.
        looks_shown: How many looks get hotspots, at most.
        exact_limit: A category with more products than this is searched by cells instead of exactly.
        answers: Products that a hotspot or a type of product answers with, at most.
        largest_broken_share: The check of the catalogue fails above this share of pictures that cannot be read.
        detector: Overrides of the detector's parameters.
        embedder: Overrides of the embedder's parameters.
        text: Overrides of the text tower's parameters.
        outfit: Overrides of the outfit model's parameters.
    """

    layout: Literal["drawn", "fashion-products", "grocery-catalogue", "table", "hub"]
    root: str = ""
    options: dict[str, str] = {}
    belongs: Literal["id", "alike", "type"] = "id"
    types: str = ""
    learn: dict[Literal["street-looks", "phone-photos", "grocery-photos", "fashion-products"], str] = {}
    looks: int | str = 0
    looks_shown: Annotated[int, msgspec.Meta(ge=0)] = 200
    exact_limit: Positive = 100_000
    answers: Positive = 24
    largest_broken_share: Share = 0.02
    detector: dict[str, Any] = {}
    embedder: dict[str, Any] = {}
    text: dict[str, Any] = {}
    outfit: dict[str, Any] = {}


class Retailer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One shop, as its yaml in `orchestration/retailers` states it.

    Attributes:
        name: Same as the file's stem.
        title: For people.
        source: Module in `orchestration/sources`.
        currency: ISO 4217 code.
        clock: ``stream``: now is the latest event seen (archived data); ``wall``: now is now.
        first_day: First day of data.
        last_day: Last day to take in (inclusive); later rows are left for replay.
        evaluation_days: Length of the frozen evaluation window at the end of the data.
        ranker_days: Length of the window before it that the ranker learns from.
        households: Keep only this many customers (a stable sample), or all.
        simulated: True where shoppers are simulated; shown on every page.
        encoder: Overrides of the continuum encoder's configuration.
        ranker: Overrides of the ranker's configuration.
        retraining: When to train again.
        gate: What a challenger must show, and who decides.
        exploration: Probability that the last slot shows a uniformly drawn further candidate.
        owners: Who answers for it, shown in Dagster.
        connections: Addresses of databases by name; ``${VARIABLE}`` is read from the environment when used.
        mapping: Feeds of the source ``files``, by name.
        audiences: Who leaves the platform, by name.
        destinations: Files, tables and webhooks that they go to, by name.
        actions: Whether, how and how often the shop contacts people (`contracts.policy`).
        pictures: Pictures of its products; None for a shop without.
    """

    name: str
    title: str
    source: str
    currency: str = "USD"
    clock: Literal["stream", "wall"] = "wall"
    first_day: dt.date
    last_day: dt.date
    evaluation_days: Positive = 31
    ranker_days: Positive = 56
    households: Positive | None = None
    simulated: bool = False
    encoder: dict[str, Any] = {}
    ranker: dict[str, Any] = {}
    retraining: Retraining = Retraining()
    gate: Gate = Gate()
    exploration: Share = 0.0
    owners: tuple[str, ...] = ("team:personalization",)
    connections: dict[str, str] = {}
    mapping: dict[str, Feed] = {}
    audiences: dict[str, Audience] = {}
    destinations: dict[str, Destination] = {}
    actions: ActionPolicy = ActionPolicy()
    pictures: Pictures | None = None
