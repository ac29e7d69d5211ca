"""A retailer's own files and tables, by the ``mapping`` in its yaml.

`sync` reads what is new (a file whose content is not known, rows above a table's high water) into parts;
`events` answers a window from all parts, so that late data of an old day comes with that day. Reading again
changes nothing. Of two rows with one event id the one that was read later counts.

Used as a module it serves the shop that the environment names; `bind` serves a given one.

Belongs here: the source ``files``. Does not belong here: how a file becomes a part (`feeds/`).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import glob
import pathlib
import shutil
import uuid
from collections.abc import Collection

import pyarrow as pa

from contracts.retailer import Feed, Retailer
from contracts.settings import Settings, read_retailer, read_settings
from feature_repo.snapshots import connect, literal
from orchestration.lake import tables
from orchestration.sources import WeeklyRows, Window
from orchestration.sources.feeds import answers, database, parts
from orchestration.sources.feeds.answers import Rows
from orchestration.sources.feeds.forgetting import forget
from orchestration.sources.feeds.parts import Part
from orchestration.sources.feeds.paths import MappingError
from orchestration.sources.feeds.staging import broken_file, rows_file, stage
from orchestration.sources.feeds.text import content_hash

NAME = "files"
BATCH_ROWS = 65_536


class NothingToReadError(RuntimeError):
    """A feed that gives nothing at all; the message says why for each of its files."""


@dataclasses.dataclass(frozen=True)
class Synced:
    """What one `sync` found.

    Attributes:
        read: Parts that were made, of files or rows not seen before.
        unchanged: Files and tables that had nothing new.
    """

    read: tuple[Part, ...]
    unchanged: int


@dataclasses.dataclass(frozen=True)
class Due:
    """What the lake does not show yet.

    Attributes:
        days: UTC days whose events or dead letters may differ from the lake's, sorted.
        timeless: Whether rows without a readable time may differ.
        live: Parts that count, and that are in the lake when these days are.
        dead: Parts that count no more, and that can go then.
    """

    days: tuple[dt.date, ...]
    timeless: bool
    live: tuple[Part, ...]
    dead: tuple[Part, ...]


class Files:
    """The source of one shop.

    Attributes:
        retailer: With ``mapping`` and ``connections``.
        root: Folder of the parts.
    """

    def __init__(self, retailer: Retailer, root: pathlib.Path) -> None:
        if not retailer.mapping:
            raise MappingError(
                f"{retailer.name}: source is 'files', but mapping is empty; expected at least one feed"
            )
        self.retailer = retailer
        self.root = root

    # Reading what is new.

    def sync(self, now: dt.datetime | None = None) -> Synced:
        """Read files and rows that have not been read under this mapping.

        Args:
            now: The clock; events later than it are of a broken clock.

        Raises:
            MappingError: A pattern that matches no file, now or before.
            DatabaseError: A database that cannot be read.
        """
        read: list[Part] = []
        unchanged = 0
        for name, feed in self.retailer.mapping.items():
            made = self._files(name, feed, now) if feed.files is not None else self._table(name, feed, now)
            unchanged += sum(part is None for part in made)
            read += [part for part in made if part is not None]
        return Synced(tuple(read), unchanged)

    def due(self) -> Due:
        """What has been read, or counts no more, and is not in the lake as it should be."""
        live = self.live()
        counted = {part.folder(self.root) for part in live}
        dead = [
            part for name in self.retailer.mapping for part in parts.stored(self.root, name)
            if part.folder(self.root) not in counted
        ]  # fmt: skip
        days: set[dt.date] = set()
        timeless = False
        for part in live:
            span = parts.landed(self.root, part)
            days.update(day for day in part.days if span is None or not span[0] <= day <= span[1])
            timeless = timeless or (span is None and part.broken > 0)
        for part in dead:
            if parts.landed(self.root, part) is not None:
                days.update(part.days)
                timeless = timeless or part.broken > 0
        if any(parts.landed(self.root, part) is None for part in live):
            days.update(answers.repeated_days(Rows.of(self.root, live, "events")))
        return Due(tuple(sorted(days)), timeless, tuple(live), tuple(dead))

    def settle(self, due: Due) -> None:
        """Note that what was due is in the lake, as far as the profile reaches."""
        for part in due.live:
            parts.land(self.root, part, self.retailer.first_day, self.retailer.last_day)
        for part in due.dead:
            shutil.rmtree(part.folder(self.root), ignore_errors=True)

    def _files(self, name: str, feed: Feed, now: dt.datetime | None) -> list[Part | None]:
        mark = parts.fingerprint(feed, self.retailer.currency)
        known = parts.stored(self.root, name)
        paths = matching(feed)
        if not paths and not known:
            raise MappingError(f"mapping.{name}.files is {feed.files}; expected at least one file there")
        latest = {part.origin: part for part in known}
        made: list[Part | None] = []
        for path in paths:
            stat, last = path.stat(), latest.get(str(path))
            same = last is not None and last.fingerprint == mark
            if same and last is not None and (last.size, last.changed_ns) == (stat.st_size, stat.st_mtime_ns):
                made.append(None)
                continue
            digest = content_hash(path)
            if same and last is not None and last.digest == digest:
                made.append(None)
                continue
            part = Part(feed=name, origin=str(path), digest=digest, fingerprint=mark, size=stat.st_size,
                        changed_ns=stat.st_mtime_ns)  # fmt: skip
            made.append(stage(path, part, feed, self.retailer.currency, self.root, now))
        return made

    def _table(self, name: str, feed: Feed, now: dt.datetime | None) -> list[Part | None]:
        mark = parts.fingerprint(feed, self.retailer.currency)
        mine = [part for part in parts.stored(self.root, name) if part.fingerprint == mark]
        waters = [part.high_water for part in mine if part.high_water is not None]
        work = self.root / "work" / uuid.uuid4().hex
        work.mkdir(parents=True)
        try:
            raw = work / "raw.parquet"
            address = self.retailer.connections[feed.connection or ""]
            since = waters[-1] if waters else None
            digest, water, rows = database.pull(feed, name, address, raw, since)
            if (mine and mine[-1].digest == digest) or (mine and not rows and feed.high_water):
                return [None]
            part = Part(
                feed=name,
                origin=feed.table or feed.query or "",
                digest=digest,
                fingerprint=mark,
                high_water=water,
            )
            staged = stage(raw, part, feed, self.retailer.currency, self.root, now)
            return [None] if feed.high_water and self._seen(staged, mine) else [staged]
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _seen(self, part: Part, before: list[Part]) -> bool:
        """Whether a part holds nothing that earlier parts of the table do not; it is removed then."""
        con = connect()
        fresh = 0
        for kind, names in ((rows_file, ", ".join(tables.CANONICAL.names)), (broken_file, "problem, raw")):
            new, old = kind(self.root, part), [str(path) for one in before if (path := kind(self.root, one))]
            if new is not None:
                known = f"except select {names} from {answers.scan(old)}" if old else ""
                query = f"select count(*) from (select {names} from {answers.scan([str(new)])} {known})"
                fresh += con.execute(query).fetchall()[0][0]
        con.close()
        if not fresh:
            shutil.rmtree(part.folder(self.root))
        return not fresh

    # Answering.

    def live(self) -> list[Part]:
        """All parts that count, oldest first."""
        found = [part for name, feed in self.retailer.mapping.items() for part in self._live(name, feed)]
        return sorted(found, key=lambda part: (part.created_ns, part.key))

    def _live(self, name: str, feed: Feed) -> list[Part]:
        mark = parts.fingerprint(feed, self.retailer.currency)
        stored = parts.stored(self.root, name)
        if feed.files is None:
            return parts.live(stored, mark, table=True, growing=feed.high_water is not None)
        # A file that is still there but is no longer meant does not count; one that is gone does.
        meant = {str(path) for path in matching(feed)}
        kept = [part for part in stored if part.origin in meant or not pathlib.Path(part.origin).exists()]
        return parts.live(kept, mark, table=False, growing=False)

    def events(self, window: Window) -> pa.RecordBatchReader:
        """Canonical events of the window after a `sync`; see `orchestration.sources.Source`.

        Raises:
            NothingToReadError: A feed none of whose files could be read.
        """
        self.sync()
        return self.answer(window)

    def answer(self, window: Window) -> pa.RecordBatchReader:
        """Canonical events of the window, and the rows that broke, from what has been read.

        Raises:
            NothingToReadError: A feed none of whose files could be read.
        """
        self.complain()
        live = self.live()
        start = dt.datetime.combine(window.first_day, dt.time(), dt.UTC)
        stop = dt.datetime.combine(window.last_day, dt.time(), dt.UTC) + dt.timedelta(days=1)
        sample = None
        if window.households is not None:
            sample = answers.sample_sql(self._known_customers(live), window.households)
        good = answers.events_sql(Rows.of(self.root, live, "events"), start, stop, sample)
        queries = [] if good is None else [good]
        broken = [str(path) for part in live if (path := broken_file(self.root, part))]
        if broken:
            inside = (
                f"(occurred_at >= timestamptz {literal(start.isoformat())} "
                f"and occurred_at < timestamptz {literal(stop.isoformat())})"
            )
            where = f"{inside} or occurred_at is null" if window.holds_first else inside
            names = ", ".join(tables.CANONICAL.names)
            queries.append(f"select {names} from {answers.scan(broken)} where {where}")
        if not queries:
            return tables.CANONICAL.empty_table().to_reader()
        raw = connect().sql(" union all ".join(queries)).to_arrow_reader(BATCH_ROWS)
        return pa.RecordBatchReader.from_batches(
            tables.CANONICAL, (batch.cast(tables.CANONICAL) for batch in raw)
        )

    def complain(self) -> None:
        """Stop where a feed gives nothing at all.

        Raises:
            NothingToReadError: A feed none of whose files could be read.
        """
        found = self.live()
        for name in self.retailer.mapping:
            mine = [part for part in found if part.feed == name]
            errors = [f"{pathlib.Path(part.origin).name}: {part.error}" for part in mine if part.error]
            if mine and len(errors) == len(mine):
                raise NothingToReadError(
                    f"mapping.{name}: none of its {len(mine)} files can be used; " + "; ".join(errors[:3])
                )

    def _known_customers(self, live: list[Part]) -> str:
        events, customers = (Rows.of(self.root, live, kind) for kind in ("events", "customers"))
        return answers.known_customers_sql(events, customers)

    def products(self) -> pa.Table:
        """The catalogue, and a row for each product that only events name, with what they say of it."""
        self.sync()
        live = self.live()
        query = answers.products_sql(*(Rows.of(self.root, live, kind) for kind in ("products", "events")))
        return connect().sql(query).to_arrow_table().cast(tables.PRODUCTS)

    def customers(self, households: int | None = None) -> pa.Table:
        """Everyone whom a customers' feed lists or an event names."""
        self.sync()
        live = self.live()
        who = self._known_customers(live)
        if households is not None:
            who = answers.sample_sql(who, households)
        query = answers.customers_sql(Rows.of(self.root, live, "customers"), who)
        return connect().sql(query).to_arrow_table().cast(tables.CUSTOMERS)

    def forget(self, values: Collection[str]) -> int:
        """Remove the rows of a person from all parts; see `feeds.forgetting.forget`."""
        stored = [part for name in self.retailer.mapping for part in parts.stored(self.root, name)]
        return forget(self.root, stored, values)

    def offers(self) -> pa.Table:
        """None: coupons of these exports come as events."""
        return tables.OFFERS.empty_table()

    def exposures(self, window: Window) -> WeeklyRows:
        """None."""
        return WeeklyRows(0, -1, tables.EXPOSURES.empty_table().to_reader())


def bind(retailer: Retailer, settings: Settings) -> Files:
    """The source of a shop."""
    return Files(retailer, settings.home / "sources" / retailer.name)


def matching(feed: Feed) -> list[pathlib.Path]:
    """The files of a feed's patterns, sorted; a folder stands for the files in it, hidden ones are left out."""
    patterns = (feed.files,) if isinstance(feed.files, str) else feed.files or ()
    found: set[pathlib.Path] = set()
    for pattern in patterns:
        path = pathlib.Path(pattern)
        names = [str(p) for p in path.rglob("*")] if path.is_dir() else glob.glob(pattern, recursive=True)
        found.update(pathlib.Path(name).resolve() for name in names)
    return sorted(p for p in found if p.is_file() and not p.name.startswith((".", "_")))


# The module itself is the source of the shop that the environment names.


def _shop() -> Files:
    settings = read_settings()
    return bind(read_retailer(settings), settings)


def events(window: Window) -> pa.RecordBatchReader:
    """See `Files.events`."""
    return _shop().events(window)


def products() -> pa.Table:
    """See `Files.products`."""
    return _shop().products()


def customers(households: int | None = None) -> pa.Table:
    """See `Files.customers`."""
    return _shop().customers(households)


def offers() -> pa.Table:
    """See `Files.offers`."""
    return tables.OFFERS.empty_table()


def exposures(window: Window) -> WeeklyRows:
    """See `Files.exposures`."""
    return WeeklyRows(0, -1, tables.EXPOSURES.empty_table().to_reader())
