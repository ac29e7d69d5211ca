"""From a torch module to an ONNX graph: the one way in which every family exports.

Belongs here: the export itself. Does not belong here: what a family adds to its graph, parity (each family's ``export.py``).
"""

from __future__ import annotations

import logging
import pathlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import torch
from torch import Tensor, nn

OPSET, IR_VERSION = 20, 10


def export_graph(
    module: nn.Module,
    example: tuple[Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic: Sequence[Mapping[int, Any]],
) -> onnx.ModelProto:
    """Export a module in evaluation mode; what it warns of operators that it does not use is not shown.

    Args:
        module: On CPU.
        example: Inputs of two rows or more, so that no size is taken for a constant.
        inputs: Names.
        outputs: Names.
        dynamic: Of each input, its dimensions of any size.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(), example, dynamo=True, verbose=False, opset_version=OPSET, external_data=False,
            input_names=list(inputs), output_names=list(outputs), dynamic_shapes=tuple(dict(d) for d in dynamic),
        )  # fmt: skip
    if program is None:
        raise RuntimeError("torch exported nothing; expected an ONNX program")
    made = program.model_proto
    made.ir_version = IR_VERSION
    return made


def save_graph(graph: onnx.ModelProto, path: pathlib.Path) -> None:
    """Check a graph fully and write it as one file."""
    onnx.checker.check_model(graph, full_check=True)
    onnx.save_model(graph, path)
