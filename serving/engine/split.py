"""The encoder's graph cut in two: the network, and the item table that it reads and scores.

A large table inside a graph is held several times over (as read, transposed, packed) and scored whole. Cut out, the
network reads the vectors of a history through an input, and the table is searched by `bounded.py`.

Belongs here: the surgery on the graph. Does not belong here: searching, running.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.engine.sessions import GraphError

TABLE, BIAS, VECTORS = "table", "bias", "history_vectors"
PARTS = ("state", "pointer", "remembered_items", "remembered", "avoid")
"""Outputs that scores are made of; a graph without the first cannot be cut."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Halves:
    """A cut encoder.

    Attributes:
        network: Bytes of the graph from ``history_vectors`` float32[B, L, d] of the history's items (beside what else it
            reads) to every output that does not score the catalogue.
        table: float32[V + 1, d].
        bias: float32[V + 1].
        outputs: Names of the network's outputs.
        inputs_of_whole: Type by input name of the uncut graph.
        outputs_of_whole: Type by output name of the uncut graph.
    """

    network: bytes
    table: NDArray[np.float32]
    bias: NDArray[np.float32]
    outputs: tuple[str, ...]
    inputs_of_whole: dict[str, str]
    outputs_of_whole: dict[str, str]


def split(content: bytes) -> Halves | None:
    """Cut an encoder, or None where it does not name the parts of its scores.

    Args:
        content: Bytes of the ONNX file.

    Raises:
        GraphError: It names them, but its table cannot be cut out.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load_model_from_string(content)
    if PARTS[0] not in {output.name for output in graph.graph.output}:
        return None
    constants = {tensor.name: tensor for tensor in graph.graph.initializer}
    if TABLE not in constants or BIAS not in constants:
        raise GraphError(f"the encoder has output '{PARTS[0]}' but no constants '{TABLE}' and '{BIAS}'")
    table = np.array(numpy_helper.to_array(constants[TABLE]), np.float32)
    bias = np.array(numpy_helper.to_array(constants[BIAS]), np.float32)
    if table.ndim != 2 or bias.shape != table.shape[:1]:
        raise GraphError(
            f"the encoder's '{TABLE}' is {list(table.shape)} and its '{BIAS}' {list(bias.shape)}"
        )
    whole = (_types(graph.graph.input), _types(graph.graph.output))
    network, outputs = _network(graph, table.shape[1])
    return Halves(network, table, bias, outputs, *whole)


def _network(model: Any, width: int) -> tuple[bytes, tuple[str, ...]]:
    import onnx
    from onnx import TensorProto, helper

    graph = model.graph
    nodes = []
    for node in graph.node:
        if node.op_type in ("Gather", "GatherND") and node.input[0] == TABLE:
            nodes.append(helper.make_node("Identity", [VECTORS], list(node.output)))
        else:
            nodes.append(node)
    made_by = {name: node for node in nodes for name in node.output}
    outputs, kept = [], set()
    for output in graph.output:
        needed, reached = _ancestors(output.name, made_by)
        if not reached & {TABLE, BIAS, "deny", "k"}:
            outputs.append(output)
            kept |= needed
    if PARTS[0] not in {output.name for output in outputs}:
        raise GraphError(
            f"the encoder's '{PARTS[0]}' reads the item table otherwise than by looking up a history"
        )
    nodes = [node for node in nodes if kept & set(node.output)]
    read = {name for node in nodes for name in node.input}
    vectors = helper.make_tensor_value_info(VECTORS, TensorProto.FLOAT, ["batch", "length", width])
    cut = helper.make_graph(
        nodes,
        graph.name,
        [*(value for value in graph.input if value.name in read), vectors],
        outputs,
        [tensor for tensor in graph.initializer if tensor.name in read],
    )
    made = helper.make_model(
        cut, opset_imports=model.opset_import, ir_version=model.ir_version, functions=model.functions
    )
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString()), tuple(output.name for output in outputs)


def _ancestors(name: str, made_by: dict[str, Any]) -> tuple[set[str], set[str]]:
    """Values that a value is computed from, itself included, and those of them that no node makes."""
    seen, sources, waiting = set(), set(), [name]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in made_by:
            waiting.extend(value for value in made_by[name].input if value)
        else:
            sources.add(name)
    return seen, sources


def _types(values: Any) -> dict[str, str]:
    from onnx import TensorProto

    names = {TensorProto.FLOAT: "float", TensorProto.INT64: "int64", TensorProto.BOOL: "bool"}
    return {value.name: f"tensor({names.get(value.type.tensor_type.elem_type, 'other')})" for value in values}
