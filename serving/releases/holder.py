"""Which release is served: follow an alias, swap without a gap, keep the previous, survive the registry.

The alias is resolved to a version once per poll; everything slow (copying, proving, loading, golden
requests, warming up) happens beside the live release; going live is the assignment of one reference.
Requests that began with the old release finish with it.

Belongs here: the life cycle. Does not belong here: how a release is fetched (`pull.py`), proven
(`verify.py`) or loaded (`release.py`).
"""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import logging
import pathlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from serving.engine.sessions import CPU
from serving.releases.pull import Served, pull, read_served, tidy, write_served
from serving.releases.registry import Registry, RegistryError
from serving.releases.release import Release, build_release, require_golden
from serving.releases.verify import KeyMissingError, ReleaseError, Verified, verify_folder

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

RETRY_REFUSED_SECONDS = 600.0
"""A version that was refused is not looked at again for this long, unless the alias moves."""

logger = logging.getLogger(__name__)


class Refusal(msgspec.Struct, frozen=True):
    """A release that was not let in.

    Attributes:
        version: Version in the registry.
        reason: What was wrong.
        at: When, UTC.
    """

    version: str
    reason: str
    at: dt.datetime


class Holder:
    """Holds the release that answers.

    Args:
        registry: Where releases come from, or None to serve the cache alone.
        read_key: Reads the public key that must have signed releases; asked at every use, so that a key
            may come, or change, while the server runs.
        cache: Folder of proven releases.
        alias: What to follow.
        providers: ONNX Runtime execution providers by preference.
        prepare: Called with a release just before it goes live (warm-up of what depends on it).
        on_swap: Called after a release went live.
        on_refusal: Called after one was refused.

    Attributes:
        current: The release that answers, or None.
        previous: The one before, kept for instant rollback.
        source: Where the current one came from.
        swaps: Releases that went live since the start.
        swapped_at: When the current one did.
        registry_up: Whether the last poll reached the registry; None before the first.
        registry_error: What the last failure was.
        checked_at: Time of the last poll.
        refused: Latest refusals, newest first.
    """

    def __init__(
        self,
        registry: Registry | None,
        read_key: Callable[[], Ed25519PublicKey],
        cache: pathlib.Path,
        alias: str = "champion",
        providers: Sequence[str] = (CPU,),
        prepare: Callable[[Release], None] = lambda release: None,
        on_swap: Callable[[Release], None] = lambda release: None,
        on_refusal: Callable[[Refusal], None] = lambda refusal: None,
    ) -> None:
        self._registry = registry
        self._read_key = read_key
        self._cache = cache
        self.alias = alias
        self._providers = providers
        self._prepare = prepare
        self._on_swap = on_swap
        self._on_refusal = on_refusal
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._refused_at: dict[str, float] = {}
        self.current: Release | None = None
        self.previous: Release | None = None
        self.source: Literal["", "registry", "cache"] = ""
        self.swaps = 0
        self.swapped_at: dt.datetime | None = None
        self.registry_up: bool | None = None
        self.registry_error = ""
        self.checked_at: dt.datetime | None = None
        self.refused: collections.deque[Refusal] = collections.deque(maxlen=20)

    def start_from_cache(self) -> bool:
        """Serve what was served last, proven again; True if that worked."""
        served = read_served(self._cache)
        if served is None:
            return False
        try:
            verified = verify_folder(self._cache / served.release, self._read_key())
            self._go_live(verified, served.version, "cache")
        except ReleaseError as error:
            self._refuse(served.version, f"in the cache: {error}", final=False)
            return False
        return True

    def poll(self) -> bool:
        """Ask the registry once and swap if the alias moved; True if a release went live.

        Never raises: what goes wrong is kept in the attributes, and the old release stays.
        """
        with self._lock:
            if self._registry is None:
                return False
            self.checked_at = dt.datetime.now(dt.UTC)
            version = ""
            try:
                pointer = self._registry.resolve(self.alias)
                self.registry_up, self.registry_error = True, ""
                if pointer is None:
                    return False
                version = pointer.version
                if self.current is not None and self.source == "registry" and self.current.version == version:
                    return False
                if self.previous is not None and self.previous.version == version:
                    self._swap(self.previous, "registry")
                    return True
                refused_at = self._refused_at.get(version)
                if refused_at is not None and time.monotonic() - refused_at < RETRY_REFUSED_SECONDS:
                    return False
                verified = pull(self._registry, pointer, self._read_key(), self._cache)
                if self.current is not None and self.current.manifest == verified.manifest:
                    self.current, self.source = dataclasses.replace(self.current, version=version), "registry"
                    return False
                self._go_live(verified, version, "registry")
            except RegistryError as error:
                self.registry_up, self.registry_error = False, str(error)
                logger.warning("registry: %s", error)
                return False
            except ReleaseError as error:
                self._refuse(version, str(error), final=not isinstance(error, KeyMissingError))
                return False
            except OSError as error:
                self._refuse(version, f"the local cache cannot be written ({error.strerror})", final=False)
                return False
            return True

    def start(self, seconds: float) -> None:
        """Poll in the background, at once and then every so many seconds, until `close`."""
        self._thread = threading.Thread(target=self._follow, args=(seconds,), name="releases", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop polling."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10.0)

    def _follow(self, seconds: float) -> None:
        while True:
            try:
                self.poll()
            except Exception:  # The thread must outlive any failure: it is the only way to a newer release.
                logger.exception("following the alias failed")
            if self._stop.wait(seconds):
                return

    def _go_live(self, verified: Verified, version: str, source: Literal["registry", "cache"]) -> None:
        require_golden(verified)
        self._swap(build_release(verified, self._providers, version), source)

    def _swap(self, release: Release, source: Literal["registry", "cache"]) -> None:
        self._prepare(release)
        self.previous, self.current = self.current, release
        self.source = source
        self.swaps += 1
        self.swapped_at = dt.datetime.now(dt.UTC)
        logger.info("release %s (version %s, from %s) is live", release.name, release.version or "-", source)
        self._on_swap(release)
        try:
            write_served(self._cache, Served(release.name, release.version))
            tidy(self._cache, {held.name for held in (self.current, self.previous) if held is not None})
        except OSError as error:
            logger.warning("the release cache cannot be written: %s", error)

    def _refuse(self, version: str, reason: str, final: bool = True) -> None:
        if final:
            self._refused_at[version] = time.monotonic()
        if self.refused and (self.refused[0].version, self.refused[0].reason) == (version, reason):
            return
        refusal = Refusal(version, reason, dt.datetime.now(dt.UTC))
        self.refused.appendleft(refusal)
        logger.error("release version %s refused: %s", version or "-", reason)
        self._on_refusal(refusal)
