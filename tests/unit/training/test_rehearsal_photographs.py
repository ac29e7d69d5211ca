"""The atelier with real photos: products take them as far as they go, and everything else stays."""

from __future__ import annotations

import csv
import gzip
import io
import json
import pathlib
import zipfile

import pytest
from PIL import Image

from training.rehearsal import catalogue
from training.rehearsal.config import RehearsalError, checked
from training.rehearsal.drawing.__main__ import main
from training.rehearsal.photographs import COLOURS, TYPES, pattern_of

ROWS = [
    ("901", "Tshirts", "Navy Blue", "Acme Striped Navy Tee"), ("902", "Tshirts", "Red", "Acme Red Tee"),
    ("903", "Watches", "Steel", "Acme Watch"), ("904", "Perfume and Body Mist", "Red", "Not sold here"),
    ("905", "Tshirts", "Multi", "No colour of ours"), ("906", "Tshirts", "Red", "Not pictured"),
]  # fmt: skip


def folder_of(path: pathlib.Path) -> pathlib.Path:
    path.mkdir()
    with gzip.open(path / "styles.csv.gz", "wt", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "gender", "articleType", "baseColour", "productDisplayName"])
        writer.writerows([(row[0], "Men", *row[1:]) for row in ROWS])
    with zipfile.ZipFile(path / "photos.zip", "w") as archive:
        for number, row in enumerate(ROWS[:-1]):
            stream = io.BytesIO()
            Image.new("RGB", (32, 32), (10 * number, 90, 120)).save(stream, "JPEG")
            archive.writestr(f"{row[0]}.jpg", stream.getvalue())
    return path


def test_photos_take_the_place_of_drawn_products_of_their_type(tmp_path: pathlib.Path) -> None:
    folder = folder_of(tmp_path / "photos")
    drawn = catalogue.build(checked({"products": 300}))
    shop = catalogue.build(checked({"products": 300, "photos": str(folder)}))
    rows = {row["product_id"]: row for row in catalogue.table(shop).to_pylist()}
    assert {"901", "902", "903"} <= set(rows)
    assert not {"904", "905", "906"} & set(rows)
    assert sum(row["kind"] == "good" for row in rows.values()) == 300
    tee = rows["901"]
    looks = json.loads(tee["attributes"])
    assert (tee["name"], tee["type"], tee["department"]) == ("Acme Striped Navy Tee", "tee", "garments")
    assert (looks["colour"], looks["pattern"]) == ("navy", "striped")
    assert json.loads(rows["903"]["attributes"])["colour"] == "grey"
    assert (shop.kind == drawn.kind).all()
    assert (shop.base_price == drawn.base_price).all()
    tees = catalogue.TYPES.index("tee")
    assert shop.found[tees].sum() >= drawn.found[tees].sum() - 2  # Queries find what is on the shelf now.


def test_the_written_folder_holds_the_photos_as_they_are(tmp_path: pathlib.Path) -> None:
    folder = folder_of(tmp_path / "photos")
    assert main(["--out", str(tmp_path / "out"), "--products", "200", "--photos", str(folder)]) == 0
    with (
        zipfile.ZipFile(tmp_path / "out" / "photos.zip") as made,
        zipfile.ZipFile(folder / "photos.zip") as real,
    ):
        assert len(made.namelist()) == 200
        for name in ("901.jpg", "902.jpg", "903.jpg"):
            assert made.read(name) == real.read(name)


def test_a_folder_that_cannot_be_used_is_named(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RehearsalError, match=r"photos: there is no .*styles\.csv\.gz; expected styles"):
        catalogue.build(checked({"photos": str(tmp_path)}))
    folder = folder_of(tmp_path / "photos")
    (folder / "photos.zip").write_bytes(b"no archive")
    assert main(["--out", str(tmp_path / "out"), "--photos", str(folder)]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_their_words_lead_to_ours() -> None:
    assert set(TYPES.values()) <= set(catalogue.TYPES)
    assert set(COLOURS.values()) <= set(catalogue.COLOURS)
    assert [pattern_of(name) for name in ("Polka-Dot Dress", "Plain tee", "Floral Top", "Printed Kurta")] == [
        "dotted", "plain", "floral", "graphic",
    ]  # fmt: skip
