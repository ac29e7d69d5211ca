"""Picture sets in every layout, decoding as the server decodes, duplicates, and classes by words."""

from __future__ import annotations

import gzip
import io
import pathlib
import sys
import types
import zipfile
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageCms

from contracts.visual import CLASSES, WHOLE
from serving.vision import decode as serving_decode
from training.visual.decode import Limits, PictureError, crop, decode, letterbox
from training.visual.duplicates import duplicates, fingerprint
from training.visual.kinds import class_of
from training.visual.pictures import PictureSetError, open_pictures


def photo(size: tuple[int, int] = (60, 40), seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (6, 6, 3), np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def zipped(path: pathlib.Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


# Layouts


def test_fashion_products_reports_on_every_tenth_id(tmp_path: pathlib.Path) -> None:
    zipped(tmp_path / "photos.zip", {"11.jpg": b"eleven", "20.jpg": b"twenty"})
    text = "id,gender,articleType,baseColour,productDisplayName\n11,Men,Shirts,Blue,A shirt\n20,Women,Skirts,NA,B, C\n"
    (tmp_path / "styles.csv.gz").write_bytes(gzip.compress(text.encode()))
    pictures = open_pictures("fashion-products", tmp_path)
    assert [(row.key, row.split) for row in pictures.rows] == [("11", "test"), ("20", "train")]
    assert dict(pictures.rows[0].labels) == {
        "type": "Shirts", "colour": "Blue", "gender": "Men", "name": "A shirt", "product_id": "11",
    }  # fmt: skip
    assert "colour" not in pictures.rows[1].labels
    assert pictures.read("20") == b"twenty"
    with pytest.raises(KeyError):
        pictures.read("21")


def test_a_folder_of_files_is_read_like_a_zip(tmp_path: pathlib.Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"a")
    (tmp_path / "labels.csv").write_text("file,split,label\na.jpg,validation,hat\n")
    pictures = open_pictures("phone-photos", tmp_path)
    assert pictures.rows[0].split == "test"
    assert pictures.read("a.jpg") == b"a"
    with pytest.raises(KeyError):
        pictures.read("../labels.csv")


def test_grocery_photos_and_their_catalogue_share_classes(tmp_path: pathlib.Path) -> None:
    (tmp_path / "classes.csv").write_text(
        'class_id,class_name,coarse_name,iconic_file,description\n7,Red-Pear,Pear,7.jpg,"Sweet, juicy"\n'
    )
    (tmp_path / "labels.csv").write_text("file,split,class_id\nx.jpg,val,7\ny.jpg,train,7\n")
    zipped(tmp_path / "photos.zip", {"x.jpg": b"x", "y.jpg": b"y"})
    zipped(tmp_path / "iconic.zip", {"7.jpg": b"seven"})
    photos, catalogue = (open_pictures(name, tmp_path) for name in ("grocery-photos", "grocery-catalogue"))
    assert [row.split for row in photos.rows] == ["test", "train"]
    assert photos.rows[0].labels == catalogue.rows[0].labels
    assert catalogue.rows[0].labels["name"] == "Red Pear"
    assert catalogue.read("7") == b"seven"


def test_street_looks_have_masks(tmp_path: pathlib.Path) -> None:
    zipped(tmp_path / "photos.zip", {"0700.jpg": b"p", "0701.jpg": b"q"})
    zipped(tmp_path / "masks.zip", {"0701.png": b"m"})
    pictures = open_pictures("street-looks", tmp_path)
    assert [row.split for row in pictures.rows] == ["train", "test"]
    assert pictures.read_mask("0701") == b"m"


def test_a_table_of_ones_own(tmp_path: pathlib.Path) -> None:
    zipped(tmp_path / "shots.zip", {"a.png": b"a", "b.png": b"b"})
    (tmp_path / "pictures.csv").write_text(
        "image,kind,sku,part,left,top,right,bottom\n"
        "a.png,coat,s1,held out,0,0,0.5,1\na.png,hat,s2,held out,0.5,0,1,1\nb.png,coat,s3,,,,,\n"
    )
    options = {"photos": "shots.zip", "file": "image", "type": "kind", "product_id": "sku", "split": "part",
               "test": "held out"}  # fmt: skip
    first, second = open_pictures("table", tmp_path, options).rows
    assert (first.split, second.split) == ("test", "train")
    assert [(box.label, box.product_id, box.right) for box in first.boxes] == [
        ("coat", "s1", 0.5),
        ("hat", "s2", 1.0),
    ]
    assert second.labels == {"type": "coat", "product_id": "s3"}
    assert not second.boxes


@pytest.mark.parametrize("by_name", [False, True])
def test_a_data_set_of_a_hub(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, by_name: bool) -> None:
    (tmp_path / "data").mkdir()
    rows = {
        "picture": [{"bytes": b"one", "path": None}, {"bytes": b"two", "path": None}],
        "category": ["bag", None],
    }
    pq.write_table(pa.table(rows), tmp_path / "data" / "test-00000.parquet", row_group_size=1)
    name = str(tmp_path)
    if by_name:
        hub = types.SimpleNamespace(snapshot_download=lambda name, **_: str(tmp_path))
        monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
        name = "owner/clothes"
    pictures = open_pictures("hub", pathlib.Path(name), {"image": "picture", "type": "category"})
    assert [dict(row.labels) for row in pictures.rows] == [{"type": "bag", "category": "bag"}, {}]
    assert {row.split for row in pictures.rows} == {"test"}
    assert [pictures.read(row.key) for row in pictures.rows] == [b"one", b"two"]
    with pytest.raises(PictureSetError, match="no column image"):
        open_pictures("hub", pathlib.Path(name), {})


def test_a_hub_without_its_package_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(PictureSetError, match="needs the package huggingface_hub"):
        open_pictures("hub", pathlib.Path("owner/clothes"))


@pytest.mark.parametrize(
    ("layout", "message"),
    [("fashion-products", "no photos.zip"), ("drawn", "no photos.zip"), ("nonsense", "expected one of")],
)
def test_a_folder_that_is_not_in_its_layout_is_named(
    tmp_path: pathlib.Path, layout: str, message: str
) -> None:
    with pytest.raises(PictureSetError, match=message):
        open_pictures(layout, tmp_path)


def test_a_broken_zip_and_a_missing_column_are_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "photos.zip").write_bytes(b"no zip")
    (tmp_path / "labels.csv").write_text("file,label\na.jpg,hat\n")
    with pytest.raises(PictureSetError, match="no column split"):
        open_pictures("phone-photos", tmp_path)
    (tmp_path / "labels.csv").write_text("file,split,label\na.jpg,train,hat\n")
    with pytest.raises(PictureSetError, match="expected a zip"):
        open_pictures("phone-photos", tmp_path).read("a.jpg")


# Decoding


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(photo(), "JPEG", quality=95, exif=exif)


def _in_other_colours() -> bytes:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    return encoded(photo(), "JPEG", quality=95, icc_profile=profile.tobytes())


def _transparent() -> Image.Image:
    image = photo().convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


GOOD: dict[str, bytes] = {
    "jpeg": encoded(photo(), "JPEG", quality=95),
    "turned": _turned(),
    "profile of another space": _in_other_colours(),
    "cmyk": encoded(photo().convert("CMYK"), "JPEG", quality=95),
    "grey": encoded(photo().convert("L")),
    "16 bits": encoded(Image.fromarray((np.arange(2400, dtype=np.uint16) * 27).reshape(40, 60))),
    "transparent": encoded(_transparent()),
    "palette": encoded(photo().convert("P", palette=Image.Palette.ADAPTIVE)),
    "grey with alpha": encoded(_transparent().convert("LA")),
    "webp": encoded(photo(), "WEBP", lossless=True),
    "moving": encoded(photo(), "GIF", save_all=True, append_images=[photo(seed=1), photo(seed=2)]),
}


@pytest.mark.parametrize("name", GOOD)
def test_training_and_server_see_the_same_pixels(name: str) -> None:
    ours, theirs = np.asarray(decode(GOOD[name])), serving_decode.decode(GOOD[name]).pixels()
    assert ours.shape == theirs.shape
    assert np.array_equal(ours, theirs)


def test_a_photo_is_upright_and_transparency_is_white() -> None:
    assert decode(GOOD["turned"]).size == (40, 60)
    empty = Image.new("RGBA", (30, 30), (10, 20, 30, 0))
    assert np.asarray(decode(encoded(empty))).min() == 255


def test_what_a_camera_wrote_beside_the_pixels_is_gone() -> None:
    assert not decode(GOOD["turned"]).info


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "empty"),
        (b"hello", "not a picture"),
        (GOOD["jpeg"][:300], "damaged"),
        (encoded(Image.new("RGB", (1, 1))), "too small"),
        (encoded(Image.new("L", (20_000, 20))), "too long"),
        (encoded(Image.new("1", (9000, 9000))), "too many pixels"),
        (b"\0\0\0\x18ftypheic" + b"\0" * 40, "heic"),
    ],
)
def test_what_cannot_be_used_is_told_apart(raw: bytes, reason: str) -> None:
    with pytest.raises(PictureError) as caught:
        decode(raw)
    assert caught.value.reason == reason
    assert "expected" in str(caught.value)


def test_bytes_are_capped() -> None:
    with pytest.raises(PictureError, match="at most 10"):
        decode(GOOD["jpeg"], limits=Limits(bytes=10))


def test_letterbox_and_crop_keep_places() -> None:
    image = Image.new("RGB", (80, 40), (0, 0, 255))
    image.paste((255, 0, 0), (40, 0, 80, 40))
    square, scale = letterbox(image, 20)
    assert scale == 0.25
    assert (square[12:] == 114).all()
    assert (
        crop(image, (0.5, 0.0, 1.0, 1.0), 8)[:, 1:] == (255, 0, 0)
    ).all()  # Smoothing reaches over the edge.
    kept = crop(image, None, 20, keep_shape=True)
    assert (kept[10:] == 114).all()
    assert kept[:10].mean() < 200


# Duplicates


def test_the_same_picture_at_another_size_is_found_and_another_colour_is_not() -> None:
    shirt, other = photo((200, 160), 3), photo((200, 160), 4)
    again = Image.open(io.BytesIO(encoded(shirt.resize((150, 120)), "JPEG", quality=80))).convert("RGB")
    red, blue = (Image.new("RGB", (100, 100), (250, 250, 250)) for _ in range(2))
    for image, colour in ((red, (190, 40, 40)), (blue, (40, 40, 190))):
        image.paste(colour, (20, 20, 80, 80))
    prints = [fingerprint(image) for image in (shirt, other, again, red, blue)]
    hashes = np.array([one.hash for one in prints], np.uint64)
    assert np.bitwise_count(hashes[3] ^ hashes[4]) <= 5  # The hash alone would call them the same.
    assert duplicates(hashes, np.stack([one.sketch for one in prints])).tolist() == [0, 1, 0, 3, 4]


def test_no_pictures_have_no_duplicates() -> None:
    assert len(duplicates(np.zeros(0, np.uint64), np.zeros((0, 3072), np.uint8))) == 0


# Classes by words


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("Tshirts", "top"), ("shirt dress", "dress"), ("Flip Flops", "footwear"), ("Sunglasses", "sunglasses"),
        ("Ties", "scarf"), ("Laptop Bag", "bag"), ("Shoe Accessories", WHOLE), ("Watches", WHOLE), ("Jeans", "pants"),
        ("Kurta Sets", "dress"), ("Track Pants", "pants"), ("boots", "boots"), ("beanie", "headwear"), ("", WHOLE),
    ],
)  # fmt: skip
def test_a_type_in_words_has_a_class(words: str, name: str) -> None:
    assert class_of({"type": words}) == name
    assert name in CLASSES


def test_a_class_that_is_given_counts_and_a_category_helps() -> None:
    assert class_of({"class": "belt", "type": "Shirts"}) == "belt"
    assert class_of({"type": "Alder 5", "category": "skirts"}) == "skirt"
