"""The detector's parts: views, targets, losses, trunk, peaks."""

import math

import numpy as np
import pytest
import torch

from training.config import Bundle, ConfigError, write_bundle
from training.visual.classes import CLASSES
from training.visual.detector import augment, loss
from training.visual.detector.edges import ACROSS, Edges, sample
from training.visual.detector.network import FIT_SHARE, Network, pick
from training.visual.detector.scenes import Scene, draw_weights, ground
from training.visual.detector.trunk import Levels, Plain, open_trunk
from training.visual.embedder_model import Embedder
from training.visual.trunk import Lite, folded, told_trunk

RED = (230, 20, 20)


def scene(boxes, classes=None, kind="look", size=(120, 90), person=None):
    pixels = np.full((*size, 3), 90, np.uint8)
    for x1, y1, x2, y2 in boxes:
        pixels[y1:y2, x1:x2] = RED
    kinds = np.zeros(len(boxes), np.int64) if classes is None else np.array(classes)
    return Scene("one", kind, pixels, np.array(boxes, np.float32).reshape(-1, 4), kinds, 1.0, person)


@pytest.mark.parametrize("seed", range(40))
def test_boxes_stay_on_what_they_box(seed, monkeypatch):
    monkeypatch.setattr(augment, "recolour", lambda pixels, rng: pixels)
    person = np.zeros((120, 90), bool)
    person[20:90, 10:60] = True
    original = scene([(20, 30, 50, 80)], kind="photo", person=person)
    pixels, boxes, classes = augment.view(original, [original], 128, 96, 128, np.random.default_rng(seed))
    assert pixels.shape == (128, 96, 3)
    red = (pixels[..., 0] > 180) & (pixels[..., 1] < 60)
    if not len(boxes):
        assert red.sum() < 0.6 * 30 * 50 * 4  # cut off, or hardly anything of it left
        return
    rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
    seen = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    assert np.abs(boxes[0] - seen).max() <= 2.5
    assert classes.tolist() == [0]


def test_a_mosaic_keeps_boxes_of_all_four():
    scenes = [scene([(10, 10, 60, 100)], [kind]) for kind in range(4)]
    pixels, boxes, classes = augment.mosaic(scenes, 128, 128, 128, np.random.default_rng(1))
    assert pixels.shape == (128, 128, 3)
    assert sorted(classes.tolist()) == [0, 1, 2, 3]
    assert (boxes >= 0).all()
    assert (boxes <= 128).all()


def test_what_is_cut_off_is_dropped():
    boxes = np.array([[0, 0, 10, 10], [-8, 0, 2, 10]], np.float32)
    kept, classes = augment.cropped(boxes, np.array([3, 4]), (0.0, 0.0, 20.0, 20.0))
    assert kept.tolist() == [[0, 0, 10, 10]]
    assert classes.tolist() == [3]


def test_scenes_with_rare_classes_are_drawn_more_often():
    many, few = scene([(0, 0, 9, 9)], [0]), scene([(0, 0, 9, 9)], [1])
    weights = draw_weights([many] * 99 + [few])
    assert weights.sum() == pytest.approx(1)
    assert weights[-1] / weights[0] == pytest.approx(math.sqrt(12))


def test_ground_is_the_colour_of_the_edge():
    assert ground(scene([(20, 30, 50, 80)]).pixels).tolist() == [90, 90, 90]


def test_targets_peak_at_centres_and_each_object_weighs_by_its_size():
    boxes = [np.array([[8, 8, 72, 104], [40, 40, 56, 56]], np.float32), np.zeros((0, 4), np.float32)]
    wanted = loss.targets(boxes, [np.array([2, 5]), np.zeros(0, np.int64)], 14, 128, 96)
    assert wanted.heat.shape == (2, 14, 16, 12)
    assert (wanted.heat == 1).sum() == 2
    assert wanted.heat[0, 2, 7, 5] == 1
    assert wanted.heat[1].max() == 0
    assert wanted.objects == 2
    total = [wanted.weight[wanted.cell[1] == kind].sum().item() for kind in (2, 5)]
    assert total == pytest.approx([math.log1p(64 * 96), math.log1p(256)], rel=1e-5)


def test_right_answers_cost_nothing_and_wrong_ones_something():
    box = np.array([[16, 24, 80, 88]], np.float32)
    wanted = loss.targets([box], [np.array([1])], 3, 128, 128)
    logits = torch.where(wanted.heat == 1, 12.0, -12.0)
    y, x = torch.meshgrid(torch.arange(16) * 8 + 4.0, torch.arange(16) * 8 + 4.0, indexing="ij")
    reach = torch.stack([x - 16, y - 24, 80 - x, 88 - y])[None, None].expand(1, 3, 4, 16, 16).clamp(min=0.5)
    features = torch.randn(1, 8, 16, 16)
    edges = Edges(8, 3, 8)
    with torch.no_grad():
        edges.fits.bias.fill_(30.0)
    centres, sides = loss.losses(logits, reach, features, edges, wanted)
    assert centres < 1e-3
    assert sides < 1e-6
    worse = loss.losses(-logits, reach * 2, features, edges, wanted)
    assert worse[0] > 100
    assert worse[1] > 0.4
    nothing = loss.targets([np.zeros((0, 4), np.float32)], [np.zeros(0, np.int64)], 3, 128, 128)
    assert loss.losses(logits, reach, features, edges, nothing)[1] == 0


def test_features_between_cells_are_those_of_the_stock_library():
    torch.manual_seed(0)
    features, picture = torch.randn(3, 4, 6, 9), torch.tensor([2, 0, 2, 1])
    spots = torch.rand(4, 50, 2) * torch.tensor([11.0, 8.0]) - 1
    grid = spots / torch.tensor([9.0, 6.0]) * 2 - 1
    stock = torch.nn.functional.grid_sample(
        features[picture], grid[:, :, None], padding_mode="border", align_corners=False
    )
    assert torch.allclose(sample(features, picture, spots), stock[..., 0].transpose(1, 2), atol=1e-5)


def test_sides_move_to_where_they_are_seen():
    """Bright rectangles, boxes that are off by up to a tenth: after a while of learning most of it is mended."""
    torch.manual_seed(0)
    edges = Edges(3, 1, 8)
    optimizer = torch.optim.Adam(edges.parameters(), 1e-2)
    rows = torch.arange(32)
    for step in range(60):
        low, extent = torch.rand(16, 2) * 60 + 40, torch.rand(16, 2) * 60 + 80
        truth = torch.cat([low, low + extent], 1)
        off = truth + (torch.rand(16, 4) - 0.5) * 0.2 * extent.repeat(1, 2)
        cells = (rows[None] + 0.5) * 8
        inside = [(cells > truth[:, a : a + 1]) & (cells < truth[:, a + 2 : a + 3]) for a in (0, 1)]
        seen = (inside[1][:, :, None] & inside[0][:, None, :]).float()[:, None]
        features = torch.cat([seen, 1 - seen, torch.ones_like(seen)], 1)
        moved, fits = edges(features, torch.arange(16), torch.zeros(16, dtype=torch.int64), off)
        if step == 0:
            assert torch.equal(moved, off)
        fit = torch.nn.functional.binary_cross_entropy_with_logits(fits, loss.iou(moved.detach(), truth))
        cost = (1 - loss.giou(moved, truth)).mean() + fit
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()
    before, after = loss.iou(off, truth).mean(), loss.iou(moved, truth).mean()
    assert 1 - after < 0.6 * (1 - before)
    assert (moved - off).abs().max() <= ACROSS[-1] * extent.max()


def test_generalised_overlap_by_hand():
    one = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10]])
    other = torch.tensor([[0.0, 5, 10, 15], [20, 0, 30, 10]])
    # half shared: 50 of 150, hull full; apart: 0 of 200, hull 300
    assert loss.giou(one, other).tolist() == pytest.approx([1 / 3, -1 / 3])


def test_peaks_give_the_boxes_around_them():
    logits = torch.full((2, 3, 8, 8), -9.0)
    logits[0, 1, 2, 3] = 2.0
    logits[0, 1, 2, 4] = 1.9  # beside a higher one: no peak
    logits[1, 2, 7, 0] = 1.0
    reach = torch.full((2, 3, 4, 8, 8), 6.0)
    reach[0, 1, :, 2, 3] = torch.tensor([4.0, 12.0, 20.0, 8.0])
    edges = Edges(8, 3, 8)
    torch.nn.init.zeros_(edges.fits.weight)
    with torch.no_grad():
        edges.fits.bias.fill_(1.0)
    boxes, scores, classes = pick(logits, reach, torch.randn(2, 8, 8, 8), edges, 4, 64)
    assert classes[:, 0].tolist() == [1, 2]
    fit, height = torch.tensor([1.0, 2.0]).sigmoid().tolist()
    assert scores[0, 0].item() == pytest.approx(fit**FIT_SHARE * height ** (1 - FIT_SHARE))
    assert (scores.diff(dim=1) <= 0).all()
    # the cell's middle is (28, 20)
    assert (boxes[0, 0] * 64).tolist() == pytest.approx([24, 8, 48, 28])
    assert (boxes[1, 0] * 64).tolist() == pytest.approx([0, 54, 10, 64])


@pytest.mark.parametrize(("variant", "kept"), [("lite0", 6), ("lite2", 8)])
def test_the_trunk_gives_three_levels_and_keeps_its_first_parts(variant, kept):
    trunk = Levels(variant, "none")
    assert [level.shape[1:] for level in trunk(torch.randn(1, 3, 64, 64))] == [
        (channels, side, side) for channels, side in zip(trunk.channels, (8, 4, 2), strict=True)
    ]
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in trunk.modules())
    assert not any(weight.requires_grad for weight in trunk.parts[:kept].parameters())
    assert all(weight.requires_grad for weight in trunk.parts[kept:].parameters())


def test_the_trunk_begins_with_that_of_an_embedder(tmp_path):
    with pytest.raises(
        ConfigError, match=r"params\.weights.*expected 'imagenet', 'none' or an embedder's bundle"
    ):
        Levels("lite0", str(tmp_path / "nothing"))
    torch.manual_seed(0)
    model = Embedder(Lite(), 32, 8, {"type": 3})
    torch.nn.init.normal_(model.trunk.parts[8].project.norm.bias)
    write_bundle(
        tmp_path, Bundle(family="embedder", run_id="r", model_uri="m", metrics={}, config={}, files={})
    )
    with pytest.raises(ConfigError, match=r"holds no weights\.pt"):
        Levels("lite0", str(tmp_path))
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    found = open_trunk("lite0", str(tmp_path))
    wanted = folded(model.trunk)
    assert isinstance(found, Levels)
    assert told_trunk("lite0", str(tmp_path)) == "EfficientNet-Lite0, weights of an earlier embedder"
    assert told_trunk("plain", "imagenet") == "plain"
    pixels = torch.randn(1, 3, 64, 64)
    assert torch.equal(found(pixels)[2], wanted.run(pixels, 0, 17))
    torch.save(
        {name: value for name, value in model.state_dict().items() if "parts.3" not in name},
        tmp_path / "weights.pt",
    )
    with pytest.raises(ConfigError, match="whose trunk is another"):
        Levels("lite0", str(tmp_path))


@pytest.mark.parametrize("name", ["vgg", ""])
def test_an_unknown_trunk_is_refused(name):
    with pytest.raises(ConfigError, match="trunk"):
        open_trunk(name)


def test_coordinates_do_not_depend_on_the_canvas():
    torch.manual_seed(0)
    network = Network(Plain(), len(CLASSES), 128, 16).eval()
    square = network._places(torch.zeros(1, 1, 16, 16), 8)
    narrow = network._places(torch.zeros(1, 1, 16, 12), 8)
    assert torch.equal(square[..., :12], narrow)
    assert square[0, :, 0, 0].tolist() == [-1 + 1 / 16, -1 + 1 / 16]
