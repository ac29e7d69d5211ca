"""Runs in MLflow, as every model family logs them: config, numbers, plots, data, ONNX models.

Everything that MLflow is asked for goes through here; versions and aliases are in `registry.py` and are
offered here as well.

Belongs here: logging into the open run. Does not belong here: what a release consists of
(`packaging.py`), metrics themselves (`evaluation`).
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import pathlib
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # MLflow reads it while it is imported.
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

import mlflow
import msgspec
import numpy as np
from mlflow.entities import Metric, Param

from training.registry import (
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    UnknownVersion,
    create_version,
    experiment_id,
    open_client,
    promote,
    register,
    resolve_alias,
    rollback,
    set_alias,
    tag_version,
    versions,
)

__all__ = [
    "CHALLENGER", "CHAMPION", "PREVIOUS", "Interval", "Tensor", "UnknownVersion", "code_version", "create_version",
    "experiment_id", "flatten_intervals", "graph_tensors", "log_comparison", "log_curve", "log_dataset",
    "log_metrics", "log_model_card", "log_onnx", "open_client", "promote", "register", "resolve_alias", "rollback",
    "set_alias", "start", "tag_version", "versions",
]  # fmt: skip

LONGEST_PARAM = 500
METRICS_PER_CALL = 1000
PARAMS_PER_CALL = 100
ROOT = pathlib.Path(__file__).resolve().parent.parent

Interval = tuple[float, float, float]


class Config(Protocol):
    """A config, as far as every run tells about it.

    What only some families have (Delta versions, a feature service) is told where it is there.
    """

    @property
    def retailer(self) -> str:
        """Name of the shop."""
        ...

    @property
    def tracking_uri(self) -> str:
        """MLflow tracking and registry address."""
        ...

    @property
    def experiment(self) -> str:
        """Name of the MLflow experiment."""
        ...

    @property
    def simulated(self) -> bool:
        """Whether the data is simulated."""
        ...

    @property
    def tags(self) -> dict[str, str]:
        """Further tags."""
        ...


class Tensor(NamedTuple):
    """One input or output of a graph.

    Attributes:
        name: As the graph calls it.
        dtype: NumPy name, such as ``float32``.
        shape: -1 for a dimension of any size.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]


def code_version() -> str:
    """Version of this code: ``git describe --always --dirty`` in a checkout, else the package's version."""
    if (ROOT / ".git").exists():
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(
                ["git", "describe", "--always", "--dirty"],
                cwd=ROOT, capture_output=True, text=True, check=True, timeout=30,
            )  # fmt: skip
            return done.stdout.strip()
    return importlib.metadata.version("continuum-retail")


@contextlib.contextmanager
def start(config: Config) -> Iterator[mlflow.ActiveRun]:
    """Open the run of one training; everything below logs into it until it is left.

    Tags say what the run was made from; the config is logged as parameters (nested keys joined by
    dots, long values cut) and, whole, as ``config.json``. A run that is left by an error is FAILED.

    Args:
        config: What is trained; its experiment is named after the model.

    Yields:
        The run.
    """
    client = open_client(config.tracking_uri)
    mlflow.set_tracking_uri(config.tracking_uri)
    mlflow.set_registry_uri(config.tracking_uri)
    experiment = experiment_id(client, config.experiment)
    with mlflow.start_run(experiment_id=experiment, tags=_run_tags(config)) as run:
        values = msgspec.to_builtins(config)
        params = [Param(key, text[:LONGEST_PARAM]) for key, text in _flatten(values)]
        for first in range(0, len(params), PARAMS_PER_CALL):
            client.log_batch(run.info.run_id, params=params[first : first + PARAMS_PER_CALL])
        mlflow.log_text(msgspec.json.format(msgspec.json.encode(values), indent=2).decode(), "config.json")
        yield run


def _run_tags(config: Config) -> dict[str, str]:
    lake = {f"lake.{table}": str(version) for table, version in getattr(config, "lake", {}).items()}
    return {
        "family": type(config).__name__.removesuffix("Config").lower(),
        "retailer": config.retailer,
        "feature_service": getattr(config, "feature_service", ""),
        "code_version": code_version(),
        "simulated": str(config.simulated).lower(),
        **lake,
        **config.tags,
    }


def _flatten(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flatten(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner if isinstance(inner, str) else json.dumps(inner)


def _run_id() -> str:
    run = mlflow.active_run()
    if run is None:
        raise RuntimeError("no run is open; expected to be called inside `with tracking.start(config)`")
    return str(run.info.run_id)


def _log(metrics: list[Metric]) -> None:
    client, run_id = mlflow.MlflowClient(), _run_id()
    for first in range(0, len(metrics), METRICS_PER_CALL):
        client.log_batch(run_id, metrics=metrics[first : first + METRICS_PER_CALL])


def log_metrics(
    metrics: Mapping[str, float | Interval], model_id: str | None = None, step: int | None = None
) -> None:
    """Log numbers into the open run in one call.

    Args:
        metrics: By name. A triple is (mean, low, high) and becomes ``name``, ``name_ci_low`` and
            ``name_ci_high``.
        model_id: LoggedModel that the numbers belong to as well, see `log_onnx`.
        step: Epoch or similar; 0 by default.

    Raises:
        RuntimeError: No run is open.
        ValueError: A tuple has other than three numbers.
    """
    now = int(time.time() * 1000)
    flat = flatten_intervals(metrics)
    _log([Metric(name, value, now, step or 0, model_id=model_id) for name, value in flat.items()])


def flatten_intervals(metrics: Mapping[str, float | Interval]) -> dict[str, float]:
    """One number per name, with intervals spread over ``name``, ``name_ci_low`` and ``name_ci_high``.

    Raises:
        ValueError: A tuple has other than three numbers.
    """
    flat: dict[str, float] = {}
    for name, value in metrics.items():
        if not isinstance(value, tuple):
            flat[name] = float(value)
            continue
        if len(value) != 3:
            raise ValueError(f"metric '{name}' has {len(value)} numbers; expected (mean, low, high)")
        flat |= zip((name, f"{name}_ci_low", f"{name}_ci_high"), map(float, value), strict=True)
    return flat


def log_curve(name: str, values: Sequence[float]) -> None:
    """Log a curve, such as a loss by epoch: the first value at step 0.

    Raises:
        RuntimeError: No run is open.
    """
    now = int(time.time() * 1000)
    _log([Metric(name, float(value), now, step) for step, value in enumerate(values)])


def log_comparison(title: str, means: Mapping[str, Interval], highlight: str = "") -> None:
    """Log bars with their intervals as ``plots/<title>.png``, best first.

    Args:
        title: Of the plot, for example ``NDCG at 10``.
        means: (mean, low, high) by name.
        highlight: Name of the bar that this run is about.

    Raises:
        RuntimeError: No run is open.
    """
    from matplotlib.figure import Figure

    _run_id()
    names = sorted(means, key=lambda name: means[name][0])
    figure = Figure(figsize=(7.0, 1.2 + 0.35 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    middle, low, high = (np.array([means[name][place] for name in names], float) for place in range(3))
    axes.barh(
        names, middle, xerr=np.abs([middle - low, high - middle]), capsize=3, ecolor="#333333",
        color=["#0b6e4f" if name == highlight else "#b9c4be" for name in names],
    )  # fmt: skip
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    slug = "-".join("".join(c if c.isalnum() else " " for c in title.lower()).split())
    mlflow.log_figure(figure, f"plots/{slug}.png")


def log_model_card(markdown: str) -> None:
    """Log the model card as ``model_card.md``.

    Raises:
        RuntimeError: No run is open.
    """
    _run_id()
    mlflow.log_text(markdown, "model_card.md")


def log_dataset(
    name: str,
    *,
    source: pathlib.Path | str,
    digest: str,
    context: Literal["train", "evaluate"],
    version: int | None = None,
) -> None:
    """Log which data a run saw, by reference: no rows are read.

    Args:
        name: For people, for example ``events``.
        source: Folder or file that it lies in.
        digest: Hash of the data, or another text that changes with it; its first 36 characters count.
        context: What it was used for.
        version: Delta version, where the source is a Delta table.

    Raises:
        RuntimeError: No run is open.
    """
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.delta_dataset_source import DeltaDatasetSource
    from mlflow.data.meta_dataset import MetaDataset

    _run_id()
    origin = (
        CodeDatasetSource(tags={"path": str(source)})
        if version is None
        else DeltaDatasetSource(path=str(source), delta_table_version=version)
    )
    mlflow.log_input(MetaDataset(origin, name=name, digest=digest[:36]), context=context)


def graph_tensors(path: pathlib.Path) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs and outputs as an ONNX file states them, with -1 for dimensions of any size."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph

    def tensors(values: Any) -> list[Tensor]:
        found = []
        for value in values:
            kind = value.type.tensor_type
            shape = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim)
            dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
            found.append(Tensor(value.name, dtype.name, shape))
        return found

    return tensors(graph.input), tensors(graph.output)


def log_onnx(
    path: pathlib.Path,
    name: str,
    inputs: Sequence[Tensor] | None = None,
    outputs: Sequence[Tensor] | None = None,
    input_example: Mapping[str, np.ndarray] | None = None,
) -> tuple[str, str]:
    """Log an ONNX file as a LoggedModel of the open run.

    It is kept as one file, without external data, so that it can be hashed, signed and served as it is.

    Args:
        path: The ONNX file.
        name: Of the model, for example ``encoder``.
        inputs: Its signature; by default as the graph states it.
        outputs: The same.
        input_example: Arrays by input name; MLflow runs the model on them, so leave it out if that is slow.

    Returns:
        The LoggedModel's id (for `log_metrics`) and its URI ``models:/m-...``.

    Raises:
        RuntimeError: No run is open.
    """
    import mlflow.onnx
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Schema, TensorSpec

    _run_id()
    stated_inputs, stated_outputs = graph_tensors(path)

    def schema(tensors: Sequence[Tensor]) -> Schema:
        return Schema([TensorSpec(np.dtype(dtype), tuple(shape), name) for name, dtype, shape in tensors])

    pins = [
        f"{package}=={importlib.metadata.version(package)}" for package in ("onnx", "onnxruntime", "numpy")
    ]
    logged = mlflow.onnx.log_model(
        onnx.load(path),
        name=name,
        signature=ModelSignature(
            schema(stated_inputs if inputs is None else inputs),
            schema(stated_outputs if outputs is None else outputs),
        ),
        input_example=None if input_example is None else dict(input_example),
        pip_requirements=pins,
        onnx_execution_providers=["CPUExecutionProvider"],
        save_as_external_data=False,
    )
    return str(logged.model_id), str(logged.model_uri)
