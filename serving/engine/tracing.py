"""The ranker's look-ups and request-time arithmetic as an ONNX graph, traced from its one definition.

`contracts.features.ranker_features` is plain array arithmetic over whatever array module it is given.
Given the symbols of this module it writes down an ONNX graph of itself, so the server runs the very
definition that training ran in numpy, without some two hundred small numpy calls per answer.

Belongs here: symbols, the graph of `ranker_features`, joining it with the ranker. Does not belong here:
where its inputs come from (`assemble.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from contracts.features import (
    CUSTOMER_CATEGORY_COLUMNS,
    CUSTOMER_COLUMNS,
    CUSTOMER_PRODUCT_COLUMNS,
    CUSTOMER_STORE_PRODUCT_COLUMNS,
    CUSTOMER_TYPE_COLUMNS,
    PRODUCT_COLUMNS,
    STORE_PRODUCT_COLUMNS,
    ranker_features,
)
from serving.engine.items import MAILER

OPSET = 18
IR_VERSION = 8
BLOCKS: dict[str, tuple[str, ...]] = {
    "cp": CUSTOMER_PRODUCT_COLUMNS,
    "ct": CUSTOMER_TYPE_COLUMNS,
    "cc": CUSTOMER_CATEGORY_COLUMNS,
    "p": PRODUCT_COLUMNS,
    "s": STORE_PRODUCT_COLUMNS,
    "cs": CUSTOMER_STORE_PRODUCT_COLUMNS,
}
"""Tables that rows are looked up in, float64[columns, rows]."""

INPUTS: dict[str, tuple[str, tuple[int | str, ...]]] = {
    "chosen": ("INT32", ("M",)),  # the candidates
    "now": ("DOUBLE", (1, 1)),
    "c": ("DOUBLE", (len(CUSTOMER_COLUMNS), 1)),
    **{block: ("DOUBLE", (len(columns), f"{block}_rows")) for block, columns in BLOCKS.items()},
    "cp_place": ("INT32", ("M",)),  # row of each candidate, in cp and in cs
    "s_place": ("INT32", ("N",)),  # row by item
    "ct_place": ("INT32", ("types",)),  # row by type; the last is for products without one
    "cc_place": ("INT32", ("categories",)),
    "type_id": ("INT32", ("N",)),  # by item
    "category_id": ("INT32", ("N",)),
    "encoder_id": ("INT64", ("N",)),
    "flags": ("UINT8", ("N",)),
    "together": ("FLOAT", ("M",)),
    "encoder_scores": ("FLOAT", ("V",)),  # by encoder id
}
"""Inputs of the graph: ONNX type and shape."""


class Graph:
    """Nodes and constants, written down as they come."""

    def __init__(self) -> None:
        from onnx import helper, numpy_helper

        self._make = helper.make_node
        self._tensor = numpy_helper.from_array
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def add(self, operator: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> list[Symbol]:
        """A node; numbers among its inputs become constants."""
        names = [f"v{len(self.nodes)}_{place}" for place in range(outputs)]
        wired = [value.name if isinstance(value, Symbol) else self.constant(value) for value in inputs]
        self.nodes.append(self._make(operator, wired, names, **attributes))
        return [Symbol(self, name) for name in names]

    def constant(self, value: Any, dtype: type[np.generic] = np.float64) -> str:
        """Name of a constant."""
        array = np.asarray(value, dtype)
        name = f"k_{array.dtype.name}_{array.shape}_{array.tolist()}"
        self.constants.setdefault(name, self._tensor(array, name))
        return name


class Symbol:
    """A value of the graph: float64[1, M], float64[1, 1] or a truth value of that shape."""

    def __init__(self, graph: Graph, name: str) -> None:
        self.graph = graph
        self.name = name

    def _(self, operator: str, *inputs: Any) -> Symbol:
        return self.graph.add(operator, *inputs)[0]

    def __add__(self, other: Any) -> Symbol:
        return self._("Add", self, other)

    def __radd__(self, other: Any) -> Symbol:
        return self._("Add", other, self)

    def __sub__(self, other: Any) -> Symbol:
        return self._("Sub", self, other)

    def __rsub__(self, other: Any) -> Symbol:
        return self._("Sub", other, self)

    def __mul__(self, other: Any) -> Symbol:
        return self._("Mul", self, other)

    def __rmul__(self, other: Any) -> Symbol:
        return self._("Mul", other, self)

    def __truediv__(self, other: Any) -> Symbol:
        return self._("Div", self, other)

    def __neg__(self) -> Symbol:
        return self._("Neg", self)

    def __floordiv__(self, other: Any) -> Symbol:
        return self._("Floor", self / other)

    def __mod__(self, other: Any) -> Symbol:
        whole: Symbol = (self // other) * other
        return self - whole

    def __gt__(self, other: Any) -> Symbol:
        return self._("Greater", self, other)

    def __rpow__(self, base: float) -> Symbol:
        return self.power_of(base)

    def power_of(self, base: float) -> Symbol:
        """``base ** self``."""
        return self._("Exp", self * math.log(base))


class Module:
    """The array functions that `ranker_features` calls."""

    @staticmethod
    def where(condition: Symbol, yes: Any, no: Any) -> Symbol:
        """Elementwise choice."""
        return condition.graph.add("Where", condition, yes, no)[0]

    @staticmethod
    def maximum(one: Symbol, other: Any) -> Symbol:
        """Elementwise larger value."""
        return one.graph.add("Max", one, other)[0]

    @staticmethod
    def sqrt(value: Symbol) -> Symbol:
        """Elementwise root."""
        return value.graph.add("Sqrt", value)[0]

    @staticmethod
    def exp2(value: Symbol) -> Symbol:
        """Elementwise power of two."""
        return value.power_of(2.0)


def trace(names: Sequence[str]) -> bytes:
    """The graph of look-ups and arithmetic: inputs INPUTS, output ``features`` float32[M, len(names)].

    Args:
        names: The features wanted, of `contracts.features.RANKER_FEATURES`, in order.
    """
    from onnx import TensorProto, helper

    graph = Graph()
    rows = _looked_up(graph)
    models = rows["m"]
    found = ranker_features(
        c=rows["c"],
        cp=rows["cp"],
        ct=rows["ct"],
        cc=rows["cc"],
        p=rows["p"],
        s=rows["s"],
        cs=rows["cs"],
        x=rows["x"],
        encoder_score=models["encoder_score"],
        co_bought=models["co_bought"],
        now=Symbol(graph, "now"),
        xp=Module,
    )
    none = models["encoder_score"] * 0.0  # Gives every column, also those of one value, the shape [1, M].
    columns_out = [found[name] + none for name in names]
    (table,) = graph.add("Concat", *columns_out, axis=0)
    (single,) = graph.add("Cast", table, to=TensorProto.FLOAT)
    graph.nodes.append(helper.make_node("Transpose", [single.name], ["features"], perm=[1, 0]))
    inputs = [
        helper.make_tensor_value_info(name, getattr(TensorProto, kind), list(shape))
        for name, (kind, shape) in INPUTS.items()
    ]
    output = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["M", len(names)])
    made = helper.make_graph(graph.nodes, "features", inputs, [output], list(graph.constants.values()))
    opsets = [helper.make_opsetid("", OPSET)]
    return bytes(helper.make_model(made, opset_imports=opsets, ir_version=IR_VERSION).SerializeToString())


def joined(features: bytes, ranker: bytes) -> bytes:
    """The graph of `trace` followed by a ranker: outputs ``features`` and ``scores``, without a copy between.

    Args:
        features: From `trace`.
        ranker: Input ``features`` float32[M, F], output ``scores``.
    """
    import onnx
    from onnx import compose

    first = onnx.load_model_from_string(features)
    second = onnx.load_model_from_string(ranker)
    # Names inside the two graphs may be the same by chance; inputs and outputs keep theirs.
    second = compose.add_prefix(second, "ranker/", rename_inputs=False, rename_outputs=False)
    opsets = {opset.domain: opset.version for model in (first, second) for opset in model.opset_import}
    opsets[""] = max(model_opset(first), model_opset(second))
    whole = compose.merge_graphs(
        first.graph, second.graph, [("features", "features")], outputs=["features", "scores"]
    )
    return bytes(
        onnx.helper.make_model(
            whole,
            opset_imports=[onnx.helper.make_opsetid(*opset) for opset in opsets.items()],
            ir_version=max(first.ir_version, second.ir_version),
        ).SerializeToString()
    )


def model_opset(model: Any) -> int:
    """Version of ONNX's own operators that a model is written in; `OPSET` if it uses none."""
    return next((int(opset.version) for opset in model.opset_import if opset.domain == ""), OPSET)


def _looked_up(graph: Graph) -> dict[str, dict[str, Symbol]]:
    """Columns by block and name: each [1, M], those of ``c`` [1, 1]."""
    from onnx import TensorProto

    def symbol(name: str) -> Symbol:
        return Symbol(graph, name)

    def gather(table: str, places: Symbol, axis: int = 0) -> Symbol:
        return graph.add("Gather", symbol(table), places, axis=axis)[0]

    def split(block: Symbol, columns: tuple[str, ...]) -> dict[str, Symbol]:
        parts = graph.add("Split", block, outputs=len(columns), axis=0, num_outputs=len(columns))
        return dict(zip(columns, parts, strict=True))

    def row(values: Symbol) -> Symbol:
        (double,) = graph.add("Cast", values, to=TensorProto.DOUBLE)
        one = Symbol(graph, graph.constant([0], np.int64))
        return graph.add("Unsqueeze", double, one)[0]

    chosen = symbol("chosen")
    found = {"c": split(symbol("c"), CUSTOMER_COLUMNS)}
    places = {
        "cp": symbol("cp_place"),
        "cs": symbol("cp_place"),
        "ct": gather("ct_place", gather("type_id", chosen)),
        "cc": gather("cc_place", gather("category_id", chosen)),
        "p": chosen,
        "s": gather("s_place", chosen),
    }
    for block, at in places.items():
        found[block] = split(gather(block, at, axis=1), BLOCKS[block])
    flags = row(gather("flags", chosen))
    mailer = flags // float(MAILER)
    found["x"] = {"x_display": flags - mailer * float(MAILER), "x_mailer": mailer}
    ids = gather("encoder_id", chosen)
    (known,) = graph.add("Greater", ids, Symbol(graph, graph.constant(0, np.int64)))
    scores = gather("encoder_scores", ids)
    (masked,) = graph.add("Where", known, scores, Symbol(graph, graph.constant(0.0, np.float32)))
    found["m"] = {"encoder_score": row(masked), "co_bought": row(symbol("together"))}
    return found
