"""The ranker's request-time arithmetic as an ONNX graph, traced from its one definition.

`contracts.features.ranker_features` is plain array arithmetic over whatever array module it is given.
Given the symbols of this module it writes down an ONNX graph of itself, so the server runs the very
definition that training ran in numpy, without some two hundred small numpy calls per answer.

Belongs here: symbols, and the graph of `ranker_features`. Does not belong here: where its inputs come
from (`assemble.py`).
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
    CUSTOMER_TYPE_COLUMNS,
    PRODUCT_COLUMNS,
    STORE_PRODUCT_COLUMNS,
    ranker_features,
)

OPSET = 17
IR_VERSION = 8
BLOCKS: dict[str, tuple[str, ...]] = {
    "c": CUSTOMER_COLUMNS,
    "cp": CUSTOMER_PRODUCT_COLUMNS,
    "ct": CUSTOMER_TYPE_COLUMNS,
    "cc": CUSTOMER_CATEGORY_COLUMNS,
    "p": PRODUCT_COLUMNS,
    "s": STORE_PRODUCT_COLUMNS,
    "x": ("x_display", "x_mailer"),
    "m": ("encoder_score", "co_bought"),
}
"""Inputs of the graph: float64[columns, M], but ``c`` float64[columns, 1]; and ``now`` float64[1, 1]."""


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
    """The graph: inputs BLOCKS and ``now``, output ``features`` float32[M, len(names)].

    Args:
        names: The features wanted, of `contracts.features.RANKER_FEATURES`, in order.
    """
    from onnx import TensorProto, helper

    graph = Graph()
    rows: dict[str, dict[str, Symbol]] = {}
    for block, columns in BLOCKS.items():
        parts = graph.add("Split", Symbol(graph, block), outputs=len(columns), axis=0)
        rows[block] = dict(zip(columns, parts, strict=True))
    models = rows["m"]
    found = ranker_features(
        c=rows["c"],
        cp=rows["cp"],
        ct=rows["ct"],
        cc=rows["cc"],
        p=rows["p"],
        s=rows["s"],
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
        helper.make_tensor_value_info(block, TensorProto.DOUBLE, [len(columns), 1 if block == "c" else "M"])
        for block, columns in BLOCKS.items()
    ]
    inputs.append(helper.make_tensor_value_info("now", TensorProto.DOUBLE, [1, 1]))
    output = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["M", len(names)])
    made = helper.make_graph(graph.nodes, "features", inputs, [output], list(graph.constants.values()))
    opsets = [helper.make_opsetid("", OPSET)]
    return bytes(helper.make_model(made, opset_imports=opsets, ir_version=IR_VERSION).SerializeToString())
