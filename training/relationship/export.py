"""Intent, churn and value as ONNX files, and the proof that they say what the models say.

``intent.onnx``: features float32[M, F] to probability float32[M]. The folds' trees are one ensemble whose leaves are
divided by the number of folds, followed by the calibration. ``churn.onnx``: features float32[M, F] (NaN where missing)
to survival float32[M, K] at the model's edges. ``value.onnx``: the same features to float32[M, 3], probability to spend,
expected spend, median of the positive part. All take any number of rows.

Belongs here: export and parity. Does not belong here: the models.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper
from torch import nn

from training.graphs import IR_VERSION, OPSET, export_graph, save_graph
from training.relationship.intent import Intent

Floats = npt.NDArray[np.float64]

ML_OPSET = 3
BATCHES = (1, 2, 7, 64)
TOLERANCE = 1e-4


class ParityError(AssertionError):
    """ONNX Runtime and the model disagree; the message says by how much."""


def export_intent(model: Intent, path: pathlib.Path) -> None:
    """Write trees and calibration as one graph."""
    from onnxmltools import convert_lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType

    width = model.boosters[0].num_feature()
    nodes, sums = [], []
    for number, booster in enumerate(model.boosters):
        converted = convert_lightgbm(
            single_thresholds(booster),
            initial_types=[("features", FloatTensorType([None, width]))],
            target_opset=15,
            zipmap=False,
        )
        trees = next(node for node in converted.graph.node if node.op_type.startswith("TreeEnsemble"))
        nodes.append(_as_regressor(trees, f"fold_{number}"))
        sums.append(f"fold_{number}")
    line = model.slope, model.intercept
    nodes += [
        helper.make_node("Mean", sums, ["log_odds"]),
        helper.make_node("Mul", ["log_odds", "slope"], ["scaled"]),
        helper.make_node("Add", ["scaled", "intercept"], ["calibrated"]),
        helper.make_node("Sigmoid", ["calibrated"], ["column"]),
        helper.make_node("Reshape", ["column", "flat"], ["probability"]),
    ]
    constants = [
        helper.make_tensor(name, TensorProto.FLOAT, [1], [value])
        for name, value in zip(("slope", "intercept"), line, strict=True)
    ]
    graph = helper.make_graph(
        nodes, "intent",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["M", width])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["M"])],
        [*constants, helper.make_tensor("flat", TensorProto.INT64, [1], [-1])],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    made = helper.make_model(graph, opset_imports=opsets, producer_name="continuum", ir_version=IR_VERSION)
    onnx.checker.check_model(made)
    onnx.save(made, path)


def single_thresholds(booster: lgb.Booster) -> lgb.Booster:
    """The same trees with thresholds rounded down to float32.

    A float32 feature is at most a threshold exactly if it is at most the largest float32 below it. Converters round
    to the nearest one instead, which sends a feature just above the threshold to the wrong side.
    """
    lines = []
    for line in booster.model_to_string().split("\n"):
        if line.startswith("tree_sizes="):
            continue  # byte counts of the text, which are about to change; LightGBM parses without them
        if line.startswith("threshold="):
            exact = np.array(line.removeprefix("threshold=").split(), np.float64)
            near = exact.astype(np.float32)
            below = np.where(near > exact, np.nextafter(near, np.float32(-np.inf)), near)
            line = "threshold=" + " ".join(repr(float(value)) for value in below)
        lines.append(line)
    return lgb.Booster(model_str="\n".join(lines))


def _as_regressor(trees: onnx.NodeProto, output: str) -> onnx.NodeProto:
    """The sum of a binary classifier's leaves, as LightGBM's raw score."""
    node = helper.make_node("TreeEnsembleRegressor", ["features"], [output], name=output, domain="ai.onnx.ml")
    for attribute in trees.attribute:
        if attribute.name.startswith("nodes_"):
            node.attribute.append(attribute)
        elif attribute.name.startswith("class_") and attribute.name != "class_ids":
            renamed = onnx.AttributeProto()
            renamed.CopyFrom(attribute)
            renamed.name = attribute.name.replace("class_", "target_")
            node.attribute.append(renamed)
    leaves = next(len(attribute.floats) for attribute in node.attribute if attribute.name == "target_weights")
    node.attribute.append(helper.make_attribute("target_ids", [0] * leaves))
    node.attribute.append(helper.make_attribute("n_targets", 1))
    return node


def export_head(head: nn.Module, width: int, output: str, path: pathlib.Path) -> None:
    """Write a network with its head (`survival.SurvivalHead`, `ziln.ValueHead`) as one graph.

    Args:
        head: In evaluation mode.
        width: Number of features.
        output: Name of the output.
        path: The file.
    """
    made = export_graph(head, (torch.zeros(3, width),), ["features"], [output], [{0: torch.export.Dim("M")}])
    save_graph(made, path)


def check_parity(path: pathlib.Path, output: str, expected: Callable[[Floats], Floats], X: Floats) -> float:
    """Ask file and model about the same rows, in several batch sizes.

    Features are rounded to float32 first, since the graph reads float32: a tree's threshold between a number and
    its rounding is no disagreement.

    Args:
        path: The file.
        output: Its output.
        expected: The model.
        X: float64[M, F]; batches repeat rows where M is smaller.

    Returns:
        The largest difference.

    Raises:
        ParityError: It is above 1e-4 (relative where numbers are above 1), or a shape differs.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    rows = np.asarray(X, np.float32)
    largest = 0.0
    for size in (*BATCHES, len(rows)):
        batch = rows[np.arange(size) % len(rows)]
        wanted = expected(batch.astype(np.float64))
        found = session.run([output], {"features": batch})[0]
        if found.shape != wanted.shape:
            raise ParityError(f"{output} has shape {found.shape}; expected {wanted.shape}")
        largest = max(largest, float((np.abs(found - wanted) / np.maximum(1.0, np.abs(wanted))).max()))
    if not largest <= TOLERANCE:
        raise ParityError(f"{output} differs by {largest:.2e}; expected at most {TOLERANCE:.0e}")
    return largest
