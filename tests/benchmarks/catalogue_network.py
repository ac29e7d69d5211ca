"""The product's encoder as ONNX for a catalogue of any size: exported once, its item table exchanged.

Belongs here: export and exchange of the table. Does not belong here: measuring (`catalogue_latency.py`).
"""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.engine.split import BIAS, TABLE

SMALL = 3000


def export_network(path: pathlib.Path) -> dict[str, Any]:
    """Write the encoder of the default configuration with random weights; gives its shape."""
    import torch

    from training.config import EncoderParams
    from training.continuum.data import Vocabulary, encode_content
    from training.continuum.export import export_onnx
    from training.continuum.model import Encoder

    params = EncoderParams(content=())
    ids = np.array(["", *(f"p{place:04d}" for place in range(SMALL))])
    vocabulary = Vocabulary(ids, np.ones(SMALL + 1), encode_content({}, SMALL), np.zeros(SMALL + 1, bool))
    torch.manual_seed(0)
    export_onnx(Encoder(vocabulary, params).eval(), path)
    return {"dim": params.dim, "blocks": params.blocks, "heads": params.heads, "pointer": params.pointer}


def resized(content: bytes, table: npt.NDArray[np.float32], bias: npt.NDArray[np.float32]) -> bytes:
    """The same graph over another item table."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load_model_from_string(content)
    graph, size = model.graph, SMALL + 1
    changed = {TABLE: table, BIAS: bias}
    for tensor in graph.initializer:
        if tensor.name in changed:
            tensor.CopyFrom(numpy_helper.from_array(changed[tensor.name], tensor.name))
        elif list(tensor.dims) == [size]:  # The column numbers, or which of them is the first: it is masked.
            columns = np.arange(len(bias))
            first = tensor.data_type == onnx.TensorProto.BOOL
            tensor.CopyFrom(numpy_helper.from_array(columns == 0 if first else columns, tensor.name))
    for value in (*graph.input, *graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_value == size:
                dim.dim_value = len(bias)
    del graph.value_info[:]
    return bytes(model.SerializeToString())
