"""The one place that reads the environment, and the reader of a shop's yaml.

Belongs here: where state lives, which shop is open, ports, reading and checking the retailer's yaml. Does not
belong here: the yaml's typed sections (`retailer.py`), anything computed from data.
"""

from __future__ import annotations

import datetime as dt
import os
import pathlib
import re
from collections.abc import Mapping

import msgspec

from contracts.outbound import OutboundError, anchor_destination, check_outbound
from contracts.policy import PolicyError, check_policy
from contracts.retailer import Feed, Pictures, Retailer

RETAILERS = pathlib.Path(__file__).resolve().parent.parent / "orchestration" / "retailers"
ROOT = pathlib.Path(__file__).resolve().parent.parent


class SettingsError(ValueError):
    """A setting or profile that cannot be used; the message names the key and what was expected."""


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
        pictures: Folder of photos in the layout of fashion-products that stands in for drawn pictures, or None.
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
    pictures: pathlib.Path | None = None

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
    def media(self) -> pathlib.Path:
        """Pictures that pages show, small."""
        return self.home / "media"

    @property
    def visual(self) -> pathlib.Path:
        """The catalogue of pictures, drawn pictures, and what was made of them."""
        return self.home / "visual"

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
    data, pictures = env.get("CONTINUUM_DATA"), env.get("CONTINUUM_PICTURES")
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
        pictures=pathlib.Path(pictures).expanduser().resolve() if pictures else None,
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
    retailer = msgspec.structs.replace(retailer, pictures=_pictures(retailer.pictures, settings, path))
    if retailer.last_day < retailer.first_day:
        raise SettingsError(
            f"{path.name}: last_day {retailer.last_day} is before first_day {retailer.first_day}; expected a later day"
        )
    return retailer


def _pictures(given: Pictures | None, settings: Settings, path: pathlib.Path) -> Pictures | None:
    """A shop's pictures with roots made absolute; None where it has none on this installation.

    Raises:
        SettingsError: Keys do not fit together, or a folder stands in for pictures that are not drawn.
    """
    if given is None:
        return None
    if settings.pictures is not None:
        if given.layout != "drawn":
            raise SettingsError(
                f"CONTINUUM_PICTURES is set and {path.name} has pictures of layout '{given.layout}'; "
                "expected a shop whose pictures are drawn"
            )
        given = msgspec.structs.replace(
            given,
            layout="fashion-products",
            root=str(settings.pictures),
            belongs="alike",
            learn={
                "street-looks": "${CONTINUUM_DATA}/street-looks"
            },  # People in photos, where they are at hand.
            looks="${CONTINUUM_DATA}/street-looks/photos.zip",
            looks_shown=min(given.looks_shown, 60),
        )
    where = f"{path.name}: `$.pictures"
    if (given.layout == "drawn") == bool(given.root):
        raise SettingsError(
            f"{where}.root` is '{given.root}'; expected a folder, and nothing for drawn pictures"
        )
    if (given.belongs == "type") != bool(given.types):
        raise SettingsError(
            f"{where}.types` is '{given.types}'; expected a CSV file exactly with `belongs: type`"
        )
    if isinstance(given.looks, int) and given.looks < 0:
        raise SettingsError(f"{where}.looks` is {given.looks}; expected 0 or more, or a folder")
    environment = {**os.environ, **({"CONTINUUM_DATA": str(settings.data)} if settings.data else {})}

    def absolute(root: str) -> str | None:
        names = re.findall(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", root)
        if any(not environment.get(name) for name in names):
            return None
        return str(path.resolve().parent / pathlib.Path(expand_address(root, environment)).expanduser())

    hub = given.layout == "hub" and not _root_is_folder(given.root, path)
    root = given.root if hub or not given.root else absolute(given.root)
    if root is None:
        return None
    return msgspec.structs.replace(
        given,
        root=root,
        types=given.types and str(absolute(given.types)),
        learn={layout: found for layout, text in given.learn.items() if (found := absolute(text))},
        looks=given.looks if isinstance(given.looks, int) else absolute(given.looks) or 0,
    )


def _root_is_folder(root: str, path: pathlib.Path) -> bool:
    """Whether the root of a hub's data set is a folder beside the yaml (otherwise it is a name)."""
    return (path.resolve().parent / pathlib.Path(root).expanduser()).is_dir()


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
