"""The trees as one ONNX graph, and the proof that it ranks as LightGBM does.

The graph takes ``features`` float32[M, F] and gives ``scores`` float32[M].

Belongs here: conversion and parity. Does not belong here: thresholds (`model.single_precision`).
"""

from __future__ import annotations

import dataclasses
import pathlib

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from training.ranker.model import predict

OPSET = 18
ML_OPSET = 3
IR_VERSION = 10
BATCHES = (1, 2, 7, 500)
SAMPLES = 20
"""Batches compared of each size."""

TOP = 20
TOLERANCE = 1e-4
"""Largest difference of two scores that still counts as a tie: leaf values are added in float32."""

Singles = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Parity:
    """What a comparison of the graph with the trees found.

    Attributes:
        batches: Batches that were compared.
        mismatches: Batches whose best 20 differ by more than ties; a file with any is never kept.
        largest: Largest absolute difference of two scores.
    """

    batches: int
    mismatches: int
    largest: float


class ParityError(AssertionError):
    """ONNX Runtime and LightGBM disagree; the message says at which batch."""


def export_onnx(booster: lgb.Booster, path: pathlib.Path) -> None:
    """Write the trees as an ONNX file."""
    from onnxmltools import convert_lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType

    width = booster.num_feature()
    converted = convert_lightgbm(
        booster, initial_types=[("features", FloatTensorType([None, width]))], target_opset=15, zipmap=False
    )
    trees = next(node for node in converted.graph.node if node.op_type == "TreeEnsembleRegressor")
    forest = helper.make_node(
        "TreeEnsembleRegressor", ["features"], ["column"], name="trees", domain="ai.onnx.ml"
    )
    forest.attribute.extend(trees.attribute)
    graph = helper.make_graph(
        [forest, helper.make_node("Reshape", ["column", "flat"], ["scores"], name="flatten")],
        "ranker",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["M", width])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["M"])],
        [helper.make_tensor("flat", TensorProto.INT64, [1], [-1])],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, producer_name="continuum", ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def check_parity(booster: lgb.Booster, path: pathlib.Path, features: Singles) -> Parity:
    """Score the same rows with both, in several batch sizes.

    Args:
        booster: The trees.
        path: Their ONNX file.
        features: float32[M, F], at least one row; batches repeat rows where M is smaller.

    Raises:
        ParityError: Scores or the order of the best 20 differ beyond ties.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    largest, compared = 0.0, 0
    for batch in BATCHES:
        for rows in _batches(len(features), batch):
            expected = predict(booster, features[rows])
            found = session.run(["scores"], {"features": features[rows]})[0]
            if found.shape != (batch,):
                raise ParityError(f"batch {batch}: scores have shape {found.shape}; expected ({batch},)")
            gap = float(np.abs(found - expected).max())
            order = np.argsort(-found, kind="stable")[:TOP]
            ideal = np.sort(expected)[::-1][:TOP]
            if gap > TOLERANCE or bool(np.any(np.abs(expected[order] - ideal) > TOLERANCE)):
                raise ParityError(
                    f"batch {batch}: scores differ by {gap:.2e}; expected at most {TOLERANCE:.0e}"
                )
            largest, compared = max(largest, gap), compared + 1
    return Parity(compared, 0, largest)


def _batches(size: int, batch: int) -> list[npt.NDArray[np.int64]]:
    """`SAMPLES` runs of consecutive rows, spread over all rows."""
    starts = np.linspace(0, max(0, size - batch), SAMPLES).astype(np.int64)
    return [np.arange(start, start + batch) % size for start in starts]
