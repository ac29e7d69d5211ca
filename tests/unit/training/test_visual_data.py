"""What the embedder learns from: labels, splits and squares of a made-up shop."""

import pathlib
from io import BytesIO

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

from training.config import ConfigError
from training.visual import embedder_data
from training.visual.config import EmbedderParams, Source, Target
from training.visual.embedder_data import LEARN, TEST, VALIDATE, read_samples
from training.visual.embedder_fit import fit
from training.visual.pictures import Box, Picture, PictureSet

PARAMS = EmbedderParams(size=32, train_size=32, validation=0.3)


def _jpeg(shade: int) -> bytes:
    stream = BytesIO()
    Image.new("RGB", (40, 32), (shade, 10, 200)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def sets(monkeypatch: pytest.MonkeyPatch) -> dict[str, PictureSet]:
    catalogue = [
        Picture(f"p{at}", {"type": f"t{at % 3}", "colour": "red" if at % 2 else "blue", "product_id": f"p{at}"},
                "test" if at % 10 == 1 else "train")
        for at in range(40)
    ]  # fmt: skip
    looks = [
        Picture(f"look{at}", {}, "test" if at == 0 else "train",
                (Box("t0", 0.0, 0.0, 0.5, 1.0, "p3"), Box("t1", 0.5, 0.0, 1.0, 1.0, "p11")))
        for at in range(3)
    ]  # fmt: skip

    def read(key: str) -> bytes:
        return b"" if key == "broken" else _jpeg(50)

    found = {
        "drawn": PictureSet("drawn", catalogue, read),
        "drawn-looks": PictureSet("drawn-looks", looks, read),
    }
    monkeypatch.setattr(embedder_data, "open_pictures", lambda layout, root, options: found[layout])
    return found


def _source(layout: str = "drawn", **more: object) -> Source:
    told = {
        "name": layout,
        "layout": layout,
        "root": "nowhere",
        "labels": {"type": "type", "product_id": "product_id"},
    }
    return msgspec.convert({**told, **more}, Source)


def test_a_product_is_on_one_side_in_all_sources(sets: dict[str, PictureSet], tmp_path: pathlib.Path) -> None:
    labels = {"type": "type", "colour": "colour", "product_id": "product_id"}
    samples = read_samples(
        [_source(labels=labels), _source("drawn-looks", boxes=True, labels={"product_id": "product_id"})],
        PARAMS, tmp_path, 0,
    )  # fmt: skip
    assert len(samples) == 46
    product, split = samples.labels["product_id"], samples.split
    looks = samples.of("drawn-looks")
    # p11 is a product to report on, so that no look teaches it; the first look is to report on as a whole.
    assert [split[row] == TEST for row in looks] == [True, True, False, True, False, True]
    for row in looks[2:]:
        same = [other for other in samples.of("drawn") if product[other] == product[row]]
        assert split[row] == split[same[0]]
    assert (split == VALIDATE).any()
    # Labels of a box come from the same product's catalogue row.
    colours = [samples.values["colour"][code] for code in samples.labels["colour"][looks]]
    assert colours == ["red"] * 6


def test_joint_labels_need_all_of_them(sets: dict[str, PictureSet], tmp_path: pathlib.Path) -> None:
    labels = {"type": "type", "colour": "colour", "product_id": "product_id"}
    rename = {"colour": {"red": "warm"}}
    samples = read_samples([_source(labels=labels, rename=rename)], PARAMS, tmp_path, 0)
    codes, texts = samples.joint(["type", "colour"])
    assert [texts[code] if code >= 0 else None for code in codes[:4]] == [None, "t1 warm", None, "t0 warm"]


def test_the_last_of_each_class_are_kept_aside(sets: dict[str, PictureSet], tmp_path: pathlib.Path) -> None:
    samples = read_samples([_source(aside="last")], PARAMS, tmp_path, 0)
    for code in range(3):
        own = np.flatnonzero((samples.labels["type"] == code) & (samples.split != TEST))
        kept = samples.split[own] == VALIDATE
        assert kept.sum() == round(0.3 * len(own))
        assert kept[-int(kept.sum()) :].all()


def test_squares_are_decoded_once_and_taken_in_any_order(
    sets: dict[str, PictureSet], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = read_samples([_source()], PARAMS, tmp_path, 0)

    def fail(*given: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(embedder_data, "_decode", fail)
    again = read_samples([_source()], PARAMS, tmp_path, 0)
    rows = np.array([7, 0, 3])
    assert np.array_equal(again.take(rows), first.take(np.arange(40))[rows])
    assert again.take(rows).shape == (3, 32, 32, 3)
    # A wide picture keeps its shape: grey below.
    assert (again.take(rows)[0, 26:] == 114).all()
    assert again.digest == first.digest


def test_broken_pictures_are_left_out_and_many_are_refused(
    sets: dict[str, PictureSet], tmp_path: pathlib.Path
) -> None:
    rows = sets["drawn"].rows
    rows[5] = Picture("broken", dict(rows[5].labels), "train")
    samples = read_samples([_source()], PARAMS, tmp_path, 0)
    assert len(samples) == 39
    assert "broken" not in samples.keys
    for at in (6, 7):
        rows[at] = Picture("broken", dict(rows[at].labels), "train")
    with pytest.raises(ConfigError, match="source 'drawn': 3 of 40 pictures cannot be read"):
        read_samples([_source()], PARAMS, tmp_path, 0)


def test_values_that_are_only_reported_on_come_last(
    sets: dict[str, PictureSet], tmp_path: pathlib.Path
) -> None:
    rows = sets["drawn"].rows
    rows[1] = Picture("p1", {"type": "a new type", "product_id": "p1"}, "test")
    samples = read_samples([_source()], PARAMS, tmp_path, 0)
    assert samples.values["type"] == ("t0", "t1", "t2", "a new type")
    assert samples.learned["type"] == 3
    assert (samples.split == LEARN).any()


def test_a_training_that_is_cut_off_ends_as_if_it_were_not(
    sets: dict[str, PictureSet], tmp_path: pathlib.Path
) -> None:
    params = msgspec.structs.replace(
        PARAMS, weights="none", epochs=2, batch=8, dim=16, colour_dim=8, frozen=12
    )
    samples = read_samples([_source()], params, tmp_path, 0)
    targets = [Target(labels=("type",))]
    whole = fit(samples, targets, [], params, 5)
    path = tmp_path / "kept.pt"

    def stop(line: str) -> None:
        if line.startswith("epoch 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(samples, targets, [], params, 5, resume=path, progress=stop)
    told: list[str] = []
    again = fit(samples, targets, [], params, 5, resume=path, progress=told.append)
    assert told[0] == "going on after epoch 1"
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    # Nothing is left to learn: what the file holds is the answer.
    last = fit(samples, targets, [], params, 5, resume=path)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, last.model.state_dict()[name]), name
