"""From bundles to a signed, registered release that serving's own code fetches, proves and opens."""

from __future__ import annotations

import datetime as dt
import pathlib
import shutil
import stat
import threading
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest

from contracts.features import RANKER_FEATURES
from contracts.release import MANIFEST_FILE, read_manifest
from contracts.settings import Settings, read_retailer, read_settings
from serving.profiles.history import to_microseconds
from serving.releases.golden import GoldenRequest, record_golden
from serving.releases.pull import pull
from serving.releases.registry import open_registry
from serving.releases.release import load_release, open_release
from serving.releases.verify import ReleaseError, read_verify_key, verify_folder
from tests.integration.serving import synthetic
from training import packaging, tracking
from training.config import Bundle, write_bundle
from training.ranker.items import ItemTables

MODEL = "synthetic-release"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, pathlib.Path]:
    root = tmp_path_factory.mktemp("bundles")
    rng = np.random.default_rng(0)
    graphs = {
        "encoder": synthetic.encoder_graph(rng),
        "ranker": synthetic.ranker_graph(rng, len(RANKER_FEATURES)),
    }
    details: dict[str, dict[str, Any]] = {
        "encoder": {
            "length": synthetic.LENGTH, "vocabulary": synthetic.VOCABULARY, "serving": {"heads": []},
        },
        "ranker": {"features": list(RANKER_FEATURES)},
    }  # fmt: skip
    for family, graph in graphs.items():
        (root / family).mkdir()
        onnx.save(graph, root / family / "model.onnx")
        bundle = Bundle(
            family=family, run_id=f"run-{family}", model_uri=f"models:/m-{family}",  # type: ignore[arg-type]
            metrics={"ndcg_at_10": 0.25 if family == "ranker" else 0.2},
            config={"lake": {"events": 3}, "encoder": "elsewhere/encoder"}, files={"onnx": "model.onnx"},
            details=details[family], lake={"events": 3, "products": 1},
        )  # fmt: skip
        write_bundle(root / family, bundle)
    return root / "encoder", root / "ranker"


def assemble(
    out: pathlib.Path, bundles: tuple[pathlib.Path, pathlib.Path], **changes: Any
) -> packaging.Manifest:
    parts: dict[str, Any] = {
        "release": out.name, "retailer": "synthetic", "as_of": synthetic.NOW,
        "encoder_bundle": bundles[0], "ranker_bundle": bundles[1], "items": synthetic.item_arrays(),
        "exposures": synthetic.exposure_arrays(), "store_products": synthetic.store_arrays(),
        "lake": {"events": 3}, "metrics": {"ndcg_at_10": 0.25}, "evaluation": {"sha256": "0" * 64},
        "simulated": True, **changes,
    }  # fmt: skip
    return packaging.assemble(out, **parts)


def golden(folder: pathlib.Path) -> bytes:
    requests = [GoldenRequest("long", synthetic.history_of(1), to_microseconds(synthetic.NOW), 0)]
    return record_golden(load_release(folder).engine, requests)


@pytest.fixture(scope="module")
def installation(
    tmp_path_factory: pytest.TempPathFactory, bundles: tuple[pathlib.Path, pathlib.Path]
) -> tuple[pathlib.Path, pathlib.Path]:
    """(home, signed release folder)."""
    home = tmp_path_factory.mktemp("home")
    folder = home / "staging" / "synthetic-a"
    assemble(folder, bundles)
    packaging.add_golden(folder, golden(folder))
    packaging.sign(folder, packaging.ensure_keys(home / "keys"))
    return home, folder


@pytest.fixture
def release(
    tmp_path: pathlib.Path, bundles: tuple[pathlib.Path, pathlib.Path]
) -> tuple[pathlib.Path, pathlib.Path]:
    """(release folder of one's own, its verify key)."""
    folder = tmp_path / "synthetic-own"
    assemble(folder, bundles)
    packaging.sign(folder, packaging.ensure_keys(tmp_path / "keys"))
    return folder, tmp_path / "keys" / "verify.pem"


def test_keys_are_private_and_made_once(tmp_path: pathlib.Path) -> None:
    found: list[pathlib.Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(packaging.ensure_keys(tmp_path / "keys")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert stat.S_IMODE(found[0].stat().st_mode) == 0o600
    before = found[0].read_bytes()
    assert packaging.ensure_keys(tmp_path / "keys").read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == ["signing.pem", "verify.pem"]


def test_keys_that_do_not_belong_together_are_refused(tmp_path: pathlib.Path) -> None:
    one, other = packaging.ensure_keys(tmp_path / "one"), packaging.ensure_keys(tmp_path / "other")
    (tmp_path / "one" / "verify.pem").write_bytes((tmp_path / "other" / "verify.pem").read_bytes())
    with pytest.raises(packaging.PackagingError, match="does not belong"):
        packaging.ensure_keys(tmp_path / "one")
    one.unlink()
    with pytest.raises(packaging.PackagingError, match=r"without signing\.pem"):
        packaging.ensure_keys(tmp_path / "one")
    other.write_text("nonsense")
    with pytest.raises(packaging.PackagingError, match="not a readable private key"):
        packaging.ensure_keys(tmp_path / "other")


def test_manifest_says_what_is_inside(installation: tuple[pathlib.Path, pathlib.Path]) -> None:
    manifest = read_manifest((installation[1] / MANIFEST_FILE).read_bytes())
    assert [part.name for part in manifest.components] == ["encoder", "ranker", "items", "golden"]
    encoder = manifest.component("encoder")
    assert (encoder.model, encoder.run_id) == ("models:/m-encoder", "run-encoder")
    assert encoder.settings == {
        "length": synthetic.LENGTH, "vocabulary": synthetic.VOCABULARY, "heads": [],
    }  # fmt: skip
    assert manifest.component("items").settings == {"as_of_us": to_microseconds(synthetic.NOW)}
    assert manifest.features == RANKER_FEATURES
    assert manifest.feature_services == {"ranker": "ranker_v1", "encoder": "encoder_v1"}
    assert manifest.code_version == tracking.code_version()


def test_registered_release_is_fetched_and_opened_by_serving(
    installation: tuple[pathlib.Path, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    home, folder = installation
    uri = f"sqlite:///{home / 'mlflow' / 'mlflow.db'}"
    version = packaging.register(folder, uri, MODEL)
    tracking.set_alias(uri, MODEL, "challenger", version)
    tracking.promote(uri, MODEL, version)
    registry = open_registry(uri, MODEL)
    pointer = registry.resolve("champion")
    assert pointer is not None
    assert pointer.version == version
    assert pointer.folder is not None
    assert pointer.folder.is_relative_to(home / "mlflow" / "artifacts" / MODEL)
    verify = home / "keys" / "verify.pem"
    pulled = pull(registry, pointer, read_verify_key(verify), tmp_path / "cache")
    assert pulled.manifest.release == folder.name
    opened = open_release(pointer.folder, verify, version=version)
    assert len(opened.engine.rank(synthetic.history_of(1), 17501.5, 0, 10).items) == 10
    tags = tracking.versions(tracking.open_client(uri), MODEL)[version]
    assert tags["release"] == folder.name
    assert tags["ndcg_at_10"] == "0.250000"
    assert tags["simulated"] == "true"
    with pytest.raises(packaging.PackagingError, match=f"registered already, as version {version}"):
        packaging.register(folder, uri, MODEL)


def test_release_takes_its_words_from_frozen_set_and_bundles(
    tmp_path: pathlib.Path, bundles: tuple[pathlib.Path, pathlib.Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[dt.datetime, dict[str, int]]] = []

    def tables(
        settings: Settings, encoder: pathlib.Path, *, at: dt.datetime, lake: dict[str, int]
    ) -> ItemTables:
        asked.append((at, lake))
        return ItemTables(synthetic.item_arrays(), synthetic.exposure_arrays(), synthetic.store_arrays())

    monkeypatch.setattr("training.ranker.items.build_item_table", tables)
    settings = read_settings({"CONTINUUM_HOME": str(tmp_path)})
    start, stop = (dt.datetime(2017, month, 1, tzinfo=dt.UTC) for month in (11, 12))
    frozen = SimpleNamespace(
        path=tmp_path / "abc.parquet", sha256="a" * 64, requests=9,
        windows=SimpleNamespace(evaluate_from=start, evaluate_until=stop),
    )  # fmt: skip
    shop = read_retailer(settings)
    newest = packaging.assemble_release(settings, shop, frozen, *bundles, tmp_path / "newest")
    early = packaging.assemble_release(settings, shop, frozen, *bundles, tmp_path / "early", at=start)
    assert [one.as_of for one in (newest, early)] == [stop, start]
    assert asked == [(stop, {"events": 3, "products": 1}), (start, {"events": 3, "products": 1})]
    assert (newest.release, newest.lake, newest.retailer) == ("newest", asked[0][1], shop.name)
    assert newest.metrics == {"ndcg_at_10": 0.25, "encoder_ndcg_at_10": 0.2}
    assert (newest.evaluation["name"], newest.evaluation["sha256"]) == ("abc", "a" * 64)
    load_release(tmp_path / "early")


def test_unsigned_release_is_not_registered(
    tmp_path: pathlib.Path, bundles: tuple[pathlib.Path, pathlib.Path]
) -> None:
    folder = tmp_path / "synthetic-b"
    assemble(folder, bundles)
    with pytest.raises(packaging.PackagingError, match=r"no manifest\.sig"):
        packaging.register(folder, f"sqlite:///{tmp_path / 'mlflow.db'}", MODEL)
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize("path", ["encoder/encoder.onnx", "items/items.npz", MANIFEST_FILE])
def test_tampering_is_noticed(release: tuple[pathlib.Path, pathlib.Path], path: str) -> None:
    folder, verify = release
    key = read_verify_key(verify)
    verify_folder(folder, key)
    raw = bytearray((folder / path).read_bytes())
    raw[len(raw) // 2] ^= 1
    (folder / path).write_bytes(raw)
    with pytest.raises(ReleaseError):
        verify_folder(folder, key)


def test_changed_file_is_not_signed_and_new_golden_needs_a_new_signature(
    release: tuple[pathlib.Path, pathlib.Path],
) -> None:
    folder, verify = release
    signing = verify.parent / "signing.pem"
    packaging.add_golden(folder, golden(folder))
    packaging.add_golden(folder, golden(folder))
    with pytest.raises(ReleaseError):
        open_release(folder, verify)
    packaging.sign(folder, signing)
    open_release(folder, verify)
    (folder / "ranker" / "ranker.onnx").write_bytes(b"other")
    with pytest.raises(packaging.PackagingError, match=r"'ranker/ranker\.onnx' is not as the manifest says"):
        packaging.sign(folder, signing)


def test_crash_while_assembling_leaves_nothing(
    tmp_path: pathlib.Path, bundles: tuple[pathlib.Path, pathlib.Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []

    def crash(*args: object, **kwargs: object) -> None:
        seen.append([path.name for path in tmp_path.iterdir()])
        raise OSError("disk full")

    monkeypatch.setattr(packaging, "write_file", crash)
    with pytest.raises(OSError, match="disk full"):
        assemble(tmp_path / "synthetic-c", bundles)
    assert len(seen[0]) == 1
    assert seen[0][0].startswith(".tmp-synthetic-c-")
    assert list(tmp_path.iterdir()) == []


def test_parts_that_do_not_fit_are_refused(
    tmp_path: pathlib.Path, bundles: tuple[pathlib.Path, pathlib.Path]
) -> None:
    out = tmp_path / "synthetic-d"
    renamed = pathlib.Path(shutil.copytree(bundles[0], bundles[0].parent / "encoder-2"))
    items = synthetic.item_arrays()
    beyond = {**items, "encoder_id": items["encoder_id"] + synthetic.VOCABULARY}
    objects = {**items, "name": items["name"].astype(object)}
    for changes, message in (
        ({"items": beyond}, "another encoder"),
        ({"items": objects}, r"items\.name holds Python objects"),
        ({"metrics": {"ndcg_at_10": float("nan")}}, r"metrics\.ndcg_at_10 is nan"),
        ({"as_of": dt.datetime(2017, 12, 1)}, "expected a time with its zone"),
        ({"encoder_bundle": bundles[1]}, "the encoder's bundle is of family 'ranker'"),
        ({"encoder_bundle": renamed}, "learned from scores of encoder 'encoder', not of 'encoder-2'"),
        ({"release": "no spaces please"}, "release"),
    ):
        with pytest.raises((packaging.PackagingError, msgspec.ValidationError), match=message):
            assemble(out, bundles, **changes)
    assert list(tmp_path.iterdir()) == []
    assemble(out, bundles)
    with pytest.raises(FileExistsError, match="never used"):
        assemble(out, bundles)
