"""Every product has a picture that shows its colour, and every box of a look holds exactly its product."""

import csv
import gzip
import io
import json
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from PIL import Image

from training.rehearsal import AtelierConfig, RehearsalError, catalogue
from training.rehearsal.drawing import looks, picture, write_catalogue, write_looks
from training.rehearsal.drawing.__main__ import main
from training.rehearsal.drawing.canvas import curve
from training.rehearsal.drawing.fabric import PALETTE, PATTERNS
from training.rehearsal.drawing.pictures import GROUND, cut_out

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def rows() -> Rows:
    return catalogue.table(catalogue.build(AtelierConfig(products=400))).to_pylist()


def test_every_type_is_drawn_inside_its_picture(rows: Rows) -> None:
    for kind in catalogue.TYPES:
        alpha = np.asarray(cut_out(next(row for row in rows if row["type"] == kind), 112).getchannel("A"))
        assert 0.04 < (alpha > 127).mean() < 0.75, kind
        border = np.concatenate([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]])
        assert border.max() == 0, kind
    assert set(PALETTE) == set(catalogue.COLOURS)
    assert set(PATTERNS) == set(catalogue.PATTERNS)


def test_a_plain_garment_shows_its_colour(rows: Rows) -> None:
    seen = set()
    for row in rows:
        look = json.loads(row["attributes"])
        if row["type"] in ("sweater", "skirt", "dress", "trousers") and look["pattern"] == "plain":
            pixels = np.asarray(cut_out(row, 112), float)
            middle = np.median(pixels[pixels[..., 3] > 250][:, :3], axis=0)
            nearest = min(PALETTE, key=lambda name: float(np.abs(middle - PALETTE[name]).sum()))
            assert nearest == look["colour"], row
            seen.add(nearest)
    assert len(seen) > 6


def test_the_same_product_always_looks_the_same_and_others_differ(rows: Rows) -> None:
    one, other = picture(rows[0]), picture(rows[1])
    assert one.size == (224, 224)
    assert one.mode == "RGB"
    assert one.getpixel((0, 0)) == GROUND
    assert np.array_equal(np.asarray(one), np.asarray(picture(rows[0])))
    assert not np.array_equal(np.asarray(one), np.asarray(other))


def test_what_cannot_be_drawn_is_named(rows: Rows) -> None:
    with pytest.raises(RehearsalError, match="type of x is 'sofa'; expected one of: tee"):
        picture({"product_id": "x", "type": "sofa", "attributes": '{"colour": "red", "pattern": "plain"}'})
    with pytest.raises(RehearsalError, match="colour of x is None"):
        picture({"product_id": "x", "type": "tee", "attributes": "{}"})


def test_the_folder_has_the_fashion_products_layout(rows: Rows, tmp_path: pathlib.Path) -> None:
    chosen = [*rows[:6], rows[-1]]  # the last is a guide, which has no picture
    assert write_catalogue(chosen, tmp_path, size=64) == 6
    with zipfile.ZipFile(tmp_path / "photos.zip") as archive:
        assert archive.namelist() == [f"{row['product_id']}.jpg" for row in rows[:6]]
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
        assert Image.open(io.BytesIO(archive.read(archive.namelist()[0]))).size == (64, 64)
    with gzip.open(tmp_path / "styles.csv.gz", "rt") as file:
        styles = list(csv.DictReader(file))
    assert [row["id"] for row in styles] == [row["product_id"] for row in rows[:6]]
    assert styles[0]["articleType"] == rows[0]["type"]
    with (tmp_path / "attributes.csv").open() as file:
        assert [row["pattern"] for row in csv.DictReader(file)] == [
            json.loads(row["attributes"])["pattern"] for row in rows[:6]
        ]
    assert {path.name for path in tmp_path.iterdir()} == {"photos.zip", "styles.csv.gz", "attributes.csv"}


def test_boxes_hold_exactly_their_product(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    tones: dict[str, tuple[int, int, int]] = {}

    def block(row: Mapping[str, Any], side: int) -> Image.Image:
        tone = tones.setdefault(row["product_id"], (60 * (len(tones) % 4), 50 * (len(tones) // 4) + 9, 77))
        sheet = Image.new("RGBA", (side, side), (0, 0, 0, 0))
        sheet.paste((*tone, 255), (side // 4, side // 5, side * 3 // 4, side * 4 // 5))
        return sheet

    monkeypatch.setattr(looks, "cut_out", block)
    for seed in range(4):
        tones.clear()
        made = looks.look(rows, seed)
        pixels = np.asarray(made.image).astype(int)
        assert len(made.items) >= 4
        for item in made.items:
            there = np.abs(pixels - tones[item.product_id]).max(axis=2) <= 8
            y, x = np.flatnonzero(there.any(axis=1)), np.flatnonzero(there.any(axis=0))
            assert np.abs(np.array(item.box) - (x[0], y[0], x[-1] + 1, y[-1] + 1)).max() <= 2


def test_looks_repeat_and_are_written_with_their_boxes(rows: Rows, tmp_path: pathlib.Path) -> None:
    one, again = looks.look(rows, 5), looks.look(rows, 5)
    assert one.items == again.items
    assert np.array_equal(np.asarray(one.image), np.asarray(again.image))
    boxes = write_looks(rows, tmp_path, 3)
    with (tmp_path / "boxes.csv").open() as file:
        written = list(csv.DictReader(file))
    assert len(written) == boxes >= 12
    known = {row["product_id"]: row["type"] for row in rows}
    for row in written:
        assert known[row["product_id"]] == row["type"]
        assert 0 <= int(row["left"]) < int(row["right"]) <= looks.SIZE
        assert 0 <= int(row["top"]) < int(row["bottom"]) <= looks.SIZE
    with zipfile.ZipFile(tmp_path / "looks.zip") as archive:
        assert archive.namelist() == ["0000.jpg", "0001.jpg", "0002.jpg"]


def test_a_curve_goes_through_its_points_and_keeps_corners() -> None:
    square = [(10.0, 10.0)] * 2 + [(90.0, 10.0)] * 2 + [(90.0, 90.0)] * 2 + [(10.0, 90.0)] * 2
    path = np.array(curve(square, closed=True))
    for point in square:
        assert np.abs(path - point).sum(axis=1).min() < 1e-9
    assert path.min() > 9.99
    assert path.max() < 90.01


def test_the_command_draws_a_folder_and_refuses_nonsense(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--products", "200", "--looks", "1", "--out", str(tmp_path)]) == 0
    assert "200 drawn products" in capsys.readouterr().out
    assert (tmp_path / "boxes.csv").exists()
    assert main(["--products", "3", "--out", str(tmp_path)]) == 2
    assert "products" in capsys.readouterr().err
