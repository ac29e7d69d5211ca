"""A small shop's pictures from a folder to a release that sees: catalogue, index, looks, clicks, packing.

Models are hand-made graphs that see colours (`tests/integration/serving/seeing.py`), so every answer is known.
"""

from __future__ import annotations

import csv
import dataclasses
import datetime as dt
import hashlib
import json
import pathlib
import shutil
import zipfile
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from contracts.decisions import Decision, DecisionItem, Reason
from contracts.release import read_manifest
from contracts.retailer import Pictures, Retailer
from contracts.settings import Settings, read_settings
from orchestration.lake import tables, writing
from orchestration.visual import catalogue, clicks, facts, making, proving, sheets
from serving.decision_log import DecisionLog
from serving.releases.release import open_release
from tests.integration.serving import seeing, synthetic
from training.config import Bundle, read_bundle, write_bundle
from training.sealing import PackagingError
from training.visual import packing
from training.visual.embedder_model import directions

GOODS = 30
START = dt.datetime(2025, 3, 1, tzinfo=dt.UTC)
TYPES = ("tee", "dress", "sneakers", "tote", "jeans")
CLASSES = ("top", "dress", "footwear", "bag", "pants")


def key(number: int) -> str:
    return synthetic.product_ids()[number]


def _lake(settings: Settings, stated: dict[int, str] | None = None) -> None:
    """Products and events; some products may be stated to have another colour than their pictures show."""
    colours = {n: tuple(seeing.COLOURS)[n // 5 % 6] for n in range(GOODS + 2)} | (stated or {})
    rows = [
        {"product_id": key(n), "name": f"{TYPES[n % 5]} {n}", "department": "garments", "category": "all",
         "type": TYPES[n % 5], "brand": "b", "manufacturer": "b", "size": "", "kind": "good", "sellable": n != 4,
         "attributes": json.dumps({"colour": colours[n], "list_price": 20.0 + n,
                                   **({"stock": {"S": 3, "M": 2, "L": 0}} if n in (5, 6) else {})})}
        for n in range(GOODS + 2)
    ]  # fmt: skip
    writing.replace_all(tables.TABLES["products"], settings.lake, pa.Table.from_pylist(rows, tables.PRODUCTS))
    events = [
        ("purchase", 0, 10.0, 1), ("purchase", 0, 12.0, 5), ("purchase", 1, 9.0, 5), ("stockout", 0, None, 6),
        ("stockout", 1, None, 3), ("purchase", 2, 7.0, 5),
        # The sixth has no M any more; the seventh had none for a while, and S ran out.
        ("stockout", 5, None, 4, "M"), ("stockout", 6, None, 2, "M"), ("purchase", 6, 8.0, 3, "M"),
        ("stockout", 6, None, 5, "S"),
    ]  # fmt: skip
    told = [
        {"event_id": f"e{n}", "source": "s", "occurred_at": START + dt.timedelta(hours=hour), "channel": "web",
         "received_at": START, "action": action, "product_id": key(product), "unit_price": price,
         "customer_id": "ann", "day": START.date(), "identifiers": "[]",
         "detail": json.dumps({"size": size[0]} if size else {})}
        for n, (action, product, price, hour, *size) in enumerate(events)
    ]  # fmt: skip
    days = [START.date()]
    writing.replace_days(
        tables.TABLES["events"], settings.lake, pa.Table.from_pylist(told, tables.EVENTS), days[0], days[-1]
    )


def _pictures(root: pathlib.Path) -> None:
    root.mkdir()
    with (
        (root / "pictures.csv").open("w", newline="") as file,
        zipfile.ZipFile(root / "photos.zip", "w") as archive,
    ):
        writer = csv.writer(file)
        writer.writerow(("file", "product_id"))
        for number in range(GOODS):
            writer.writerow((f"{number}.jpg", key(number)))
            content = seeing.encoded(seeing.picture(number, 200))
            if number == 7:
                content = content[:200]
            if number == 9:
                content = seeing.encoded(seeing.picture(8, 150))
            if number != 11:
                archive.writestr(f"{number}.jpg", content)
        writer.writerow(("stranger.jpg", "nobody"))
    with zipfile.ZipFile(root / "looks.zip", "w") as archive:
        for name, photo in {
            "spring": seeing.scene({0: 5, 3: 8}),
            "empty": Image.new("RGB", (300, 300), "white"),
        }.items():
            archive.writestr(f"campaign/{name}.jpg", seeing.encoded(photo))


def _bundle(
    settings: Settings, family: str, files: dict[str, bytes], told: dict[str, Any], **details: Any
) -> None:
    folder = settings.bundles / family / "one"
    folder.mkdir(parents=True)
    for role, content in files.items():
        (folder / role).write_bytes(content)
    bundle = Bundle(
        family=family, run_id=f"run-{family}", model_uri=f"models:/{family}", metrics={"quality": 0.5}, config={},
        files={role: role for role in files}, details={"settings": told, **details},
    )  # type: ignore[arg-type]  # fmt: skip
    write_bundle(folder, bundle)
    (settings.bundles / family / "LATEST").write_text("one")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Retailer]:
    home = tmp_path_factory.mktemp("home")
    settings = read_settings({"CONTINUUM_HOME": str(home)})
    _lake(settings)
    _pictures(home / "shots")
    pictures = Pictures(
        layout="table",
        root=str(home / "shots"),
        looks=str(home / "shots" / "looks.zip"),
        largest_broken_share=0.1,
    )
    retailer = Retailer(
        name="small",
        title="Small",
        source="files",
        first_day=START.date(),
        last_day=START.date(),
        pictures=pictures,
    )
    embedder, detector = (
        seeing.embedder_graph().SerializeToString(),
        seeing.detector_graph().SerializeToString(),
    )
    sha = hashlib.sha256(embedder).hexdigest()
    table = np.zeros((len(seeing.WORDS), seeing.DIM), np.float32)
    table[1:7] = np.eye(6, seeing.DIM)
    outfit = seeing.outfit_graph().SerializeToString()
    told = {"size": seeing.SIDE, "dim": seeing.DIM, "attributes": {"colour": list(seeing.COLOURS)}}
    _bundle(settings, "embedder", {"embedder": embedder}, told, sha256=sha)
    _bundle(settings, "detector", {"detector": detector},
            {"size": seeing.SCENE, "classes": list(seeing.CLASSES), "threshold": 0.3, "iou": 0.5})  # fmt: skip
    _bundle(settings, "text", {"text": seeing.text_graph(table).SerializeToString(), "tokenizer": seeing.tokenizer()},
            {"length": 16, "dim": seeing.DIM}, embedder_sha256=sha)  # fmt: skip
    _bundle(settings, "outfit", {"outfit": outfit, "outfit_items": _items_graph()},
            {"slots": list(seeing.SLOTS), "dim": seeing.POINT}, embedder_sha256=sha)  # fmt: skip
    return settings, retailer


def _items_graph() -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    value = helper.make_tensor_value_info
    nodes = [helper.make_node("MatMul", ["vectors", "w"], ["projected"])]
    graph = helper.make_graph(
        nodes, "items",
        [value("vectors", TensorProto.FLOAT, ["B", seeing.DIM]), value("types", TensorProto.INT64, ["B"])],
        [value("projected", TensorProto.FLOAT, ["B", seeing.POINT])],
        [numpy_helper.from_array(seeing.projection(), "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


@pytest.fixture(scope="module")
def collected(shop: tuple[Settings, Retailer]) -> catalogue.Catalogue:
    return catalogue.collect(*shop)


@pytest.fixture(scope="module")
def made(shop: tuple[Settings, Retailer], collected: catalogue.Catalogue) -> making.Made:
    return making.build_index(*shop)


def test_prices_stock_and_baskets_come_from_the_lake(
    shop: tuple[Settings, Retailer], tmp_path: pathlib.Path
) -> None:
    told = {product.product_id: product for product in facts.products(shop[0])}
    assert (told[key(0)].price, told[key(1)].price, told[key(3)].price) == (12.0, 9.0, 23.0)
    # The first ran out after its last purchase; the second was bought again since; the fifth may not be sold.
    assert [told[key(n)].in_stock for n in (0, 1, 3, 4)] == [False, True, True, False]
    assert told[key(0)].bought == 2
    assert told[key(0)].sizes == {}
    assert told[key(5)].sizes == {"S": True, "M": False, "L": False}
    assert told[key(6)].sizes == {"S": False, "M": True, "L": False}
    assert told[key(5)].in_stock
    assert told[key(6)].in_stock
    path = tmp_path / "baskets.csv"
    assert facts.write_baskets(shop[0], path, {key(0), key(1), key(2)}) == 1
    assert path.read_text().split() == ["basket,product_id", *(f"0,{key(n)}" for n in (0, 1, 2))]


def test_every_picture_is_accounted_for(
    shop: tuple[Settings, Retailer], collected: catalogue.Catalogue
) -> None:
    settings, _ = shop
    assert collected.table.num_rows == GOODS
    assert collected.problems == {"damaged": 1, "missing file": 1}
    assert collected.missing == [key(GOODS), key(GOODS + 1)]
    rows = {row["key"]: row for row in collected.table.to_pylist()}
    assert rows[key(9)]["repeats"] == key(8)
    assert collected.repeated == 1
    assert [rows[key(n)]["class"] for n in range(5)] == list(CLASSES)
    assert rows[key(6)]["colour"] == "green"
    shown = {path.stem for path in settings.media.glob("*.jpg")}
    assert shown == {key(n) for n in range(GOODS) if n not in (7, 11)}
    assert collected.looks == ["campaign-empty", "campaign-spring"]
    with Image.open(settings.media / f"{key(0)}.jpg") as image:
        assert max(image.size) == 200
    assert sheets.catalogue_sheet(settings).size[0] > 0


def test_a_second_collection_decodes_nothing_and_forgets_what_left(
    shop: tuple[Settings, Retailer], collected: catalogue.Catalogue
) -> None:
    settings, retailer = shop
    (settings.media / "gone.jpg").write_bytes(b"old")
    again = catalogue.collect(settings, retailer)
    assert again.decoded == 1  # The damaged one is tried again.
    assert again.table.equals(collected.table)
    assert not (settings.media / "gone.jpg").exists()


def test_the_index_holds_what_can_be_seen(shop: tuple[Settings, Retailer], made: making.Made) -> None:
    arrays = np.load(shop[0].visual / making.INDEX_ARRAYS, allow_pickle=False)
    assert made.rows == {"bag": 6, "footwear": 5, "dress": 5, "pants": 6, "top": 6}
    place = arrays["product_id"].tolist().index(key(0))
    assert arrays["price"][place] == 12.0
    assert not arrays["in_stock"][place]
    assert arrays["slot"][place] == 1 + seeing.SLOTS.index("top")
    assert np.allclose(arrays["projected"][place], arrays["vectors"][place] @ seeing.projection(), atol=1e-4)
    gone = arrays["product_id"].tolist().index(key(4))
    assert (
        arrays["answers_from"][gone] == arrays["answers_from"][gone + 1]
    )  # It may not be sold: nothing answers.
    assert made.unanswered == [key(4)]
    assert made.self_first == 1.0


def test_pictures_find_themselves_again(shop: tuple[Settings, Retailer], made: making.Made) -> None:
    proof = proving.find_again(*shop, 50)
    assert (proof.every, proof.again, proof.sample) == (1.0, 1.0, GOODS - 2)


def _telling_graph(share: float) -> bytes:
    """The embedder that sees colours, with a part that tells them."""
    from onnx import TensorProto, helper, numpy_helper

    model = seeing.embedder_graph()
    graph, node, width = model.graph, helper.make_node, 8
    for other in graph.node:
        other.output[:] = ["seen" if name == "embedding" else name for name in other.output]
    constants = {
        "ways": directions(len(seeing.COLOURS), width).numpy(), "side": np.array([1], np.int64),
        "told_weight": np.array(share**0.5, np.float32), "seen_weight": np.array((1 - share) ** 0.5, np.float32),
    }  # fmt: skip
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    graph.node.extend([
        node("Softmax", ["attr_colour"], ["chances"]), node("Sqrt", ["chances"], ["roots"]),
        node("MatMul", ["roots", "ways"], ["way"]), node("ReduceL2", ["way", "side"], ["far"], keepdims=1),
        node("Div", ["way", "far"], ["told"]), node("Mul", ["told", "told_weight"], ["told_part"]),
        node("Mul", ["seen", "seen_weight"], ["seen_part"]),
        node("Concat", ["seen_part", "told_part"], ["embedding"], axis=1),
    ])  # fmt: skip
    (place,) = (at for at, output in enumerate(graph.output) if output.name == "embedding")
    del graph.output[place]
    graph.output.insert(
        0, helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["B", seeing.DIM + width])
    )
    return bytes(model.SerializeToString())


def test_the_index_tells_the_colours_that_the_catalogue_states(
    shop: tuple[Settings, Retailer], collected: catalogue.Catalogue, tmp_path: pathlib.Path
) -> None:
    shutil.copytree(shop[0].home, tmp_path / "home")
    settings, retailer = read_settings({"CONTINUUM_HOME": str(tmp_path / "home")}), shop[1]
    _lake(settings, {12: "black", 13: "no colour that it learned"})
    catalogue.collect(settings, retailer)
    shutil.rmtree(settings.bundles / "embedder")
    graph, share, width = _telling_graph(0.4), 0.4, 8
    told_at = (seeing.DIM, seeing.DIM + width)
    told = {"size": seeing.SIDE, "dim": told_at[1], "attributes": {"colour": list(seeing.COLOURS)},
            "told": ["colour"], "told_at": list(told_at)}  # fmt: skip
    _bundle(settings, "embedder", {"embedder": graph}, told, sha256=hashlib.sha256(graph).hexdigest())
    made = making.build_index(settings, retailer)
    assert made.stated == {"colour": pytest.approx(27 / 28)}
    assert made.settings.votes
    arrays = np.load(settings.visual / making.INDEX_ARRAYS, allow_pickle=False)
    rows = {
        number: arrays["vectors"][arrays["product_id"].tolist().index(key(number))] for number in (10, 12, 13)
    }
    ways = directions(len(seeing.COLOURS), width).numpy()
    colours = list(seeing.COLOURS)
    # The catalogue states one colour where the picture shows another; where it says nothing, the picture tells.
    for number, colour in ((10, "blue"), (12, "black"), (13, "blue")):
        part = rows[number][slice(*told_at)]
        assert np.allclose(part, share**0.5 * ways[colours.index(colour)], atol=0.05)
    proof = proving.find_again(settings, retailer, 50)
    assert (proof.every, proof.again, proof.lost) == (1.0, 1.0, [])


def test_looks_have_hotspots_with_answers_of_their_class(
    shop: tuple[Settings, Retailer], made: making.Made
) -> None:
    settings, retailer = shop
    spots = making.build_looks(settings, retailer)
    assert (spots.looks, spots.empty) == (2, 1)
    arrays = np.load(settings.visual / making.LOOK_ARRAYS, allow_pickle=False)
    assert arrays["spot_media"].tolist() == [1] * spots.spots
    index = np.load(settings.visual / making.INDEX_ARRAYS, allow_pickle=False)
    shard = dict(zip(index["product_id"].tolist(), index["shards"][index["shard"]].tolist(), strict=True))
    for row, number in enumerate(arrays["class"].tolist()):
        name = str(arrays["classes"][number])
        assert {shard[answer] for answer in arrays["answers"][row].tolist() if answer} == {name}
    first = arrays["class"].tolist().index(0)
    assert np.allclose(arrays["box"][first], (0, 0, 0.5, 0.5), atol=0.02)
    assert arrays["answers"][first][0] == key(5)  # A top in the upper left: the very picture.
    assert sheets.looks_sheet(settings).size[0] > 0


def test_the_release_sees(shop: tuple[Settings, Retailer], made: making.Made, tmp_path: pathlib.Path) -> None:
    settings, retailer = shop
    making.build_looks(settings, retailer)
    keys = synthetic.Keys(tmp_path)
    folder = synthetic.make_release(tmp_path / "release", keys)
    parts = making.parts(settings, retailer)
    assert parts is not None
    manifest = packing.add_visual(folder, parts)
    synthetic.sign(folder, keys, manifest)
    release = open_release(folder, keys.verify)
    assert release.visual is not None
    assert set(release.visual.parts) == {"detector", "embedder", "text", "outfit", "index", "looks"}
    assert read_manifest((folder / "manifest.json").read_bytes()).metrics["visual_embedder_quality"] == 0.5
    again = packing.add_visual(folder, parts)
    assert [part.name for part in again.components] == [part.name for part in manifest.components]


def test_parts_of_two_embedders_do_not_go_out_together(
    shop: tuple[Settings, Retailer], made: making.Made, tmp_path: pathlib.Path
) -> None:
    settings, retailer = shop
    parts = making.parts(settings, retailer)
    assert parts is not None
    folder = synthetic.make_release(tmp_path / "release", synthetic.Keys(tmp_path))
    other = {**parts.index, "embedder_sha256": np.array("f" * 64)}
    with pytest.raises(PackagingError, match="index was made by embedder ffffffffffff"):
        packing.add_visual(folder, dataclasses.replace(parts, index=other))
    text = read_bundle(settings.bundles / "text" / "one")
    strange = settings.bundles / "text" / "strange"
    strange.mkdir(exist_ok=True)
    write_bundle(
        strange, msgspec.structs.replace(text, details={**text.details, "embedder_sha256": "e" * 64})
    )
    with pytest.raises(PackagingError, match="'text' was trained in the space of embedder eeeeeeeeeeee"):
        packing.add_visual(folder, dataclasses.replace(parts, bundles={**parts.bundles, "text": strange}))


def test_clicks_become_pictures_to_learn_from(
    shop: tuple[Settings, Retailer], collected: catalogue.Catalogue
) -> None:
    settings, _ = shop

    def item(place: int, number: int) -> DecisionItem:
        reason = Reason(code="looks_alike", text="looks alike")
        return DecisionItem(product_id=key(number), position=place, score=1.0, propensity=1.0, sources=("visual",),
                            reason=reason)  # fmt: skip

    def decision(name: str, context: dict[str, Any], *numbers: int) -> Decision:
        return Decision(
            decision_id=name, decided_at=START, as_of=START, touchpoint="shop", path="visual", release="r",
            items=tuple(item(place, number) for place, number in enumerate(numbers)), context=context,
        )  # fmt: skip

    log = DecisionLog(settings.decisions)
    spot = {"box": [0.0, 0.0, 0.5, 0.5], "class": "top"}
    log.record(decision("d1", {"surface": "similar", "product_id": key(1), "lists_begin": [0]}, 6, 2))
    log.record(decision("d2", {"surface": "hotspots", "media_id": "campaign-spring", "lists_begin": [0, 2],
                               "objects": [{"box": [0.5, 0.5, 1, 1], "class": "bag"}, spot]}, 3, 8, 0, 5))  # fmt: skip
    log.record(decision("d3", {"surface": "text", "query": "red", "lists_begin": [0]}, 0))
    log.close()
    acts = [("d1", 2, "click"), ("d2", 5, "add_to_cart"), ("d3", 0, "click"), ("lost", 1, "click")]
    rows = [
        {"event_id": f"c{n}", "source": "s", "occurred_at": START + dt.timedelta(hours=9), "received_at": START,
         "channel": "web", "action": action, "product_id": key(number), "decision_id": name, "day": START.date(),
         "detail": "{}", "identifiers": "[]"}
        for n, (name, number, action) in enumerate(acts)
    ]  # fmt: skip
    writing.append_once(
        tables.TABLES["events"], settings.lake, pa.Table.from_pylist(rows, tables.EVENTS), "clicks", 1
    )
    found = clicks.collect_clicks(settings)
    assert (found.pairs, found.pictures, found.vectors) == (3, 2, 0)
    assert found.surfaces == [
        {"surface": "hotspots", "pairs": 1, "mean_place": 1.0}, {"surface": "similar", "pairs": 1, "mean_place": 1.0},
        {"surface": "text", "pairs": 1, "mean_place": 0.0},
    ]  # fmt: skip
    from training.visual.pictures import open_pictures

    pictures = open_pictures("table", settings.visual / clicks.FOLDER)
    by_file = {row.key: row.boxes[0] for row in pictures.rows}
    assert by_file["look-campaign-spring.jpg"].product_id == key(5)
    assert by_file["look-campaign-spring.jpg"].right == 0.5
    assert by_file[f"{key(1)}.jpg"].product_id == key(2)
    assert pictures.read(f"{key(1)}.jpg") == (settings.media / f"{key(1)}.jpg").read_bytes()


def test_pictures_of_types_answer_with_the_popular_products_of_their_type(
    shop: tuple[Settings, Retailer], tmp_path: pathlib.Path
) -> None:
    settings, retailer = shop
    (tmp_path / "classes.csv").write_text(
        "class_id,class_name,coarse_name,iconic_file,description\n0,Red-Tee,Tee,0.jpg,red\n1,Loose,Loose,1.jpg,none\n"
    )
    (tmp_path / "types.csv").write_text(
        "class_id,class_name,department,category,type\n0,Red-Tee,garments,all,tee\n"
    )
    with zipfile.ZipFile(tmp_path / "iconic.zip", "w") as archive:
        archive.writestr("0.jpg", seeing.encoded(seeing.picture(0, 100)))
    assert retailer.pictures is not None
    pictures = msgspec.structs.replace(
        retailer.pictures, layout="grocery-catalogue", root=str(tmp_path), belongs="type",
        types=str(tmp_path / "types.csv"), looks=0,
    )  # fmt: skip
    home = tmp_path / "home"
    home.mkdir()
    (home / "lake").symlink_to(settings.lake)
    own = msgspec.structs.replace(settings, home=home)
    (row,) = catalogue.collect(own, msgspec.structs.replace(retailer, pictures=pictures)).table.to_pylist()
    # Two purchases of the first tee, none of the others: then by id. A class without a type is left out.
    assert row["key"] == "Red-Tee"
    assert row["class"] == "whole product"
    assert row["answers"] == [key(n) for n in (0, 5, 10, 15, 20, 25, 30)]
