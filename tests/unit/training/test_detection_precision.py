"""Average precision against hand-worked cases and against pycocotools."""

import contextlib
import io

import numpy as np
import pytest

from training.evaluation.detection import Boxes, best_threshold, judge

SQUARE = np.array([[0, 0, 10, 10]], float)


def boxes(rows, classes=None, scores=None):
    rows = np.array(rows, float).reshape(-1, 4)
    kinds = np.zeros(len(rows), int) if classes is None else np.array(classes)
    return Boxes(rows, kinds, np.ones(len(rows)) if scores is None else np.array(scores, float))


def test_the_same_box_is_perfect():
    found = judge([boxes(SQUARE)], [boxes(SQUARE)], 2)
    assert found.ap == found.ap50 == found.ar == 1.0
    assert np.isnan(found.precision[1]).all()


def test_half_of_the_truth_found_reads_precision_at_51_of_101_recalls():
    found = judge([boxes(SQUARE), boxes([])], [boxes(SQUARE), boxes(SQUARE)], 1)
    assert found.ap50 == pytest.approx(51 / 101)
    assert found.ar == 0.5


def test_overlap_decides_which_thresholds_hold():
    # 72 of 100 pixels shared, union 100: overlap 0.72 reaches 0.5, 0.55, 0.6, 0.65 and 0.7
    found = judge([boxes([[0, 0, 10, 7.2]])], [boxes(SQUARE)], 1)
    assert found.ap == pytest.approx(0.5)
    assert found.precision[0].tolist() == [1.0] * 5 + [0.0] * 5


def test_a_wrong_box_above_the_right_one_halves_precision_below_it_costs_nothing():
    wrong = [20, 20, 30, 30]
    above = judge([boxes([wrong, SQUARE[0]], scores=[0.9, 0.8])], [boxes(SQUARE)], 1)
    below = judge([boxes([wrong, SQUARE[0]], scores=[0.7, 0.8])], [boxes(SQUARE)], 1)
    assert (above.ap50, below.ap50) == (0.5, 1.0)


def test_a_second_box_on_the_same_truth_is_wrong():
    twice = boxes([SQUARE[0], SQUARE[0], [20, 0, 30, 10]], scores=[0.9, 0.8, 0.7])
    found = judge([twice], [boxes([SQUARE[0], [20, 0, 30, 10]])], 1)
    # right, wrong, right: precision 1 up to recall 0.5 (51 points), 2/3 up to recall 1 (50 points)
    assert found.ap50 == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_classes_do_not_mix():
    found = judge([boxes(SQUARE, [1])], [boxes(SQUARE, [0])], 2)
    assert found.ap50 == 0.0
    assert np.isnan(found.precision[1, 0])


def test_answers_for_another_number_of_pictures_are_refused():
    with pytest.raises(ValueError, match="answers for 1 pictures, truth for 2"):
        judge([boxes([])], [boxes([]), boxes([])], 1)


def test_the_best_threshold_keeps_what_is_right():
    given = boxes([SQUARE[0], [20, 20, 30, 30]], scores=[0.6, 0.4])
    assert best_threshold([given], [boxes(SQUARE)]) == (0.6, 1.0)
    assert best_threshold([boxes([])], [boxes(SQUARE)]) == (0.5, 0.0)


@pytest.mark.parametrize("seed", range(3))
def test_equal_to_pycocotools(seed):
    coco_module = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    from pycocotools.cocoeval import COCOeval

    rng = np.random.default_rng(seed)
    truths, answers = [], []
    for _ in range(25):
        corner = rng.uniform(0, 80, (rng.integers(0, 6), 2))
        true = np.hstack([corner, corner + rng.uniform(5, 40, corner.shape)])
        kinds = rng.integers(0, 3, len(true))
        near = true + rng.normal(0, 3, true.shape)
        near = np.hstack([np.minimum(near[:, :2], near[:, 2:] - 1), near[:, 2:]])
        other = rng.uniform(0, 60, (rng.integers(0, 5), 2))
        found = np.vstack([near, np.hstack([other, other + rng.uniform(5, 40, other.shape)])])
        guessed = np.concatenate(
            [np.where(rng.random(len(kinds)) < 0.8, kinds, 2), rng.integers(0, 3, len(other))]
        )
        truths.append(boxes(true, kinds))
        answers.append(boxes(found, guessed, rng.random(len(found)).round(2)))
    found = judge(answers, truths, 3)

    def wide(box):
        return [float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])]

    data = {
        "images": [{"id": n} for n in range(25)], "categories": [{"id": n} for n in range(3)],
        "annotations": [
            {"image_id": n, "category_id": int(kind), "bbox": wide(box), "area": float(np.prod(wide(box)[2:])),
             "iscrowd": 0}
            for n, truth in enumerate(truths) for box, kind in zip(truth.boxes, truth.classes, strict=True)
        ],
    }  # fmt: skip
    for number, row in enumerate(data["annotations"], 1):
        row["id"] = number
    with contextlib.redirect_stdout(io.StringIO()):
        coco = coco_module.COCO()
        coco.dataset = data
        coco.createIndex()
        results = coco.loadRes([
            {"image_id": n, "category_id": int(kind), "bbox": wide(box), "score": float(score)}
            for n, a in enumerate(answers) for box, kind, score in zip(a.boxes, a.classes, a.scores, strict=True)
        ])  # fmt: skip
        oracle = COCOeval(coco, results, "bbox")
        oracle.evaluate()
        oracle.accumulate()
        oracle.summarize()
    assert found.ap == pytest.approx(oracle.stats[0], abs=1e-9)
    assert found.ap50 == pytest.approx(oracle.stats[1], abs=1e-9)
    assert found.ar == pytest.approx(oracle.stats[8], abs=1e-9)
