"""Who is who: kinds of identifiers, the name of a person, and the memory of erased ones.

A strong identifier belongs to one person by its nature (an account, a card, an address) and may join
others; any other kind (a device, a cookie) only follows a person and never joins two.

A tombstone is a keyed hash (HMAC-SHA-256 under a random salt of the installation) of an identifier or of
an event's key. It lets the door recognise what was erased and tells nobody who it was.

Belongs here: what lake, server and command line must agree on. Does not belong here: stitching
(`orchestration/lake/identity.py`), erasing (`orchestration/lake/erasure.py`).
"""

from __future__ import annotations

import hashlib
import hmac
import pathlib
from collections.abc import Iterable

import msgspec

LOGIN = "customer"
STRONG_KINDS: tuple[str, ...] = (LOGIN, "loyalty_card", "email_sha256", "phone_sha256")
"""Kinds that may join identifiers into one person, most trusted first."""

TOMBSTONES_FILE = "tombstones.json"
"""Name of the tombstones' file, beside the inbox."""

FORMAT = 1
_DIGEST_CHARACTERS = 32


class TombstoneError(RuntimeError):
    """A tombstone file that cannot be read; nothing may be taken in until it can."""


def person_id(kind: str, value: str, attempt: int = 0) -> str:
    """The name of a person who is first known by this identifier.

    Args:
        kind: Kind of the identifier.
        value: Its value.
        attempt: Counts up where a name is taken by somebody else.
    """
    text = f"{kind}\0{value}" if attempt == 0 else f"{kind}\0{value}\0{attempt}"
    return "p_" + hashlib.sha256(text.encode()).hexdigest()[:20]


class TombstoneContent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Content of the tombstones' file.

    Attributes:
        format: Version of this layout.
        salt: Hex of 32 random bytes, drawn once per installation.
        digests: Sorted digests of everything erased.
    """

    format: int
    salt: str
    digests: tuple[str, ...]


class Tombstones:
    """What was erased, as digests.

    Args:
        salt: Key of the digests.
        digests: Of everything erased.
    """

    def __init__(self, salt: bytes, digests: Iterable[str] = ()) -> None:
        self.salt = salt
        self.digests = frozenset(digests)

    def __len__(self) -> int:
        return len(self.digests)

    def of_identifier(self, kind: str, value: str) -> str:
        """Digest of an identifier."""
        return self._digest("identifier", kind, value)

    def of_event(self, source: str, event_id: str) -> str:
        """Digest of an event's key, for events that name an erased person by no identifier of their own."""
        return self._digest("event", source, event_id)

    def of_session(self, session_id: str) -> str:
        """Digest of a visit that was one person's alone."""
        return self._digest("session", session_id)

    def holds(self, identifiers: Iterable[tuple[str, str]], source: str, event_id: str) -> bool:
        """Whether an event belongs to somebody who was erased.

        A device that changed hands does not cost its new owner anything: where an event names a strong
        identifier, only strong ones decide.

        Args:
            identifiers: Its pairs of kind and value.
            source: Its source.
            event_id: Its id in the source.
        """
        if not self.digests:
            return False
        pairs = tuple(identifiers)
        strong = [pair for pair in pairs if pair[0] in STRONG_KINDS]
        if any(self.of_identifier(kind, value) in self.digests for kind, value in strong or pairs):
            return True
        return self.of_event(source, event_id) in self.digests

    def mentioned(self, raw: bytes) -> bool:
        """Whether a refused event names somebody who was erased, as far as it can be read.

        Args:
            raw: What was refused; anything.
        """
        if not self.digests:
            return False
        try:
            found = msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        if not isinstance(found, dict):
            return False
        listed = found.get("identifiers")
        pairs = [
            (str(entry.get("kind")), str(entry.get("value")))
            for entry in (listed if isinstance(listed, list) else [])
            if isinstance(entry, dict)
        ]
        return self.holds(pairs, str(found.get("source")), str(found.get("event_id")))

    def _digest(self, *parts: str) -> str:
        text = "\0".join(parts).encode()
        return hmac.new(self.salt, text, hashlib.sha256).hexdigest()[:_DIGEST_CHARACTERS]


def read_tombstones(path: pathlib.Path) -> Tombstones | None:
    """The tombstones of an installation, or None where nobody was erased yet.

    Raises:
        TombstoneError: The file is damaged or of another format; who reads it must not take in events.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TombstoneError("the tombstones of erased customers cannot be read") from error
    try:
        content = msgspec.json.decode(raw, type=TombstoneContent)
        salt = bytes.fromhex(content.salt)
    except (msgspec.DecodeError, ValueError) as error:
        raise TombstoneError(f"the tombstones of erased customers are damaged: {error}") from error
    if content.format != FORMAT:
        raise TombstoneError(f"tombstones have format {content.format}; expected {FORMAT}")
    return Tombstones(salt, content.digests)


class TombstoneWatch:
    """The tombstones of an installation, read again whenever their file changes.

    Args:
        path: The file; it may appear later.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._current: Tombstones | None = None

    def current(self) -> Tombstones | None:
        """The tombstones as of now, or None where nobody was erased.

        Raises:
            TombstoneError: As `read_tombstones`.
        """
        try:
            found = self._path.stat()
        except FileNotFoundError:
            self._seen, self._current = None, None
            return None
        except OSError as error:
            raise TombstoneError("the tombstones of erased customers cannot be looked at") from error
        stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
        if stamp != self._seen:
            self._current = read_tombstones(self._path)
            self._seen = stamp
        return self._current
