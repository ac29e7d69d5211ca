"""Fill in the blank, compatibility, and the outfit network."""

import numpy as np
import pytest
import torch

from training.visual.outfit import export, items, judge, learn
from training.visual.outfit.looks import Looks, joined, padded
from training.visual.outfit.model import Outfit
from training.visual.outfit.params import OutfitParams
from training.visual.outfit_train import alike_answers, alike_fits


def tasteful(count, seed=0):
    """Looks of four slots whose items share four numbers of sixteen; the other twelve are larger and mean nothing."""
    rng = np.random.default_rng(seed)
    vectors, slots, numbers = [], [], []
    for look in range(count):
        style = rng.normal(size=4)
        for slot in rng.permutation(4)[: rng.integers(2, 5)]:
            item = np.concatenate([style + rng.normal(0, 0.2, 4), rng.normal(0, 1.6, 12)])
            vectors.append(item / np.linalg.norm(item))
            slots.append(slot + 1)
            numbers.append(look)
    return Looks(np.array(vectors, np.float32), np.array(slots), np.array(numbers))


def test_a_blank_hides_the_item_among_others_of_its_slot_from_other_looks():
    looks = tasteful(30)
    questions = judge.blanks(looks, 0, draws=2)
    assert len(questions.sets) == 2 * len(looks)
    for there, candidates in zip(questions.sets, questions.candidates, strict=True):
        assert len(set(looks.slots[candidates])) == 1
        assert len(set(looks.looks[candidates])) == 4
        assert set(looks.looks[there]) == {looks.looks[candidates[0]]}
        assert candidates[0] not in there
    again = judge.blanks(looks, 0, draws=2)
    assert np.array_equal(questions.candidates, again.candidates)


def test_a_slot_that_too_few_other_looks_show_is_not_asked_for():
    looks = tasteful(30)
    rare = Looks(looks.vectors, np.where(looks.looks < 2, 9, looks.slots), looks.looks)
    assert 9 not in rare.slots[judge.blanks(rare, 0).candidates]


def test_blanks_by_hand():
    looks = tasteful(10)
    questions = judge.blanks(looks, 0, draws=1)
    knows = np.tile(np.array([1.0, 0.5, 0.2, 0.1], np.float32), (len(questions.sets), 1))
    assert judge.fitb(lambda *_: knows, looks, questions) == 1.0
    assert judge.fitb(lambda *_: np.zeros_like(knows), looks, questions) == 0.0  # a tie is no answer
    half = knows.copy()
    half[: len(half) // 2, 1] = 2.0
    assert judge.fitb(lambda *_: half, looks, questions) == pytest.approx(0.5, abs=0.05)


def test_mixtures_keep_slots_and_share_no_look():
    looks = tasteful(30)
    mixed = judge.mixtures(looks, 0, negatives=3)
    assert mixed.real.sum() * 4 == len(mixed.real)
    real = None
    for group, worn in zip(mixed.sets, mixed.real, strict=True):
        if worn:
            real = group
            continue
        assert looks.slots[group].tolist() == looks.slots[real].tolist()
        assert looks.looks[real[0]] not in looks.looks[group]
        assert len(set(looks.looks[group])) == len(group)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [([3, 2, 1, 0], 1.0), ([0, 1, 2, 3], 0.0), ([1, 1, 1, 1], 0.5), ([2, 0, 1, 3], 0.25)],
)
def test_area_by_hand(scores, expected):
    # of four pairs (right, wrong), those in order; ties half
    assert judge.area(np.array(scores, float), np.array([True, True, False, False])) == expected


def test_joined_looks_do_not_mix():
    both = joined([tasteful(3), tasteful(4, 1)])
    assert both.count() == 7
    assert np.diff(both.looks).min() >= 0


def test_a_basket_is_one_look_with_one_item_per_slot(tmp_path):
    path = tmp_path / "baskets.csv"
    path.write_text("basket,product_id\nx,a\nx,b\nx,c\ny,a\nz,c\nz,unknown\nz,d\n")
    catalogue = items.Catalogue(
        {"a": 0, "b": 1, "c": 2, "d": 3}, np.eye(4, dtype=np.float32), np.array([1, 1, 2, 0])
    )
    looks = items.together(items.read_baskets(path), catalogue)
    assert looks.slots.tolist() == [1, 2]  # b shares a's slot, d has none, y and z are single items
    assert looks.vectors.argmax(1).tolist() == [0, 2]


@pytest.fixture(scope="module")
def learned():
    params = OutfitParams(members=2, dim=8, width=8, epochs=8, negatives=8, dropout=0.0, learning_rate=0.02)
    return learn.learn(tasteful(300), tasteful(30, 1), 4, params, 0)


def test_taste_is_learned_where_likeness_finds_little(learned):
    looks = tasteful(80, 2)
    questions, mixed = judge.blanks(looks, 0, 2), judge.mixtures(looks, 0, 4)
    assert judge.fitb(alike_answers, looks, questions) < 0.5
    assert judge.fitb(learn.answers(learned.network), looks, questions) > 0.7
    assert judge.auc(alike_fits, looks, mixed) < 0.75
    assert judge.auc(learn.fits(learned.network), looks, mixed) > 0.85


def test_padding_and_order_change_nothing(learned):
    network, looks = learned.network, tasteful(5, 3)
    vectors, types = (torch.from_numpy(array) for array in padded(looks, looks.members()))
    target = torch.ones(len(vectors), dtype=torch.long)
    with torch.inference_mode():
        wanted = network.query(vectors, types, target), network.compatibility(vectors, types)
        longer = torch.cat([vectors, torch.randn(len(vectors), 2, 16)], 1).flip(1)
        kinds = torch.cat([types, torch.zeros(len(types), 2, dtype=torch.long)], 1).flip(1)
        given = network.query(longer, kinds, target), network.compatibility(longer, kinds)
    for one, other in zip(given, wanted, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_compatibility_is_the_mean_fit_of_each_item_to_the_rest(learned):
    network, looks = learned.network, tasteful(5, 3)
    group = looks.members()[0]
    vectors, types = (torch.from_numpy(array) for array in padded(looks, [group]))
    with torch.inference_mode():
        fits = []
        for place in range(len(group)):
            rest = [other for other in range(len(group)) if other != place]
            query = network.query(vectors[:, rest], types[:, rest], types[:, place])
            fits.append((query @ network.project(vectors[0, place], types[0, place])).item())
        assert network.compatibility(vectors, types).item() == pytest.approx(np.mean(fits), abs=1e-5)
        assert network.compatibility(vectors[:, :1], types[:, :1]).item() == 0.0


def test_both_graphs_say_what_the_network_says(learned, tmp_path):
    export.export(learned.network, tmp_path / "sets.onnx", tmp_path / "items.onnx")
    assert export.check_parity(learned.network, tmp_path / "sets.onnx", tmp_path / "items.onnx", 4) < 1e-4
    other = Outfit(2, 16, 4, 8, 8, 2, 2, 0.0).eval()
    with pytest.raises(export.ParityError, match="differs from the network"):
        export.check_parity(other, tmp_path / "sets.onnx", tmp_path / "items.onnx", 4)
