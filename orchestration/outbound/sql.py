"""Audiences as rows of a SQL table, through SQLAlchemy: PostgreSQL, SQLite, and whatever else it has a driver for.

A table may hold several audiences with the same columns; its key is (audience, person_id) or (audience, action_id). Every
change of an audience is one transaction: readers see the former rows or the new ones.

Belongs here: the table, writing, reading back, taking persons out. Does not belong here: who is in it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from contracts.outbound import OutboundError
from contracts.settings import SettingsError, expand_address

if TYPE_CHECKING:
    import sqlalchemy as sa

CHUNK = 500
"""Keys named in one statement: SQLite takes 999 values at least."""

DRIVERS = {"postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg"}
"""Drivers that the project installs, for addresses that name none."""


def write(
    address: str, table: str, audience: str, key: str, rows: pa.Table, mode: str, at: dt.datetime, where: str
) -> dict[str, int]:
    """Bring a table to what an audience is now.

    Args:
        address: Of the database; ``${VARIABLE}`` is read from the environment.
        table: Name, perhaps with a schema.
        audience: Whose rows.
        key: Column that names a row.
        rows: What leaves.
        mode: ``replace`` or ``upsert``.
        at: Written into ``exported_at``.
        where: Begins every message.

    Returns:
        ``added``, ``changed`` and ``removed`` rows.

    Raises:
        OutboundError: The database cannot be reached or refuses, or the table has other columns.
    """
    with _opened(address, where) as engine:
        made = _table(engine, table, key, rows.schema, where)
        new = {row[key]: row for row in rows.to_pylist()}
        with engine.begin() as con:
            # A read that is going to be followed by a write: SQLite has to be told, or two writers collide late.
            old = _stored(con, made, audience, key)
            added = [row for name, row in new.items() if name not in old]
            changed = [row for name, row in new.items() if name in old and _differs(row, old[name])]
            removed = [name for name in old if name not in new]
            if mode == "replace":
                con.execute(made.delete().where(made.c.audience == audience))
                written = list(new.values())
            else:
                gone = [*removed, *(row[key] for row in changed)]
                for start in range(0, len(gone), CHUNK):
                    part = gone[start : start + CHUNK]
                    con.execute(made.delete().where(made.c.audience == audience, made.c[key].in_(part)))
                written = [*added, *changed]
            for start in range(0, len(written), CHUNK):
                part = [
                    {**row, "audience": audience, "exported_at": at} for row in written[start : start + CHUNK]
                ]
                con.execute(made.insert(), part)
    return {"added": len(added), "changed": len(changed), "removed": len(removed)}


def persons_of(address: str, table: str, audience: str, where: str) -> list[str]:
    """Persons in the stored rows of an audience, one per row; none where there is no table.

    Raises:
        OutboundError: The database cannot be reached.
    """
    with _opened(address, where) as engine:
        found = _existing(engine, table)
        if found is None:
            return []
        import sqlalchemy as sa

        with engine.connect() as con:
            query = sa.select(found.c.person_id).where(found.c.audience == audience)
            return [row[0] for row in con.execute(query)]


def forget(address: str, table: str, persons: Collection[str], dry_run: bool, where: str) -> int:
    """Take persons out of a table, of all its audiences, and have the database give their bytes up.

    Returns:
        How many rows were (or would be) removed.

    Raises:
        OutboundError: The database cannot be reached.
    """
    import sqlalchemy as sa

    wanted = sorted(persons)
    with _opened(address, where) as engine:
        found = _existing(engine, table)
        if found is None:
            return 0
        count = 0
        with engine.begin() as con:
            if engine.dialect.name == "sqlite":
                con.exec_driver_sql("pragma secure_delete = on")
            for start in range(0, len(wanted), CHUNK):
                theirs = found.c.person_id.in_(wanted[start : start + CHUNK])
                if dry_run:
                    query = sa.select(sa.func.count()).select_from(found).where(theirs)
                    count += int(con.execute(query).scalar_one())
                else:
                    count += con.execute(found.delete().where(theirs)).rowcount
        if count and not dry_run:
            _give_up_bytes(engine, table)
    return count


def clear(address: str, table: str, audience: str, where: str) -> int:
    """Remove all rows of an audience.

    Returns:
        How many there were.

    Raises:
        OutboundError: The database cannot be reached.
    """
    with _opened(address, where) as engine:
        found = _existing(engine, table)
        if found is None:
            return 0
        with engine.begin() as con:
            return int(con.execute(found.delete().where(found.c.audience == audience)).rowcount)


@contextlib.contextmanager
def _opened(address: str, where: str) -> Iterator[sa.Engine]:
    import sqlalchemy as sa

    try:
        url = sa.make_url(expand_address(address))
        if url.drivername in DRIVERS:
            url = url.set(drivername=DRIVERS[url.drivername])
        engine = sa.create_engine(url)
    except (sa.exc.ArgumentError, SettingsError, ImportError, ValueError) as error:
        said = (
            str(error)
            if isinstance(error, SettingsError | ImportError)
            else "expected NAME://USER:${PASSWORD}@HOST/DATABASE"
        )
        raise OutboundError(f"{where} cannot be opened: {said}") from error
    if engine.dialect.name == "sqlite":
        _make_sqlite_transactional(engine)
    try:
        yield engine
    except sa.exc.SQLAlchemyError as error:
        # The driver's words, never the address or the values.
        cause = str(getattr(error, "orig", None) or type(error).__name__).strip().splitlines()[0][:200]
        raise OutboundError(f"{where}: {cause}") from error
    finally:
        engine.dispose()


def _make_sqlite_transactional(engine: sa.Engine) -> None:
    """Python's driver begins too late by itself (docs.sqlalchemy.org, "Serializable isolation / Savepoints")."""
    from sqlalchemy import event

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql("begin immediate")


def _split(table: str) -> tuple[str | None, str]:
    schema, _, name = table.rpartition(".")
    return schema or None, name


def _existing(engine: sa.Engine, table: str) -> sa.Table | None:
    import sqlalchemy as sa

    schema, name = _split(table)
    if not sa.inspect(engine).has_table(name, schema=schema):
        return None
    found = sa.Table(name, sa.MetaData(), schema=schema, autoload_with=engine)
    return found if {"audience", "person_id"} <= set(found.c.keys()) else None


def _table(engine: sa.Engine, table: str, key: str, schema: pa.Schema, where: str) -> sa.Table:
    import sqlalchemy as sa

    space, name = _split(table)
    types: dict[Any, Any] = {
        pa.string(): sa.Text(), pa.float64(): sa.Double(), pa.bool_(): sa.Boolean(),
        pa.timestamp("us", tz="UTC"): sa.DateTime(timezone=True),
    }  # fmt: skip
    keyed = {key, "person_id"}
    columns = [
        sa.Column("audience", sa.String(64), primary_key=True),
        *(
            sa.Column(f.name, sa.String(64) if f.name in keyed else types[f.type], primary_key=f.name == key,
                      nullable=f.name not in keyed, index=f.name == "person_id" and key != "person_id")
            for f in schema
        ),
        sa.Column("exported_at", sa.DateTime(timezone=True), nullable=False),
    ]  # fmt: skip
    made = sa.Table(name, sa.MetaData(), *columns, schema=space)
    inspector = sa.inspect(engine)
    if inspector.has_table(name, schema=space):
        there = {column["name"] for column in inspector.get_columns(name, schema=space)}
        wanted = {column.name for column in columns}
        if there != wanted:
            missing, extra = sorted(wanted - there), sorted(there - wanted)
            raise OutboundError(
                f"{where}: table {table} has other columns (missing {missing}, not expected {extra}); expected a table "
                "for each set of fields, or to drop this one"
            )
    made.metadata.create_all(engine, checkfirst=True)
    return made


def _stored(con: sa.Connection, table: sa.Table, audience: str, key: str) -> dict[str, dict[str, Any]]:
    import sqlalchemy as sa

    rows = con.execute(sa.select(table).where(table.c.audience == audience)).mappings()
    return {row[key]: dict(row) for row in rows}


def _differs(row: dict[str, Any], stored: dict[str, Any]) -> bool:
    return any(_comparable(value) != _comparable(stored[name]) for name, value in row.items())


def _comparable(value: Any) -> Any:
    """SQLite gives times back without their zone, and other databases with their own."""
    if isinstance(value, dt.datetime):
        return (value if value.tzinfo else value.replace(tzinfo=dt.UTC)).astimezone(dt.UTC)
    return value


def _give_up_bytes(engine: sa.Engine, table: str) -> None:
    """Deleted rows stay in the file until the database writes it anew; other databases have ways of their own."""
    if engine.dialect.name not in ("sqlite", "postgresql"):
        return
    if engine.dialect.name == "sqlite":
        connection = engine.raw_connection()
        try:
            cursor = connection.cursor()
            cursor.execute("vacuum")
            cursor.execute("pragma wal_checkpoint(truncate)")
        finally:
            connection.close()
        return
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as con:
        quoted = ".".join(f'"{part}"' for part in table.split("."))
        con.exec_driver_sql(f"vacuum full {quoted}")
