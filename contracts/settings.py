"""The one place that reads the environment, and the typed profile of a shop.

Belongs here: where state lives, which shop is open, ports, and the retailer's yaml. Does not
belong here: anything computed from data.
"""

from __future__ import annotations

import datetime as dt
import os
import pathlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

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


class Gate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a challenger must show on the frozen set.

    Attributes:
        least_ratio: Lower bound of its NDCG@10 over the best baseline's must exceed this; below 1 only for
            shops (or tests) with too few requests for a narrow interval.
        approval: ``gate``: a challenger that passes becomes champion; ``person``: it waits for one.
    """

    least_ratio: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    approval: Literal["gate", "person"] = "gate"


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
    if settings.last_day:
        retailer = msgspec.structs.replace(retailer, last_day=settings.last_day)
    if retailer.last_day < retailer.first_day:
        raise SettingsError(
            f"{path.name}: last_day {retailer.last_day} is before first_day {retailer.first_day}; expected a later day"
        )
    return retailer
