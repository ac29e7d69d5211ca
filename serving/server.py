"""Everything one server process holds, wired together and shut down in order.

Belongs here: construction, background threads, and the facts that status routes and pages show. Does
not belong here: HTTP, and the work of the parts themselves.
"""

from __future__ import annotations

import datetime as dt
import logging
import pathlib
import threading
import time
from collections.abc import Sequence
from typing import Literal

import msgspec

from contracts.decisions import Decision
from serving.answers import Answerer, Question
from serving.batcher import Batcher
from serving.clock import Clock
from serving.decision_log import DecisionLog
from serving.engine.sessions import CPU
from serving.inbox.reader import InboxView, pending
from serving.inbox.schema import InboxError
from serving.inbox.writer import Inbox, Receipt
from serving.limits import Limits
from serving.metrics import Metrics
from serving.profiles.intent import IntentModel
from serving.profiles.live import Profiles
from serving.profiles.outlook import Outlooks
from serving.profiles.predictions import Predictions
from serving.profiles.snapshot import SnapshotError, current_name, read_snapshot
from serving.releases.holder import Holder, Refusal
from serving.releases.registry import Registry
from serving.releases.release import Release
from serving.releases.verify import read_verify_key
from serving.routes.types import Readiness, RefusalFacts, ReleaseFacts, ReleaseStatus

logger = logging.getLogger(__name__)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How one server is set up.

    Attributes:
        retailer: Name of the shop.
        title: Title of the shop, for people.
        simulated: True where shoppers are simulated.
        clock: ``stream`` or ``wall``.
        exploration: Probability that the last slot explores.
        inbox: SQLite file of accepted events.
        decisions: SQLite file of decision records.
        profiles: Folder of published histories.
        overview: Folder of what the pages show of the shop at a glance, or None.
        cache: Folder of proven releases.
        verify_key: Public key of the releases.
        alias: Registry alias to follow.
        poll_seconds: How often the registry and the profiles folder are looked at.
        providers: ONNX Runtime execution providers by preference.
        inbox_bytes: Upper bound of the inbox file, or None.
        profile_cache: Profiles kept in memory.
        links: Addresses of the other services by name, for the status page.
        limits: What one request may cost.
    """

    retailer: str
    title: str
    inbox: pathlib.Path
    decisions: pathlib.Path
    profiles: pathlib.Path
    cache: pathlib.Path
    verify_key: pathlib.Path
    overview: pathlib.Path | None = None
    simulated: bool = False
    clock: Literal["stream", "wall"] = "wall"
    exploration: float = 0.0
    alias: str = "champion"
    poll_seconds: float = 3.0
    providers: Sequence[str] = (CPU,)
    inbox_bytes: int | None = None
    profile_cache: int = 4096
    links: dict[str, str] = {}
    limits: Limits = Limits()


class Server:
    """One server.

    Args:
        options: How it is set up.
        registry: Where releases come from, or None to serve the cache alone.

    Raises:
        InboxError: The inbox cannot be opened.
    """

    def __init__(self, options: Options, registry: Registry | None) -> None:
        self.options = options
        self.limits = options.limits
        self.started_at = dt.datetime.now(dt.UTC)
        self.metrics = Metrics()
        self.clock = Clock(options.clock)
        self.profiles = Profiles(InboxView(options.inbox), options.profile_cache)
        self.holder = Holder(
            registry,
            lambda: read_verify_key(options.verify_key),
            options.cache,
            alias=options.alias,
            providers=options.providers,
            on_swap=self._swapped,
            on_refusal=self._refused,
        )
        self.inbox = Inbox(
            options.inbox,
            on_commit=self.clock.observe,
            queue_limit=options.limits.waiting_batches,
            max_bytes=options.inbox_bytes,
        )
        self.decisions = DecisionLog(options.decisions)
        self.predictions = Predictions(options.overview)
        self.outlooks = Outlooks(options.overview)
        self.intent = IntentModel(options.overview)
        self.profiles_error = ""
        self.intake = {"accepted": 0, "duplicate": 0, "refused": 0}
        answerer = Answerer(
            lambda: self.holder.current,
            self.profiles,
            self.clock,
            self.decisions,
            self.metrics,
            options.exploration,
        )
        self.batcher: Batcher[Question, Decision] = Batcher(
            answerer.answer, options.limits.waiting_answers, options.limits.micro_batch
        )
        self._stop = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="profiles", daemon=True)

    def start(self) -> None:
        """Load what is there and follow what comes; the cache answers if the registry does not."""
        latest = InboxView(self.options.inbox).latest_us()
        if latest is not None:
            self.clock.observe(latest)
        self.refresh_profiles()
        self.holder.start_from_cache()
        self.holder.start(self.options.poll_seconds)
        self._watcher.start()

    def close(self) -> None:
        """Answer and store what is waiting, then stop every thread."""
        self._stop.set()
        self.holder.close()
        self.batcher.close()
        self.inbox.close()
        self.decisions.close()
        if self._watcher.is_alive():
            self._watcher.join(timeout=10.0)

    def refresh_profiles(self) -> bool:
        """Load the newest published histories if they are newer; True if they changed.

        Never raises: unreadable ones are noted and the old ones stay.
        """
        try:
            name = current_name(self.options.profiles)
            current = self.profiles.snapshot
            if name is None or (current is not None and current.name == name):
                return False
            snapshot = read_snapshot(self.options.profiles, name)
            if snapshot.meta.retailer != self.options.retailer:
                raise SnapshotError(f"snapshot {name} is of '{snapshot.meta.retailer}'")
        except SnapshotError as error:
            if self.profiles_error != str(error):
                logger.error("profiles: %s", error)
            self.profiles_error = str(error)
            return False
        self.profiles.use_snapshot(snapshot)
        if snapshot.meta.events:
            self.clock.observe(snapshot.meta.newest_us)
        self.profiles_error = ""
        logger.info(
            "profiles %s: %d customers, %d events", name, snapshot.meta.customers, snapshot.meta.events
        )
        return True

    def note_intake(self, receipt: Receipt, refused: int) -> None:
        """Count what became of a batch of events; called on the event loop only."""
        counts = {"accepted": receipt.accepted, "duplicate": len(receipt.duplicates), "refused": refused}
        for outcome, count in counts.items():
            if count:
                self.intake[outcome] += count
                self.metrics.events.labels(outcome).inc(count)

    def pending_events(self) -> int | None:
        """Accepted events that the published histories do not hold yet; None if the inbox is unreadable."""
        snapshot = self.profiles.snapshot
        try:
            return pending(self.options.inbox, 0 if snapshot is None else snapshot.meta.inbox_offset)
        except InboxError:
            return None

    def readiness(self) -> Readiness:
        """Whether the server can answer, and what works in a reduced way."""
        current = self.holder.current
        notes = []
        if self.holder.registry_up is False:
            notes.append("registry_down")
        if self.holder.refused and (
            self.holder.swapped_at is None or self.holder.refused[0].at > self.holder.swapped_at
        ):
            notes.append("release_refused")
        if self.profiles_error:
            notes.append("profiles_unreadable")
        elif self.profiles.snapshot is None:
            notes.append("no_profiles")
        if self.decisions.lost:
            notes.append("decisions_not_stored")
        return Readiness(
            ready=current is not None, release="" if current is None else current.name, notes=tuple(notes)
        )

    def release_status(self) -> ReleaseStatus | None:
        """What is served; None while nothing is."""
        holder = self.holder
        current, previous, snapshot = holder.current, holder.previous, self.profiles.snapshot
        if current is None:
            return None
        facts = _facts(current)
        return ReleaseStatus(
            **{name: getattr(facts, name) for name in ReleaseFacts.__struct_fields__},
            retailer=self.options.retailer,
            alias=holder.alias,
            previous=None if previous is None else _facts(previous),
            source=holder.source,
            swaps=holder.swaps,
            swapped_at=_iso(holder.swapped_at),
            registry={None: "none", True: "up", False: "down"}[holder.registry_up],
            registry_error=holder.registry_error,
            checked_at=_iso(holder.checked_at),
            refused=tuple(
                RefusalFacts(version=r.version, reason=r.reason, at=_iso(r.at)) for r in holder.refused
            ),
            profiles="" if snapshot is None else snapshot.name,
        )

    def _swapped(self, release: Release) -> None:
        self.metrics.swaps.inc()
        self.metrics.release.info({"release": release.name, "version": release.version})

    def _refused(self, refusal: Refusal) -> None:
        self.metrics.refusals.inc()

    def _watch(self) -> None:
        while not self._stop.wait(self.options.poll_seconds):
            started = time.monotonic()
            try:
                self.refresh_profiles()
                self.metrics.registry_up.set(1 if self.holder.registry_up else 0)
            except Exception:  # The thread must outlive any failure: it is the only way to newer profiles.
                logger.exception("looking for newer profiles failed after %.1f s", time.monotonic() - started)


def _facts(release: Release) -> ReleaseFacts:
    manifest = release.manifest
    return ReleaseFacts(
        release=manifest.release,
        version=release.version,
        created_at=_iso(manifest.created_at),
        as_of=_iso(manifest.as_of),
        loaded_at=_iso(release.loaded_at),
        metrics=manifest.metrics,
        models={c.name: c.model for c in manifest.components if c.model},
        providers=release.engine.providers,
        simulated=manifest.simulated,
    )


def _iso(moment: dt.datetime | None) -> str:
    return "" if moment is None else moment.isoformat()
