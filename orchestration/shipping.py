"""From two bundles to a registered release, and from a verdict to the champion.

Belongs here: the order of steps. Does not belong here: the steps themselves (`training/packaging.py`,
`training/evaluation/gates.py`, `training/tracking.py`, `serving/releases`).
"""

from __future__ import annotations

import datetime as dt
import json
import pathlib
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from contracts.release import Manifest
from contracts.retailer import Retailer
from contracts.settings import Settings
from contracts.visual import COMPONENTS
from orchestration.champion import release_model
from orchestration.guarding import guard_lake
from orchestration.judging import Frozen, Judge, baseline_ndcg, latest_frozen, read_requests
from orchestration.training_jobs import latest_bundle
from orchestration.visual.making import parts

if TYPE_CHECKING:
    from serving.releases.release import Release
    from training.ranker.items import ItemTables

GOLDEN_REQUESTS = 8
HEADLINES = (
    "detector_drawn_ap50", "detector_street_ap50", "embedder_type_colour_p_at_10", "embedder_self_first",
    "embedder_look_to_product_r_at_1", "embedder_photo_to_catalogue_r_at_1", "outfit_drawn_fitb", "outfit_street_fitb",
)  # fmt: skip
"""Numbers of the visual models that a verdict mentions in words."""


@dataclass(frozen=True)
class Candidate:
    """A release that was assembled, signed and registered as challenger.

    Attributes:
        folder: The release folder.
        manifest: Its manifest.
        version: Version in the registry.
        visual: Names of its visual parts.
    """

    folder: pathlib.Path
    manifest: Manifest
    version: str
    visual: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What the gate decided about the challenger.

    Attributes:
        version: The challenger's version.
        passed: Whether it may become champion.
        reasons: Why, in words.
        numbers: Differences and their interval bounds.
        means: Mean NDCG@10 of the challenger, the champion and each baseline.
        visual: What the visual models of challenger and champion showed on their reporting parts.
    """

    version: str
    passed: bool
    reasons: list[str]
    numbers: dict[str, float]
    means: dict[str, float]
    visual: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Move:
    """What happened to the alias `champion`.

    Attributes:
        promoted: Whether it moved.
        champion: Version it names now, or None.
        previous: Version it named before, or None.
        text: One sentence for people.
    """

    promoted: bool
    champion: str | None
    previous: str | None
    text: str


def build(settings: Settings, retailer: Retailer) -> Candidate:
    """Assemble a release from the newest bundles, record golden answers, sign and register it.

    The release is a challenger until the gate has spoken.
    """
    from serving.releases.release import load_release, open_release
    from training import packaging, tracking
    from training.visual import packing

    frozen = latest_frozen(settings)
    staging = settings.home / "staging"
    name = f"{retailer.name}-{frozen.windows.evaluate_until:%Y%m%d}-{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}"
    folder = staging / name
    packaging.assemble_release(
        settings,
        retailer,
        frozen,
        latest_bundle(settings, "encoder"),
        latest_bundle(settings, "ranker"),
        folder,
    )
    if (seeing := parts(settings, retailer)) is not None:
        packing.add_visual(folder, seeing)
    packaging.add_golden(folder, _golden(settings, frozen, load_release(folder)))
    packaging.sign(folder, packaging.ensure_keys(settings.keys))
    release = open_release(folder, settings.keys / "verify.pem")
    version = packaging.register(folder, settings.tracking_uri, release_model(settings))
    tracking.set_alias(settings.tracking_uri, release_model(settings), "challenger", version)
    seen = tuple(part.name for part in release.manifest.components if part.name in COMPONENTS)
    return Candidate(folder, release.manifest, version, seen)


def _tables(settings: Settings, frozen: Frozen) -> ItemTables:
    """Item tables as of the start of the frozen set."""
    from training.ranker.items import build_item_table

    bundle = latest_bundle(settings, "encoder")
    lake = {"events": frozen.events_version}
    return build_item_table(settings, bundle, at=frozen.windows.evaluate_from, lake=lake)


def _golden(settings: Settings, frozen: Frozen, release: Release) -> bytes:
    """Answers to a few requests of the frozen set: spread over it, and one without any history."""
    from serving.profiles.history import empty_history
    from serving.releases.golden import GoldenRequest, record_golden

    requests = read_requests(settings, frozen, release.engine.items)
    step = max(1, len(requests) // GOLDEN_REQUESTS)
    chosen = [
        GoldenRequest(f"request {place}", history, at_us, store)
        for place, (history, at_us, store, _) in list(enumerate(requests))[::step][:GOLDEN_REQUESTS]
    ]
    nobody = GoldenRequest("no history", empty_history(), requests[0][1], -1)
    return record_golden(release.engine, [*chosen, nobody])


def judge(settings: Settings, retailer: Retailer) -> Verdict:
    """Compare the challenger with the champion and the baselines on the frozen set.

    Both releases answer the same requests from the same histories through the serving engine. Without
    a champion the baselines alone stand in the way.
    """
    from serving.releases.pull import pull
    from serving.releases.registry import open_registry
    from serving.releases.verify import read_verify_key
    from training import tracking
    from training.evaluation.gates import gate

    frozen = latest_frozen(settings)
    judges = Judge(settings, frozen, _tables(settings, frozen))
    key = read_verify_key(settings.keys / "verify.pem")
    model = release_model(settings)
    registry = open_registry(settings.tracking_uri, model)
    found, manifests = {}, {}
    for alias in ("challenger", "champion"):
        pointer = registry.resolve(alias)
        if pointer is not None:
            verified = pull(registry, pointer, key, settings.home / "judged")
            manifests[alias] = verified.manifest
            found[alias] = (pointer.version, judges.score(judges.open(verified)))
    version, challenger = found["challenger"]
    champion = found["champion"][1] if "champion" in found else None
    baselines = baseline_ndcg(settings, frozen)
    spoken = gate(
        challenger.ndcg,
        None if champion is None else champion.ndcg,
        baselines,
        seed=0,
        least_ratio=retailer.gate.least_ratio,
        most_loss=retailer.gate.most_loss,
    )
    numbers = {
        f"{name}_{part}": float(getattr(found, part))
        for name, found in spoken.intervals.items()
        for part in ("value", "low", "high")
    }
    means = {
        "challenger": float(challenger.ndcg.mean()),
        **{name: float(v.mean()) for name, v in baselines.items()},
    }
    if champion is not None:
        means["champion"] = float(champion.ndcg.mean())
    guards = guard_lake(settings, retailer.gate.guards)
    broken = [found.reason for found in guards if found.reason]
    for guard in guards:
        numbers |= {
            f"{guard.kpi}_{k}": v for k, v in (("before", guard.before), ("now", guard.now)) if v is not None
        }
    passed, reasons = spoken.passed and not broken, [*spoken.reasons, *broken]
    tags = {
        "gate": "passed" if passed else "failed",
        "gate_reasons": "; ".join(reasons)[:4000],
        "ndcg_at_10": f"{means['challenger']:.6f}",
        "frozen_set": frozen.sha256,
    }
    tracking.tag_version(settings.tracking_uri, model, version, tags)
    visual = compare_visual(manifests["challenger"], manifests.get("champion"))
    reasons += [_told(row) for row in visual if row["number"] in HEADLINES]
    verdict = Verdict(version, passed, reasons, numbers, means, visual)
    _write_json(settings.home / "evaluation" / "VERDICT.json", asdict(verdict))
    return verdict


def compare_visual(challenger: Manifest, champion: Manifest | None) -> list[dict[str, Any]]:
    """Numbers of the visual models, side by side; they inform a reviewer and do not gate."""
    before = {} if champion is None else champion.metrics
    return [
        {"number": name.removeprefix("visual_"), "challenger": value, "champion": before.get(name, "")}
        for name, value in sorted(challenger.metrics.items())
        if name.startswith("visual_")
    ]


def _told(row: dict[str, Any]) -> str:
    before = f", champion {row['champion']:.4f}" if isinstance(row["champion"], float) else ""
    return f"visual: {row['number']} {row['challenger']:.4f}{before}"


def promote(settings: Settings, retailer: Retailer) -> Move:
    """Move the alias to the challenger if the newest verdict allows it and no person has to.

    With ``gate.approval: person`` in the shop's profile a passed challenger waits for
    `continuum releases promote VERSION`.
    """
    from training import tracking

    verdict = json.loads((settings.home / "evaluation" / "VERDICT.json").read_text())
    model, version = release_model(settings), verdict["version"]
    now = tracking.resolve_alias(settings.tracking_uri, model, "champion")
    if not verdict["passed"]:
        return Move(False, now, None, f"version {version} was refused: {'; '.join(verdict['reasons'])}")
    if retailer.gate.approval == "person":
        return Move(
            False, now, None, f"version {version} passed and waits for `continuum releases promote {version}`"
        )
    before = tracking.promote(settings.tracking_uri, model, version)
    return Move(True, version, before, f"version {version} is champion (before: {before or 'none'})")


def _write_json(path: pathlib.Path, value: dict[str, Any]) -> None:
    staged = path.with_suffix(".tmp")
    staged.write_text(json.dumps(value, default=str))
    staged.replace(path)
