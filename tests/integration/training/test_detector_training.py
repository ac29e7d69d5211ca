"""The detector from drawn looks to a bundle, in small."""

import json

import numpy as np
import onnxruntime as ort
import pytest
from PIL import Image

from contracts.visual import CLASSES
from training.rehearsal import catalogue
from training.rehearsal.config import checked
from training.rehearsal.drawing import write_looks
from training.visual.__main__ import main
from training.visual.detector import answers, export, learn, scenes
from training.visual.detector.params import DetectorParams


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    rows = catalogue.table(catalogue.build(checked({"products": 300, "seed": 7}))).to_pylist()
    write_looks(rows, folder, 30)
    return folder


def config(drawn, out, **changes):
    params = {"trunk": "plain", "size": 128, "width": 16, "steps": 4, "batch": 4, "check_every": 2}
    return {
        "retailer": "atelier", "home": str(out.parent), "out": str(out),
        "tracking_uri": f"sqlite:///{out.parent}/mlflow.db", "experiment": "detector", "threads": 1, "simulated": True,
        "sources": [{"layout": "drawn-looks", "root": str(drawn)}], "params": params, **changes,
    }  # fmt: skip


def trained(tmp_path, given):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(given))
    return main(["detector", "--config", str(path), "--quiet"])


def test_one_config_in_one_bundle_out(drawn, tmp_path):
    import mlflow

    out = tmp_path / "bundle"
    assert trained(tmp_path, config(drawn, out)) == 0
    bundle = json.loads((out / "bundle.json").read_text())
    assert bundle["family"] == "detector"
    assert bundle["details"]["settings"]["classes"] == list(CLASSES)
    assert {"drawn_ap50", "drawn_ap", "validation_ap", "onnx_largest_difference"} <= set(bundle["metrics"])
    session = ort.InferenceSession(str(out / "detector.onnx"), providers=["CPUExecutionProvider"])
    assert {i.name: i.type for i in session.get_inputs()} == {"pixels": "tensor(uint8)"}
    for count in (1, 2, 7):
        boxes, scores, classes = session.run(
            ["boxes", "scores", "classes"], {"pixels": np.zeros((count, 128, 128, 3), np.uint8)}
        )
        assert boxes.shape == (count, 100, 4)
        assert scores.shape == classes.shape == (count, 100)
        assert boxes.dtype == scores.dtype == np.float32
        assert classes.dtype == np.int64
        assert boxes.min() >= 0
        assert boxes.max() <= 1
        assert (np.diff(scores, axis=1) <= 0).all()
    assert Image.open(out / "overlays-drawn.png").width == 1800
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    names = {
        file.path
        for folder in ("", "overlays", "tables")
        for file in client.list_artifacts(bundle["run_id"], folder)
    }
    assert {"model_card.md", "overlays/drawn.png", "tables/per_class.csv"} <= names


def test_a_session_that_ends_early_goes_on_to_the_same_end(drawn, tmp_path):
    part = scenes.read_source("drawn-looks", drawn, 160)
    sources = [(1.0, part.learn)]
    params = DetectorParams(trunk="plain", size=128, width=16, steps=4, batch=4, check_every=2, average=0.5)
    seen = []

    def check(peaks):
        seen.append(answers.judged(answers.of_network(peaks), part.validate, 128, 0.6).ap)
        return float(len(seen))

    whole = learn.learn(sources, params, check, tmp_path / "never.pt", 3, lambda line: None)
    hasty = DetectorParams(
        **{**{f: getattr(params, f) for f in params.__struct_fields__}, "session_seconds": 1e-6}
    )
    for _ in range(3):
        with pytest.raises(learn.PausedError, match="the same command goes on"):
            learn.learn(sources, hasty, check, tmp_path / "left.pt", 3, lambda line: None)
    again = learn.learn(sources, params, check, tmp_path / "left.pt", 3, lambda line: None)
    assert again.curves["loss_centres"] == pytest.approx(whole.curves["loss_centres"])
    for name, value in whole.network.state_dict().items():
        assert np.allclose(value, again.network.state_dict()[name], atol=1e-6), name


def test_the_last_weights_are_kept_where_that_is_wanted(drawn, tmp_path):
    part = scenes.read_source("drawn-looks", drawn, 160)
    found = {}
    for keep in ("best", "last"):
        params = DetectorParams(
            trunk="plain", size=128, width=16, steps=4, batch=4, check_every=2, average=0.5, keep=keep
        )
        scores = iter((0.5, 0.1, 0.1))  # The first check is the best.
        found[keep] = learn.learn(
            [(1.0, part.learn)], params, lambda peaks, scores=scores: next(scores), tmp_path / keep, 3, print
        )
    assert (found["best"].best_step, found["last"].best_step) == (2, 4)
    first, last = (found[keep].network.state_dict()["heat.1.weight"] for keep in ("best", "last"))
    assert not np.allclose(first, last, atol=1e-6)


def test_int8_answers_like_float(drawn, tmp_path):
    part = scenes.read_source("drawn-looks", drawn, 128)
    network = learn.open_network(DetectorParams(trunk="plain", size=128, width=16)).eval()
    export.export(network, tmp_path / "float.onnx")
    squares = np.stack([np.resize(scene.pixels, (128, 128, 3)) for scene in part.learn[:4]])
    export.quantise(tmp_path / "float.onnx", squares, tmp_path / "int8.onnx")
    exact, rough = (export.of_graph(tmp_path / name)(squares) for name in ("float.onnx", "int8.onnx"))
    assert np.abs(exact[1] - rough[1]).max() < 0.02
    assert (tmp_path / "int8.onnx").stat().st_size < 0.5 * (tmp_path / "float.onnx").stat().st_size


def test_what_cannot_be_used_is_named(drawn, tmp_path, capsys):
    out = tmp_path / "bundle"
    assert trained(tmp_path, config(drawn, out, sources=[])) == 2
    assert "`$.sources` is empty" in capsys.readouterr().err
    assert (
        trained(tmp_path, config(drawn, out, sources=[{"layout": "phone-photos", "root": str(drawn)}])) == 2
    )
    assert "layout 'phone-photos'" in capsys.readouterr().err
    assert (
        trained(tmp_path, config(drawn, out, sources=[{"layout": "street-looks", "root": str(drawn)}])) == 2
    )
    assert "photos.zip" in capsys.readouterr().err
    assert trained(tmp_path, config(drawn, out, params={"size": 100})) == 2
    assert "multiple" in capsys.readouterr().err
