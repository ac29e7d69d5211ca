"""The config of a training run, and where its bundle is found afterwards.

Belongs here: what the orchestrator tells a trainer. Does not belong here: training.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import pathlib
import shutil
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from contracts.retailer import Retailer
from contracts.settings import Settings
from orchestration.windows import cut

if TYPE_CHECKING:
    from training.config import Bundle
    from training.relationship.bundle import Record

TABLES = ("events", "products", "exposures")
CUSTOMERS = "customers"
"""Family of churn and value."""
VALUE_DAYS = 91
"""Horizon of value."""
JUDGED_DAYS = {"segments": 1, "contacts": 56, "sessions": 28, "visits": 28}
"""Families about people, and on how many of the latest days each is judged; segments have resamples for that."""
EXPECTATIONS_FILE = "customers.npz"
"""Where the server looks for it, below ``Settings.overview`` (`serving/profiles/predictions.py`)."""


@dataclass(frozen=True)
class TrainingJob:
    """One training run.

    Attributes:
        family: ``encoder``, ``ranker``, ``customers`` or one of `JUDGED_DAYS`.
        config: The config file it reads.
        out: The bundle folder it writes.
    """

    family: str
    config: pathlib.Path
    out: pathlib.Path


def latest_bundle(settings: Settings, family: str) -> pathlib.Path:
    """Folder of the family's newest finished bundle.

    Raises:
        FileNotFoundError: The family has not been trained here.
    """
    pointer = settings.bundles / family / "LATEST"
    if not pointer.exists():
        raise FileNotFoundError(
            f"no bundle of '{family}' in {settings.bundles}; expected it to be trained first"
        )
    return settings.bundles / family / pointer.read_text().strip()


def prepare(settings: Settings, retailer: Retailer, family: str) -> TrainingJob:
    """Write the config of the family's next run.

    Every table is pinned to its present version, so the run's data can be read again later.
    """
    from feature_repo.snapshots import delta_files

    lake = {table: delta_files(settings.lake / table)[0] for table in TABLES}
    windows = cut(retailer, settings.lake, lake["events"])
    stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%S")
    out = settings.bundles / family / f"{windows.evaluate_from:%Y%m%d}-{stamp}"
    config: dict[str, Any] = {
        "retailer": retailer.name,
        "home": str(settings.home),
        "lake": lake,
        "train_until": windows.ranker_from if family == "encoder" else windows.evaluate_from,
        "evaluate_from": windows.evaluate_from,
        "evaluate_until": windows.evaluate_until,
        "out": str(out),
        "tracking_uri": settings.tracking_uri,
        "experiment": f"{retailer.name}-{family}",
        "threads": os.cpu_count() or 1,
        "feature_service": f"{family}_v1",
        "simulated": retailer.simulated,
        "params": getattr(retailer, family),
    }
    if family == "ranker":
        config |= {"encoder": str(latest_bundle(settings, "encoder")), "ranker_from": windows.ranker_from}
    path = settings.bundles / family / f"{out.name}.config.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(config, default=lambda value: value.isoformat(), indent=1))
    return TrainingJob(family, path, out)


def prepare_customers(settings: Settings, retailer: Retailer) -> TrainingJob:
    """Write the config of the next run of churn and value: judged on the last `VALUE_DAYS` of the data."""
    return _prepare(settings, retailer, CUSTOMERS, VALUE_DAYS, {"window_days": float(VALUE_DAYS)})


def prepare_people(settings: Settings, retailer: Retailer, family: str) -> TrainingJob:
    """Write the config of the next run of a family of `JUDGED_DAYS`."""
    return _prepare(settings, retailer, family, JUDGED_DAYS[family], {})


def finish_people(settings: Settings, job: TrainingJob) -> Record:
    """Read the bundle that a run left, and make it the family's latest."""
    from training.relationship.bundle import read_record

    record = read_record(job.out)
    _point(settings, job)
    return record


def _prepare(
    settings: Settings, retailer: Retailer, family: str, judged_days: int, extra: dict[str, Any]
) -> TrainingJob:
    from feature_repo.snapshots import delta_files

    version = delta_files(settings.lake / "events")[0]
    until = cut(retailer, settings.lake, version).evaluate_until
    evaluate_from = until - dt.timedelta(days=judged_days)
    stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%S")
    out = settings.bundles / family / f"{evaluate_from:%Y%m%d}-{stamp}"
    config = {
        "retailer": retailer.name,
        "home": str(settings.home),
        "lake": {"events": version},
        "train_until": evaluate_from,
        "evaluate_from": evaluate_from,
        "evaluate_until": until,
        "out": str(out),
        "tracking_uri": settings.tracking_uri,
        "experiment": f"{retailer.name}-{family}",
        "threads": os.cpu_count() or 1,
        "simulated": retailer.simulated,
        **extra,
    }
    path = settings.bundles / family / f"{out.name}.config.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(config, default=lambda value: value.isoformat(), indent=1))
    return TrainingJob(family, path, out)


def finish_customers(settings: Settings, job: TrainingJob) -> Record:
    """Read the bundle that a run of churn and value left, make it the latest, and publish what it expects."""
    from training.relationship.bundle import read_record

    record = read_record(job.out)
    _point(settings, job)
    settings.overview.mkdir(parents=True, exist_ok=True)
    staged = settings.overview / f".{uuid.uuid4().hex}"
    shutil.copyfile(job.out / record.files["expectations"], staged)
    staged.replace(settings.overview / EXPECTATIONS_FILE)
    return record


def finish(settings: Settings, job: TrainingJob) -> Bundle:
    """Read the bundle that a run left, and make it the family's latest."""
    from training.config import read_bundle

    bundle = read_bundle(job.out)
    _point(settings, job)
    return bundle


def _point(settings: Settings, job: TrainingJob) -> None:
    pointer = settings.bundles / job.family / "LATEST"
    staged = pointer.with_suffix(".tmp")
    staged.write_text(job.out.name)
    staged.replace(pointer)
