"""From bundles and tables to one signed release folder, and from there into the registry.

A release is what serving pulls, proves and answers with: graphs, item tables, golden requests, and a
manifest that names every file with its hash. It appears as a whole or not at all: everything is written
into a hidden sibling, synced, and renamed.

How a reader finds it, without MLflow's library (`serving/releases/registry.py`): the registered model
``<retailer>-release`` has one version per release, whose source is the artifact folder ``release`` of a
run and directly holds manifest.json. On a server
``GET /api/2.0/mlflow/registered-models/alias?name=N&alias=champion`` gives the version (400: no such alias,
404: no such model) and ``GET /model-versions/get-artifact?name=N&version=V&path=manifest.json`` a file's
bytes, for local and for proxied artifact stores alike. In the SQLite file ``registered_model_aliases``
joined with ``model_versions`` gives ``storage_location``, a ``file://`` URI of that folder.

Belongs here: assembling, golden answers' place, registering. Does not belong here: the manifest's type
(`contracts/release.py`), keys, signing and writing in one step (`sealing.py`), building the tables
(`ranker/items.py`), recording golden answers (`serving/releases/golden.py`).
"""

from __future__ import annotations

import datetime as dt
import math
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.features import RANKER_FEATURES
from contracts.release import (
    MANIFEST_FILE,
    SIGNATURE_FILE,
    Component,
    Manifest,
    ReleaseFile,
    describe_file,
    manifest_bytes,
    read_manifest,
)
from contracts.retailer import Retailer
from contracts.settings import Settings
from training.config import Bundle, read_bundle
from training.sealing import PackagingError, appearing, check_files, ensure_keys, sign, write_file

__all__ = [
    "PackagingError", "add_golden", "assemble", "assemble_release", "ensure_keys", "register", "release_metrics",
    "sign",
]  # fmt: skip

GOLDEN_PATH = "golden/golden.json"
FEATURE_SERVICES = {"encoder": "encoder_v1", "ranker": "ranker_v1"}
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

Tables = Mapping[str, npt.NDArray[Any]]


class Windows(Protocol):
    """How time was cut, as far as a release needs to know."""

    @property
    def evaluate_from(self) -> dt.datetime:
        """Start of the evaluation window."""

    @property
    def evaluate_until(self) -> dt.datetime:
        """End of the evaluation window (exclusive)."""


class FrozenSet(Protocol):
    """The frozen evaluation set, as far as a release names it."""

    @property
    def path(self) -> pathlib.Path:
        """Its file."""

    @property
    def sha256(self) -> str:
        """Its hash."""

    @property
    def requests(self) -> int:
        """How many requests it has."""

    @property
    def windows(self) -> Windows:
        """How time was cut."""


def add_golden(folder: pathlib.Path, golden: bytes) -> Manifest:
    """Add golden requests to an assembled release, or replace them.

    A signature that was there is removed, since it no longer fits.

    Args:
        folder: The release.
        golden: Content of golden.json.

    Returns:
        The new manifest.
    """
    manifest = read_manifest((folder / MANIFEST_FILE).read_bytes())
    (folder / SIGNATURE_FILE).unlink(missing_ok=True)
    write_file(folder, GOLDEN_PATH, golden)
    part = Component(name="golden", kind="arrays", files=(describe_file(folder, GOLDEN_PATH),))
    others = tuple(component for component in manifest.components if component.name != part.name)
    manifest = msgspec.structs.replace(manifest, components=(*others, part))
    write_file(folder, MANIFEST_FILE, manifest_bytes(manifest))
    return manifest


def assemble(
    out: pathlib.Path,
    *,
    release: str,
    retailer: str,
    as_of: dt.datetime,
    encoder_bundle: pathlib.Path,
    ranker_bundle: pathlib.Path,
    items: Tables,
    exposures: Tables,
    store_products: Tables,
    lake: Mapping[str, int],
    metrics: Mapping[str, float],
    evaluation: Mapping[str, str],
    simulated: bool,
) -> Manifest:
    """Write an unsigned release folder without golden requests; it appears complete or not at all.

    Args:
        out: The folder; must not exist.
        release: Its name, never used before.
        retailer: Profile name.
        as_of: Moment that the tables see data up to (exclusive).
        encoder_bundle: Bundle of the encoder.
        ranker_bundle: Bundle of the ranker.
        items: Arrays of ``items/items.npz``.
        exposures: Arrays of ``items/exposures.npz``.
        store_products: Arrays of ``items/store_products.npz``.
        lake: Delta version of each table that models and tables were made from.
        metrics: Results on the frozen evaluation set; finite.
        evaluation: Name and hash of that set.
        simulated: True where shoppers are simulated.

    Returns:
        The manifest.

    Raises:
        FileExistsError: ``out`` exists.
        PackagingError: The parts do not fit together.
        ConfigError: A bundle is incomplete.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists; expected a release name that was never used")
    encoder, ranker = read_bundle(encoder_bundle), read_bundle(ranker_bundle)
    _check_time_and_numbers(as_of, metrics)
    _check_parts(encoder, ranker, encoder_bundle, items)
    tables = {"items": items, "exposures": exposures, "store_products": store_products}
    with appearing(out) as folder:
        graphs = {
            "encoder": _copy(encoder_bundle, encoder, folder),
            "ranker": _copy(ranker_bundle, ranker, folder),
        }
        files = tuple(_save(folder, name, arrays) for name, arrays in tables.items())
        settings = {
            "length": encoder.details["length"],
            "vocabulary": encoder.details["vocabulary"],
            **encoder.details.get("serving", {}),
        }
        manifest = Manifest(
            release=release,
            retailer=retailer,
            created_at=dt.datetime.now(dt.UTC),
            as_of=as_of.astimezone(dt.UTC),
            components=(
                _graph("encoder", encoder, graphs["encoder"], settings),
                _graph("ranker", ranker, graphs["ranker"], {}),
                Component(
                    name="items", kind="arrays", files=files, settings={"as_of_us": _microseconds(as_of)}
                ),
            ),
            features=RANKER_FEATURES,
            feature_services=FEATURE_SERVICES,
            lake=dict(lake),
            metrics=dict(metrics),
            evaluation=dict(evaluation),
            code_version=_code_version(),
            simulated=simulated,
        )
        raw = manifest_bytes(manifest)
        read_manifest(raw)
        write_file(folder, MANIFEST_FILE, raw)
    return manifest


def assemble_release(
    settings: Settings,
    retailer: Retailer,
    frozen: FrozenSet,
    encoder_bundle: pathlib.Path,
    ranker_bundle: pathlib.Path,
    out: pathlib.Path,
    at: dt.datetime | None = None,
) -> Manifest:
    """Build the tables as of one moment and assemble a release from them and two bundles.

    Args:
        settings: The installation.
        retailer: The shop.
        frozen: Set that the bundles were evaluated on.
        encoder_bundle: Bundle of the encoder.
        ranker_bundle: Bundle of the ranker; the tables are read at its lake versions.
        out: The release's folder; its name is the release's name.
        at: Moment of the tables, which see nothing at or after it. By default the end of the evaluation
            window; a release that is to be judged on that window needs its start.

    Returns:
        The manifest.

    Raises:
        FileExistsError: ``out`` exists.
        PackagingError: The parts do not fit together.
        ConfigError: A bundle is incomplete.
    """
    from training.ranker.items import build_item_table

    encoder, ranker = read_bundle(encoder_bundle), read_bundle(ranker_bundle)
    lake = {**ranker.config.get("lake", {}), **ranker.lake}
    moment = frozen.windows.evaluate_until if at is None else at
    tables = build_item_table(settings, encoder_bundle, at=moment, lake=lake)
    return assemble(
        out,
        release=out.name,
        retailer=retailer.name,
        as_of=moment,
        encoder_bundle=encoder_bundle,
        ranker_bundle=ranker_bundle,
        items=tables.items,
        exposures=tables.exposures,
        store_products=tables.store_products,
        lake=lake,
        metrics=release_metrics(encoder, ranker),
        evaluation={
            "name": frozen.path.stem,
            "sha256": frozen.sha256,
            "requests": str(frozen.requests),
            "from": frozen.windows.evaluate_from.isoformat(),
            "until": frozen.windows.evaluate_until.isoformat(),
        },
        simulated=retailer.simulated,
    )


def release_metrics(encoder: Bundle, ranker: Bundle) -> dict[str, float]:
    """The ranker's numbers under their own names and the encoder's as ``encoder_<name>``."""
    return {**{f"encoder_{name}": value for name, value in encoder.metrics.items()}, **ranker.metrics}


def register(folder: pathlib.Path, tracking_uri: str, model_name: str) -> str:
    """Log a signed release folder and make it a new version of a registered model.

    The version appears last, when all files are there; its source is the folder itself.

    Args:
        folder: The release.
        tracking_uri: Tracking and registry address.
        model_name: Registered model, and experiment of the run that holds the files.

    Returns:
        The version.

    Raises:
        PackagingError: The release is unsigned or changed, or its name is registered already.
    """
    from mlflow.entities import Metric

    from training import tracking

    manifest = check_files(folder)
    if not (folder / SIGNATURE_FILE).is_file():
        raise PackagingError(f"{manifest.release} has no {SIGNATURE_FILE}; expected it to be signed first")
    client = tracking.open_client(tracking_uri)
    for version, tags in tracking.versions(client, model_name).items():
        if tags.get("release") == manifest.release:
            raise PackagingError(f"{manifest.release} is registered already, as version {version}")
    tags = _tags(manifest)
    experiment = tracking.experiment_id(client, model_name)
    run = client.create_run(experiment, tags=tags, run_name=manifest.release)
    run_id = str(run.info.run_id)
    try:
        client.log_artifacts(run_id, str(folder), "release")
        client.log_artifact(run_id, str(folder / MANIFEST_FILE))
        now = int(manifest.created_at.timestamp() * 1000)
        client.log_batch(run_id, metrics=[Metric(k, v, now, 0) for k, v in manifest.metrics.items()])
        source = f"{str(run.info.artifact_uri).rstrip('/')}/release"
        made = tracking.create_version(client, model_name, source, run_id, tags)
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id)
    return made


def _tags(manifest: Manifest) -> dict[str, str]:
    tags = {
        "release": manifest.release,
        "retailer": manifest.retailer,
        "as_of": manifest.as_of.isoformat(),
        "code_version": manifest.code_version,
        "simulated": str(manifest.simulated).lower(),
    }
    if "ndcg_at_10" in manifest.metrics:
        tags["ndcg_at_10"] = f"{manifest.metrics['ndcg_at_10']:.6f}"
    return tags


def _check_time_and_numbers(as_of: dt.datetime, metrics: Mapping[str, float]) -> None:
    if as_of.tzinfo is None:
        raise PackagingError(f"as_of is {as_of.isoformat()}; expected a time with its zone")
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise PackagingError(f"metrics.{name} is {value}; expected a finite number")


def _check_parts(encoder: Bundle, ranker: Bundle, encoder_bundle: pathlib.Path, items: Tables) -> None:
    for bundle, family in ((encoder, "encoder"), (ranker, "ranker")):
        if bundle.family != family:
            raise PackagingError(f"the {family}'s bundle is of family '{bundle.family}'")
        if "onnx" not in bundle.files:
            raise PackagingError(f"the {family}'s bundle names no file 'onnx'; it has {sorted(bundle.files)}")
    learned_from = pathlib.Path(ranker.config["encoder"]).name
    if learned_from != encoder_bundle.name:
        raise PackagingError(
            f"the ranker learned from scores of encoder '{learned_from}', not of '{encoder_bundle.name}'; "
            "expected it to be trained again"
        )
    for key in ("length", "vocabulary"):
        if key not in encoder.details:
            raise PackagingError(f"the encoder's bundle has no details.{key}; expected a number")
    largest = int(items["encoder_id"].max(initial=0))
    if largest > encoder.details["vocabulary"]:
        raise PackagingError(
            f"items.encoder_id reaches {largest}; expected at most {encoder.details['vocabulary']}, "
            "the encoder's vocabulary: the table was made for another encoder"
        )
    if tuple(ranker.details.get("features", RANKER_FEATURES)) != RANKER_FEATURES:
        raise PackagingError("the ranker was trained on other features than this code computes")


def _copy(bundle_folder: pathlib.Path, bundle: Bundle, folder: pathlib.Path) -> ReleaseFile:
    path = f"{bundle.family}/{bundle.family}.onnx"
    (folder / bundle.family).mkdir()
    shutil.copyfile(bundle_folder / bundle.files["onnx"], folder / path)
    return describe_file(folder, path)


def _graph(name: str, bundle: Bundle, file: ReleaseFile, settings: dict[str, Any]) -> Component:
    return Component(
        name=name, kind="onnx", files=(file,), model=bundle.model_uri, run_id=bundle.run_id, settings=settings
    )


def _save(folder: pathlib.Path, name: str, arrays: Tables) -> ReleaseFile:
    for key, array in arrays.items():
        if np.asarray(array).dtype.hasobject:
            raise PackagingError(f"{name}.{key} holds Python objects; expected numbers or fixed-width text")
    path = f"items/{name}.npz"
    (folder / "items").mkdir(exist_ok=True)
    np.savez(folder / path, allow_pickle=False, **arrays)
    return describe_file(folder, path)


def _microseconds(moment: dt.datetime) -> int:
    return (moment - EPOCH) // dt.timedelta(microseconds=1)


def _code_version() -> str:
    from training import tracking

    return tracking.code_version()
