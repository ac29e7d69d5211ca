"""ONNX Runtime sessions as the server wants them: one thread, no spinning, honest about the device.

Two intra-op threads that spin gave a p99 of 4 to 40 ms on a small shared machine where one thread gave
0.3 to 2 ms, so requests run side by side instead of inside one another.

Belongs here: creating and timing sessions. Does not belong here: what is fed to them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

CPU = "CPUExecutionProvider"


class GraphError(RuntimeError):
    """A graph that ONNX Runtime refuses to load or to run."""


class Session:
    """One graph, ready to run from any thread.

    Args:
        name: For messages.
        content: Bytes of the ONNX file.
        providers: Execution providers by preference; the CPU is always the last resort.

    Attributes:
        provider: The provider that really runs the graph.
        inputs: Type by input name.
        outputs: Type by output name.

    Raises:
        GraphError: ONNX Runtime refuses the graph.
    """

    def __init__(self, name: str, content: bytes, providers: Sequence[str] = (CPU,)) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        available = ort.get_available_providers()
        chosen = [provider for provider in providers if provider in available]
        if CPU not in chosen:
            chosen.append(CPU)
        try:
            self._session = ort.InferenceSession(content, options, providers=chosen)
        except Exception as error:  # ONNX Runtime raises several unrelated types.
            raise GraphError(f"ONNX Runtime refuses '{name}': {_first_line(error)}") from error
        self._name = name
        self.provider: str = self._session.get_providers()[0]
        self.inputs: dict[str, str] = {value.name: value.type for value in self._session.get_inputs()}
        self.outputs: dict[str, str] = {value.name: value.type for value in self._session.get_outputs()}

    def run(self, outputs: Sequence[str], feed: dict[str, NDArray[Any]]) -> tuple[list[NDArray[Any]], int]:
        """Run the graph.

        Returns:
            The named outputs, and the nanoseconds that ONNX Runtime took.

        Raises:
            GraphError: The run failed, or gave something else than finite shapes of numbers.
        """
        started = time.perf_counter_ns()
        try:
            values = self._session.run(list(outputs), feed)
        except Exception as error:  # ONNX Runtime raises several unrelated types.
            raise GraphError(f"'{self._name}' failed: {_first_line(error)}") from error
        return values, time.perf_counter_ns() - started


def require_finite(name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The values, if none of them is NaN.

    Raises:
        GraphError: At least one is NaN.
    """
    if values.size and math.isnan(values.max()):  # The maximum of anything with a NaN is NaN.
        raise GraphError(f"'{name}' gave scores that are not numbers")
    return values


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
