"""Boxes from masks, and the classes that labels map to."""

import csv
import os
import pathlib

import numpy as np
import pytest

from contracts.visual import WEARABLE
from training.rehearsal.catalogue import TYPES
from training.visual.boxes import label_boxes, overlaps, thin_out
from training.visual.classes import ATELIER_TYPES, STREET_LABELS


def test_both_shoes_are_one_box_and_specks_are_none():
    mask = np.zeros((100, 100), np.uint8)
    mask[80:95, 20:40] = 39
    mask[82:96, 50:70] = 39
    mask[5:8, 90:93] = 39  # nine pixels of the same label far away
    mask[0:10, 0:10] = 11  # a label too small to count
    boxes, labels = label_boxes(mask, np.array([39, 11, 14]))
    assert boxes.tolist() == [[20, 80, 70, 96]]
    assert labels.tolist() == [39]


def test_overlap_of_two_halves():
    one, other = (
        np.array([[0, 0, 10, 10]], np.float32),
        np.array([[0, 5, 10, 15], [20, 20, 30, 30]], np.float32),
    )
    assert overlaps(one, other).tolist() == [[pytest.approx(1 / 3), 0.0]]


def test_only_boxes_of_the_same_class_thin_one_another_out():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 9], [30, 0, 40, 10]], np.float32)
    kept = thin_out(boxes, np.array([0.5, 0.9, 0.4, 0.3]), np.array([1, 1, 2, 1]), 0.6)
    assert kept.tolist() == [1, 2, 3]


def test_every_wearable_class_has_labels_and_types():
    assert set(STREET_LABELS.values()) == set(ATELIER_TYPES.values()) == set(WEARABLE)
    assert set(TYPES) - set(ATELIER_TYPES) == {"gloves", "watch", "necklace", "socks"}


def test_labels_are_those_of_street_looks():
    data = os.environ.get("CONTINUUM_DATA")
    if not data:
        pytest.skip("CONTINUUM_DATA is not set; street-looks is needed")
    with (pathlib.Path(data) / "street-looks" / "labels.csv").open(newline="") as file:
        known = {row["label"] for row in csv.DictReader(file)}
    assert set(STREET_LABELS) <= known
