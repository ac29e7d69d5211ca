"""What an ONNX file may contain before ONNX Runtime sees it.

Belongs here: the allow-list of operator domains, the refusal of anything that reads other files, and
the expected inputs and outputs. Does not belong here: running graphs (`serving/engine/sessions.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from serving.releases.verify import ReleaseError

ALLOWED_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
MAX_NESTING = 16

ENCODER_INPUTS = {
    "item": "tensor(int64)", "action": "tensor(int64)", "channel": "tensor(int64)", "age": "tensor(float)",
    "deny": "tensor(bool)", "k": "tensor(int64)",
}  # fmt: skip
ENCODER_OUTPUTS = {
    "scores": "tensor(float)", "top_scores": "tensor(float)", "top_items": "tensor(int64)",
    "next_action": "tensor(float)", "next_channel": "tensor(float)",
}  # fmt: skip
RANKER_INPUTS = {"features": "tensor(float)"}
RANKER_OUTPUTS = {"scores": "tensor(float)"}


def check_graph(name: str, content: bytes) -> None:
    """Refuse a graph with foreign operators or data outside the file.

    Args:
        name: Path, for messages.
        content: Bytes of the model.

    Raises:
        ReleaseError: Not an ONNX model, or it needs what a release may not need.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise ReleaseError(f"'{name}' is not an ONNX model") from error
    if not model.HasField("graph") or not model.graph.node:
        raise ReleaseError(f"'{name}' is not an ONNX model: it has no graph")
    local = {function.domain for function in model.functions}
    for opset in model.opset_import:
        if opset.domain not in ALLOWED_DOMAINS | local:
            raise ReleaseError(f"'{name}' needs operators of '{opset.domain}'; expected ONNX's own")
    graphs: list[Any] = [model.graph, *model.functions]
    for node in _nodes(graphs, name):
        if node.domain not in ALLOWED_DOMAINS | local:
            raise ReleaseError(f"'{name}' has an operator of '{node.domain}'; expected ONNX's own")
    for tensor in _tensors(graphs, name):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise ReleaseError(f"'{name}' keeps weights in another file; expected one self-contained file")


def check_signature(
    name: str,
    found: tuple[Mapping[str, str], Mapping[str, str]],
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
) -> None:
    """Compare a loaded graph's inputs and outputs with what the engine feeds and reads.

    Raises:
        ReleaseError: A name is missing, unknown, or of another type.
    """
    for kind, have, want in (("input", found[0], inputs), ("output", found[1], outputs)):
        for key, dtype in want.items():
            if have.get(key) != dtype:
                raise ReleaseError(f"'{name}' {kind} '{key}' is {have.get(key, 'missing')}; expected {dtype}")
    for extra in sorted(set(found[0]) - set(inputs)):
        raise ReleaseError(f"'{name}' has input '{extra}', which nothing feeds")


def _nodes(graphs: list[Any], name: str) -> Iterator[Any]:
    for graph in _walk(graphs, name):
        yield from graph.node


def _tensors(graphs: list[Any], name: str) -> Iterator[Any]:
    for graph in _walk(graphs, name):
        yield from getattr(graph, "initializer", ())
        for sparse in getattr(graph, "sparse_initializer", ()):
            yield from (sparse.values, sparse.indices)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors


def _walk(graphs: list[Any], name: str) -> Iterator[Any]:
    level, depth = graphs, 0
    while level:
        if depth > MAX_NESTING:
            raise ReleaseError(f"'{name}' nests graphs deeper than {MAX_NESTING} levels")
        yield from level
        below: list[Any] = []
        for graph in level:
            for node in graph.node:
                for attribute in node.attribute:
                    if attribute.HasField("g"):
                        below.append(attribute.g)
                    below.extend(attribute.graphs)
        level, depth = below, depth + 1
