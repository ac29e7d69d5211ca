"""The outbox: what is to be sent and has not yet been, and the record of everything that left; one SQLite file.

A message is written here, on disk, before anything is sent, and removed only after the receiver has said yes: a
process that is killed at any instant sends again and loses nothing (at least once; the message's id tells the receiver).
Rows are kept apart from their message, so that a person who withdraws consent or is erased can be taken out of what
still waits.

Belongs here: storage and its transactions. Does not belong here: sending (`sending.py`), what the messages say to
the outside (`messages.py`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import pathlib
import sqlite3
import uuid
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import msgspec

from contracts.events import Purpose
from orchestration.outbound.records import CHANGES, KEEP_SENT, SCHEMA, Change, Item, Message, Place


class Outbox:
    """The outbox of an installation.

    Args:
        folder: `Settings.outbound`; made where it is missing.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "outbox.sqlite"
        self._con = sqlite3.connect(self.path, timeout=30, isolation_level=None)
        self.path.chmod(0o600)
        for statement in (
            "journal_mode = wal",
            "synchronous = full",
            "secure_delete = on",
            "foreign_keys = on",
        ):
            self._con.execute(f"pragma {statement}")
        self._con.executescript(SCHEMA)

    def close(self) -> None:
        """Let go of the file."""
        self._con.close()

    def __enter__(self) -> Outbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing."""
        self._con.execute("begin immediate")
        try:
            yield self._con
        except BaseException:
            self._con.execute("rollback")
            raise
        self._con.execute("commit")

    def note(self, place: Place) -> None:
        """Remember a place before it is written to, so that it is found again whatever happens."""
        row = dataclasses.astuple(place)
        self._con.execute("insert or replace into written values (?, ?, ?, ?, ?)", row)

    def forget_place(self, place: Place) -> None:
        """The place holds nothing of ours any more."""
        self._con.execute(
            "delete from written where destination = ? and audience = ? and place = ?",
            (place.destination, place.audience, place.place),
        )

    def places(self) -> list[Place]:
        """Everywhere that something was written to."""
        return [Place(*row) for row in self._con.execute("select * from written order by 1, 2, 4")]

    def choose(self, audience: str, rows: int) -> None:
        """Remember how many rows an audience had when it was chosen last."""
        self._con.execute("insert or replace into chosen values (?, ?)", (audience, rows))

    def chosen(self) -> dict[str, int]:
        """Rows of every audience when it was chosen last."""
        return dict(self._con.execute("select audience, rows from chosen").fetchall())

    def complain(self, problems: Sequence[str]) -> None:
        """Remember what failed in the last run, in place of the run before."""
        with self.transaction() as con:
            con.execute("delete from problems")
            con.executemany("insert into problems values (?)", [(text,) for text in problems])

    def problems(self) -> list[str]:
        """What failed in the last run."""
        return [row[0] for row in self._con.execute("select text from problems")]

    def recipients(self, persons: Sequence[str]) -> list[str]:
        """Destinations that were ever told of some of these persons."""
        marks = ", ".join("?" * len(persons))
        rows = self._con.execute(
            f"select distinct destination from recipients where person_id in ({marks}) order by 1", persons
        )
        return [row[0] for row in rows]

    def enqueue(
        self,
        destination: str,
        audience: str,
        purpose: Purpose,
        rows: Sequence[tuple[str, str, str]],
        batch: int,
        made_at: str,
    ) -> dict[Change, int]:
        """Write what has changed since the last time as messages; all in one transaction.

        Args:
            destination: Webhook.
            audience: Name.
            purpose: Of the audience.
            rows: (row_id, person_id, JSON) of everybody who is in it now.
            batch: Rows in one message.
            made_at: ISO 8601.

        Returns:
            How many rows were added, changed and removed.
        """
        with self.transaction() as con:
            before = {
                row_id: (person, digest)
                for row_id, person, digest in con.execute(
                    "select row_id, person_id, hash from members where destination = ? and audience = ?",
                    (destination, audience),
                )
            }
            items: list[tuple[Item, str]] = []
            for row_id, person, raw in rows:
                digest = hashlib.sha256(raw.encode()).hexdigest()
                known = before.pop(row_id, None)
                if known is None:
                    items.append((Item("added", row_id, person, raw), digest))
                elif known != (person, digest):
                    items.append((Item("changed", row_id, person, raw), digest))
            gone = [
                (Item("removed", row_id, person, ""), "") for row_id, (person, _) in sorted(before.items())
            ]
            self._write(
                con, destination, audience, purpose, gone + items, batch, made_at
            )  # Who leaves is told first.
        counts: dict[Change, int] = dict.fromkeys(CHANGES, 0)
        for item, _ in gone + items:
            counts[item.change] += 1
        return counts

    def expel(
        self,
        destination: str,
        audience: str,
        purpose: Purpose,
        persons: Collection[str],
        batch: int,
        made_at: str,
    ) -> int:
        """Tell a webhook that persons left, whatever else changes; as `enqueue`.

        Returns:
            How many rows.
        """
        with self.transaction() as con:
            rows = con.execute(
                "select row_id, person_id from members where destination = ? and audience = ? order by row_id",
                (destination, audience),
            )
            gone = [(Item("removed", row_id, person, ""), "") for row_id, person in rows if person in persons]
            self._write(con, destination, audience, purpose, gone, batch, made_at)
        return len(gone)

    @staticmethod
    def _write(
        con: sqlite3.Connection, destination: str, audience: str, purpose: Purpose,
        items: Sequence[tuple[Item, str]], batch: int, made_at: str,
    ) -> None:  # fmt: skip
        """Messages, their rows, and who is a member after them; items come with the hash of their row."""
        for start in range(0, len(items), batch):
            message_id = f"msg_{uuid.uuid4().hex}"
            con.execute(
                "insert into messages (message_id, destination, audience, purpose, made_at) values (?, ?, ?, ?, ?)",
                (message_id, destination, audience, purpose, made_at),
            )
            part = [item for item, _ in items[start : start + batch]]
            con.executemany(
                "insert into items values (?, ?, ?, ?, ?, ?)",
                [(message_id, place, *dataclasses.astuple(item)) for place, item in enumerate(part)],
            )
        stay = [(item, digest) for item, digest in items if item.change != "removed"]
        con.executemany(
            "insert or replace into members values (?, ?, ?, ?, ?)",
            [(destination, audience, item.row_id, item.person_id, digest) for item, digest in stay],
        )
        con.executemany(
            "delete from members where destination = ? and audience = ? and row_id = ?",
            [(destination, audience, item.row_id) for item, _ in items if item.change == "removed"],
        )
        con.executemany(
            "insert or ignore into recipients values (?, ?)",
            [(destination, item.person_id) for item, _ in stay],
        )

    def members(self) -> dict[tuple[str, str], list[str]]:
        """Persons of whom webhooks were (or will be) told that they are in, per row, by destination and audience."""
        found: dict[tuple[str, str], list[str]] = {}
        for destination, audience, person in self._con.execute(
            "select destination, audience, person_id from members"
        ):
            found.setdefault((destination, audience), []).append(person)
        return found

    def waiting(self, destination: str | None = None) -> list[Message]:
        """Messages that were not accepted yet, in order."""
        names = ", ".join(field.name for field in dataclasses.fields(Message))
        rows = self._con.execute(
            f"select {names} from messages where destination = ? or ? is null order by seq",
            (destination, destination),
        )
        return [
            msgspec.convert(dict(zip(names.split(", "), row, strict=True)), Message, strict=False)
            for row in rows
        ]

    def head(self, destination: str) -> Message | None:
        """The message that comes next for a destination; later ones wait for it, so that order is kept."""
        names = ", ".join(field.name for field in dataclasses.fields(Message))
        row = self._con.execute(
            f"select {names} from messages where destination = ? order by seq limit 1", (destination,)
        ).fetchone()
        return (
            None
            if row is None
            else msgspec.convert(dict(zip(names.split(", "), row, strict=True)), Message, strict=False)
        )

    def items(self, message: Message) -> list[Item]:
        """Rows of a message."""
        rows = self._con.execute(
            "select change, row_id, person_id, raw from items where message_id = ? order by place",
            (message.message_id,),
        )
        return [Item(*row) for row in rows]

    def accepted(self, message: Message, rows: int, at: str) -> None:
        """The receiver has said yes: the message and its rows go, a receipt stays."""
        with self.transaction() as con:
            self._drop(con, message.message_id)
            con.execute(
                "insert into sent (message_id, destination, audience, sent_at, attempts, rows) values (?, ?, ?, ?, ?, ?)",
                (message.message_id, message.destination, message.audience, at, message.attempts + 1, rows),
            )
            con.execute("delete from sent where seq <= (select max(seq) from sent) - ?", (KEEP_SENT,))

    def failed(self, message: Message, error: str, next_at: float, dead: bool) -> None:
        """An attempt has failed."""
        self._con.execute(
            "update messages set attempts = attempts + 1, error = ?, next_at = ?, dead = ? where message_id = ?",
            (error[:500], next_at, int(dead), message.message_id),
        )

    def dropped(self, message: Message) -> None:
        """Nothing is left to say."""
        with self.transaction() as con:
            self._drop(con, message.message_id)

    def revive(self, destination: str | None = None) -> int:
        """Try dead messages again, from the first attempt.

        Returns:
            How many.
        """
        return self._con.execute(
            "update messages set dead = 0, attempts = 0, next_at = 0 where dead = 1 and (destination = ? or ? is null)",
            (destination, destination),
        ).rowcount

    def retire(self, destination: str) -> int:
        """A webhook that the yaml no longer has: what waits for it can never be sent, and nobody is its member.

        Returns:
            How many messages were given up.
        """
        with self.transaction() as con:
            ids = [
                row[0]
                for row in con.execute(
                    "select message_id from messages where destination = ?", (destination,)
                )
            ]
            for message_id in ids:
                self._drop(con, message_id)
            con.execute("delete from members where destination = ?", (destination,))
        return len(ids)

    def forget(self, persons: Sequence[str], texts: Sequence[str], dry_run: bool) -> int:
        """Take persons out of what waits and out of who is a member.

        Args:
            persons: Their ids.
            texts: Further texts that name them.
            dry_run: Only count.

        Returns:
            How many rows.
        """
        marks = ", ".join("?" * len(persons)) or "''"
        mentioned = " or ".join(["0", *("instr(raw, ?) > 0" for _ in texts)])
        wheres = {
            "items": (f"person_id in ({marks}) or {mentioned}", [*persons, *texts]),
            "members": (f"person_id in ({marks})", list(persons)),
        }
        found = 0
        with self.transaction() as con:
            for table, (where, values) in wheres.items():
                found += con.execute(f"select count(*) from {table} where {where}", values).fetchone()[0]
                if not dry_run:
                    con.execute(f"delete from {table} where {where}", values)
        return found

    def known_to(self, destination: str, persons: Sequence[str]) -> list[str]:
        """Of these persons, the ids by which a destination was told of them."""
        marks = ", ".join("?" * len(persons))
        query = (
            f"select person_id from recipients where destination = ? and person_id in ({marks}) order by 1"
        )
        return [row[0] for row in self._con.execute(query, (destination, *persons))]

    def told(self, destination: str, persons: Sequence[str]) -> None:
        """The destination was told to erase these persons."""
        with self.transaction() as con:
            con.executemany(
                "delete from recipients where destination = ? and person_id = ?",
                [(destination, p) for p in persons],
            )

    def compact(self) -> None:
        """Have no byte left of what was deleted."""
        self._con.execute("vacuum")
        self._con.execute("pragma wal_checkpoint(truncate)")

    def sent(self) -> list[dict[str, Any]]:
        """Receipts, the latest first."""
        names = ("message_id", "destination", "audience", "sent_at", "attempts", "rows")
        rows = self._con.execute(f"select {', '.join(names)} from sent order by seq desc")
        return [dict(zip(names, row, strict=True)) for row in rows]

    @staticmethod
    def _drop(con: sqlite3.Connection, message_id: str) -> None:
        con.execute("delete from items where message_id = ?", (message_id,))
        con.execute("delete from messages where message_id = ?", (message_id,))
