"""The one place that reads the environment, and the typed profile of a shop.

Belongs here: where state lives, which shop is open, ports, and the retailer's yaml. Does not
belong here: anything computed from data.
"""

from __future__ import annotations

import datetime as dt
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from contracts.outbound import Audience, Destination, OutboundError, anchor_destination, check_outbound
from contracts.policy import ActionPolicy, PolicyError, check_policy

RETAILERS = pathlib.Path(__file__).resolve().parent.parent / "orchestration" / "retailers"
ROOT = pathlib.Path(__file__).resolve().parent.parent

Positive = Annotated[int, msgspec.Meta(ge=1)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class SettingsError(ValueError):
    """A setting or profile that cannot be used; the message names the key and what was expected."""


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
        approval: ``gate``: a challenger that passes becomes champion; ``person``: it waits for one.
        guards: Numbers of the shop that must not have fallen.
    """

    least_ratio: Annotated[float, msgspec.Meta(gt=0)] = 1.0
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


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Where this installation lives and listens.

    Attributes:
        home: All state.
        retailer: Name of the open shop, or a path to its yaml.
        data: Folder of the optional real data sets, or None.
        host: Address that services bind.
        serving_port: HTTP port of the server.
        dagster_port: Port of the Dagster UI.
        mlflow_port: Port of the MLflow UI.
        feast_port: Port of the Feast UI.
        tracking_uri: MLflow tracking and registry address used by writers.
        last_day: Overrides the profile's ``last_day``.
    """

    home: pathlib.Path
    retailer: str
    data: pathlib.Path | None
    host: str
    serving_port: int
    dagster_port: int
    mlflow_port: int
    feast_port: int
    tracking_uri: str
    last_day: dt.date | None

    @property
    def lake(self) -> pathlib.Path:
        """Delta tables."""
        return self.home / "lake"

    @property
    def features(self) -> pathlib.Path:
        """Feature tables, Feast registry and online store."""
        return self.home / "features"

    @property
    def releases(self) -> pathlib.Path:
        """Releases that serving pulled and verified, one folder each."""
        return self.home / "releases"

    @property
    def bundles(self) -> pathlib.Path:
        """Training outputs, one folder per run."""
        return self.home / "bundles"

    @property
    def overview(self) -> pathlib.Path:
        """Folder of what the pages show of the shop at a glance."""
        return self.home / "overview"

    @property
    def profiles(self) -> pathlib.Path:
        """Published snapshots of customer histories."""
        return self.home / "profiles"

    @property
    def inbox(self) -> pathlib.Path:
        """SQLite file of accepted events."""
        return self.home / "inbox" / "inbox.sqlite"

    @property
    def decisions(self) -> pathlib.Path:
        """SQLite file of decision records."""
        return self.home / "inbox" / "decisions.sqlite"

    @property
    def outbound(self) -> pathlib.Path:
        """Outbox, record of exports, and files that have no folder of their own."""
        return self.home / "outbound"

    @property
    def keys(self) -> pathlib.Path:
        """Ed25519 signing key and public key."""
        return self.home / "keys"


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the process environment.

    Args:
        environment: Variables to read instead of the process's own.

    Raises:
        SettingsError: A variable has a value that cannot be used.
    """
    env = os.environ if environment is None else environment

    def port(name: str, default: int) -> int:
        text = env.get(name, str(default))
        if not text.isdigit() or not 0 <= int(text) <= 65535:
            raise SettingsError(f"{name} is '{text}'; expected a port number from 0 to 65535")
        return int(text)

    home = pathlib.Path(env.get("CONTINUUM_HOME") or ".continuum").expanduser().resolve()
    last_day = env.get("CONTINUUM_LAST_DAY")
    try:
        parsed = dt.date.fromisoformat(last_day) if last_day else None
    except ValueError as error:
        raise SettingsError(
            f"CONTINUUM_LAST_DAY is '{last_day}'; expected a date such as 2017-11-30"
        ) from error
    data = env.get("CONTINUUM_DATA")
    return Settings(
        home=home,
        retailer=env.get("RETAILER") or "complete_journey",
        data=pathlib.Path(data).expanduser().resolve() if data else None,
        host=env.get("CONTINUUM_HOST") or "127.0.0.1",
        serving_port=port("CONTINUUM_PORT", 8000),
        dagster_port=port("CONTINUUM_DAGSTER_PORT", 3000),
        mlflow_port=port("CONTINUUM_MLFLOW_PORT", 5000),
        feast_port=port("CONTINUUM_FEAST_PORT", 8888),
        tracking_uri=env.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home / 'mlflow' / 'mlflow.db'}",
        last_day=parsed,
    )


def read_retailer(settings: Settings) -> Retailer:
    """Read and check the open shop's yaml.

    Raises:
        SettingsError: No such profile, or a key is unknown, missing or of the wrong type; the
            message names the file and the key.
    """
    given = pathlib.Path(settings.retailer)
    path = given if given.suffix in {".yaml", ".yml"} else RETAILERS / f"{settings.retailer}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in RETAILERS.glob("*.yaml")))
        raise SettingsError(
            f"RETAILER is '{settings.retailer}': no profile at {path}; expected one of: {known}"
        )
    try:
        retailer = msgspec.yaml.decode(path.read_bytes(), type=Retailer)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise SettingsError(f"{path.name}: {error}") from error
    check_feeds(retailer.mapping, retailer.connections, path.name)
    try:
        check_outbound(retailer.audiences, retailer.destinations, retailer.connections, path.name)
        check_policy(retailer.actions, path.name)
    except (OutboundError, PolicyError) as error:
        raise SettingsError(str(error)) from error
    folder = path.resolve().parent
    retailer = msgspec.structs.replace(
        retailer,
        mapping={name: anchor(feed, folder) for name, feed in retailer.mapping.items()},
        destinations={n: anchor_destination(found, folder) for n, found in retailer.destinations.items()},
    )
    if settings.last_day:
        retailer = msgspec.structs.replace(retailer, last_day=settings.last_day)
    if retailer.last_day < retailer.first_day:
        raise SettingsError(
            f"{path.name}: last_day {retailer.last_day} is before first_day {retailer.first_day}; expected a later day"
        )
    return retailer


def check_feeds(feeds: Mapping[str, Feed], connections: Mapping[str, str], file: str) -> None:
    """Apply the rules of a mapping that types cannot state.

    Raises:
        SettingsError: Naming the file, the key's path and what was expected there.
    """
    for name, feed in feeds.items():
        where = f"{file}: `$.mapping.{name}`"
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,31}", name):
            raise SettingsError(f"{where}: expected a name of at most 32 of a-z, 0-9, _ and -")
        given = [key for key in ("files", "table", "query") if getattr(feed, key) is not None]
        if len(given) != 1:
            raise SettingsError(f"{where} names {' and '.join(given) or 'nothing to read'}; "
                                "expected exactly one of files, table, query")  # fmt: skip
        if given != ["files"] and feed.connection not in connections:
            known = ", ".join(connections) or "none is defined"
            raise SettingsError(
                f"{where}.connection is {feed.connection!r}; expected one of `$.connections`: {known}"
            )
        if given == ["files"] and (feed.connection or feed.high_water):
            raise SettingsError(f"{where}: connection and high_water belong to table or query, not to files")


def anchor(feed: Feed, folder: pathlib.Path) -> Feed:
    """The same feed with its file patterns made absolute."""
    if feed.files is None:
        return feed
    patterns = (feed.files,) if isinstance(feed.files, str) else feed.files
    return msgspec.structs.replace(
        feed, files=tuple(str(folder / pathlib.Path(p).expanduser()) for p in patterns)
    )


def read_feeds(path: pathlib.Path) -> tuple[dict[str, Feed], dict[str, str]]:
    """The ``mapping`` and ``connections`` of a yaml that holds them, a whole retailer's or these sections alone.

    Raises:
        SettingsError: The file cannot be read, or a key is unknown or of the wrong type.
    """
    try:
        whole = msgspec.yaml.decode(path.read_bytes())
        if not isinstance(whole, dict) or "mapping" not in whole:
            raise SettingsError(f"{path.name}: `$.mapping` is missing; expected feeds by name")
        sections = msgspec.convert({k: whole[k] for k in ("mapping", "connections") if k in whole}, _Feeds)
    except (OSError, UnicodeDecodeError, msgspec.ValidationError, msgspec.DecodeError) as error:
        raise SettingsError(f"{path.name}: {error}") from error
    check_feeds(sections.mapping, sections.connections, path.name)
    feeds = {name: anchor(feed, path.resolve().parent) for name, feed in sections.mapping.items()}
    return feeds, sections.connections


class _Feeds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    mapping: dict[str, Feed]
    connections: dict[str, str] = {}


def expand_address(address: str, environment: Mapping[str, str] | None = None) -> str:
    """Put environment variables in place of ``${NAME}`` in a database's address.

    Raises:
        SettingsError: A variable is not set.
    """
    env = os.environ if environment is None else environment

    def value(found: re.Match[str]) -> str:
        if found.group(1) not in env:
            raise SettingsError(
                f"connections: the environment variable {found.group(1)} is not set; expected its value"
            )
        return env[found.group(1)]

    return re.sub(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", value, address)
