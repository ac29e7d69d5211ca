"""A shop's pictures: the profile's section, what belongs to what, and the grocer's reviewed table."""

from __future__ import annotations

import csv
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import pytest

from contracts.retailer import Pictures
from contracts.settings import RETAILERS, SettingsError, read_retailer, read_settings
from orchestration.visual import belonging, recipes
from training.rehearsal.catalogue import COLOURS, TYPES
from training.visual.pictures import Picture

PROFILE = "name: shop\ntitle: A shop\nsource: files\nfirst_day: 2025-01-01\nlast_day: 2025-02-01\npictures:\n"


def shop(tmp_path: pathlib.Path, text: str, **environment: str) -> Pictures | None:
    path = tmp_path / "shop.yaml"
    path.write_text(PROFILE + text)
    return read_retailer(read_settings({"RETAILER": str(path), **environment})).pictures


def test_roots_are_read_from_the_environment_and_from_the_yamls_folder(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CONTINUUM_DATA", raising=False)
    text = "  layout: fashion-products\n  root: ${CONTINUUM_DATA}/shots\n"
    assert shop(tmp_path, text) is None
    there = shop(tmp_path, text, CONTINUUM_DATA="/data")
    assert there is not None
    assert there.root == "/data/shots"
    near = shop(
        tmp_path, "  layout: table\n  root: photos\n  learn:\n    street-looks: ${CONTINUUM_DATA}/street\n"
    )
    assert near is not None
    assert near.root == str(tmp_path / "photos")
    assert near.learn == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("  layout: drawn\n  root: x\n", r"pictures.root` is 'x'"),
        ("  layout: table\n", r"pictures.root` is ''"),
        ("  layout: table\n  root: x\n  belongs: type\n", r"pictures.types` is ''"),
        ("  layout: drawn\n  looks: -1\n", r"pictures.looks` is -1"),
        ("  layout: sketches\n", r"\$.pictures.layout"),
        ("  layout: drawn\n  colour: red\n", "unknown field"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: pathlib.Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        shop(tmp_path, text)


def test_a_folder_of_photos_stands_in_for_drawings_only(tmp_path: pathlib.Path) -> None:
    photos = shop(tmp_path, "  layout: drawn\n", CONTINUUM_PICTURES=str(tmp_path))
    assert photos is not None
    assert (photos.layout, photos.root, photos.belongs) == ("fashion-products", str(tmp_path), "alike")
    with pytest.raises(SettingsError, match="CONTINUUM_PICTURES is set"):
        shop(tmp_path, "  layout: table\n  root: x\n", CONTINUUM_PICTURES=str(tmp_path))


def test_a_shop_trains_what_its_pictures_teach(tmp_path: pathlib.Path) -> None:
    settings = read_settings({"CONTINUUM_HOME": str(tmp_path)})
    drawn = Pictures(layout="drawn", looks=4)
    assert recipes.families(drawn, settings) == ("detector", "embedder", "text", "outfit")
    plain = Pictures(layout="table", root=str(tmp_path))
    assert recipes.families(plain, settings) == ("embedder", "text", "outfit")
    grocer = Pictures(layout="grocery-catalogue", root=str(tmp_path), belongs="type", types="t.csv")
    assert recipes.families(grocer, settings) == ("embedder", "text")


def test_vectors_tell_the_kind_before_the_colour_unless_the_profile_says_otherwise() -> None:
    assert recipes.telling({"colour", "type", "usage"}, {}) == {
        "told": ["type", "colour"],
        "told_weights": [1.0, 0.6],
    }
    own = {"told": ["usage", "colour"]}
    assert recipes.telling({"type"}, own) == {**own, "told_weights": [1.0, 0.6]}
    assert recipes.telling(set(), {}) == {"told": [], "told_weights": []}


# What belongs to what


def product(number: int, kind: str = "tee", colour: str = "navy") -> Mapping[str, Any]:
    return {"product_id": f"p{number}", "type": kind, "colour": colour, "sellable": True}


def picture(key: str, kind: str = "Tshirts", colour: str = "Navy Blue") -> Picture:
    return Picture(key, {"type": kind, "colour": colour}, "train")


def test_a_product_takes_a_photo_of_its_type_and_colour_once() -> None:
    photos = [picture("9"), picture("10"), picture("11", colour="Red"), picture("12", "Skirts")]
    products = [
        product(1),
        product(2),
        product(3),
        product(4),
        product(5, "skirt", "purple"),
        product(6, "parka"),
    ]
    found = belonging.alike(photos, products)
    # Two of its colour, in the order of ids; a third takes another colour; the fourth and the parka find none.
    assert found == {"p1": "9", "p2": "10", "p3": "11", "p5": "12"}


def test_every_type_and_colour_of_the_atelier_has_words() -> None:
    assert set(belonging.TYPES_ALIKE) == set(TYPES)
    assert set(belonging.COLOURS_ALIKE) == set(COLOURS)


def test_pictures_of_unknown_products_belong_to_nothing() -> None:
    photos = [Picture("a.jpg", {"product_id": "p1"}, "train"), Picture("p2", {}, "train"), picture("p9")]
    assert belonging.by_id(photos, [product(1), product(2)]) == {"p1": "a.jpg", "p2": "p2"}


# The grocer's table


@pytest.fixture(scope="module")
def grocer() -> list[belonging.TypeOfClass]:
    return belonging.read_types(RETAILERS / "grocery_types.csv")


def test_every_type_of_the_table_is_a_type_of_the_shop(grocer: list[belonging.TypeOfClass]) -> None:
    from orchestration.sources import complete_journey

    products = complete_journey.products().to_pylist()
    for kind in grocer:
        assert belonging.products_of(kind, products), kind


def test_every_class_of_the_pictures_is_in_the_table(grocer: list[belonging.TypeOfClass]) -> None:
    if not (data := os.environ.get("CONTINUUM_DATA")):
        pytest.skip("CONTINUUM_DATA is not set; expected the folder with grocery-photos")
    with (pathlib.Path(data) / "grocery-photos" / "classes.csv").open(newline="") as file:
        classes = {(row["class_id"], row["class_name"]) for row in csv.DictReader(file)}
    assert {(kind.class_id, kind.class_name) for kind in grocer} == classes
    assert len(grocer) == 81


def test_a_table_with_holes_is_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "types.csv"
    path.write_text("class_id,class_name,department,category,type\n1,Pear,PRODUCE,PEARS,\n")
    with pytest.raises(belonging.BelongingError, match="class 1 has no type"):
        belonging.read_types(path)
    path.write_text("class_id,class_name,department,category,type\n1,A,B,C,D\n1,A,B,C,D\n")
    with pytest.raises(belonging.BelongingError, match="twice"):
        belonging.read_types(path)
