"""Scores from the exported encoder: the file that ships is the file that is judged.

Needs numpy and ONNX Runtime only, so the ranker and the evaluation can read the encoder without torch.
Belongs here: packing histories as the graph wants them, running it. Does not belong here: training.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from training.config import read_bundle
from training.continuum.data import Sequences, load_vocabulary

Arrays = dict[str, npt.NDArray]


@dataclasses.dataclass(frozen=True)
class OnnxEncoder:
    """An exported encoder.

    Attributes:
        session: ONNX Runtime session.
        product_ids: str[V + 1], row = encoder id, row 0 empty.
        length: Events it reads at most.
    """

    session: ort.InferenceSession
    product_ids: npt.NDArray[np.str_]
    length: int

    def score(
        self, sequences: Sequences, rows: npt.NDArray[np.integer], at: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float32]:
        """Raw scores of the whole vocabulary.

        Args:
            sequences: Histories.
            rows: int[B] customers, as rows of ``sequences``; -1 for an empty history.
            at: float64[B] days; only events strictly before are read.

        Returns:
            float32[B, V + 1]; column 0 is -inf.
        """
        return self.run(pack(sequences, rows, at, self.length), ["scores"])[0]

    def run(self, inputs: Arrays, outputs: list[str], k: int = 1) -> list[npt.NDArray]:
        """Run the graph with nothing denied."""
        deny = np.zeros((len(inputs["item"]), len(self.product_ids)), bool)
        return self.session.run(outputs, {**inputs, "deny": deny, "k": np.array([k], np.int64)})

    def batches(
        self,
        sequences: Sequences,
        rows: npt.NDArray[np.integer],
        at: npt.NDArray[np.float64],
        batch: int = 64,
    ) -> Iterator[tuple[slice, npt.NDArray[np.float32]]]:
        """`score` in batches that fit in memory, with the part of ``rows`` each belongs to."""
        for start in range(0, len(rows), batch):
            part = slice(start, min(start + batch, len(rows)))
            yield part, self.score(sequences, rows[part], at[part])


def open_encoder(bundle: pathlib.Path, threads: int = 1) -> OnnxEncoder:
    """Open the encoder of a bundle.

    Raises:
        ConfigError: The folder holds no complete bundle.
    """
    record = read_bundle(bundle)
    vocabulary = load_vocabulary(bundle / record.files["vocabulary"])
    return OnnxEncoder(
        open_session(bundle / record.files["onnx"], threads),
        vocabulary.product_id,
        int(record.details["length"]),
    )


def open_session(path: pathlib.Path, threads: int = 1) -> ort.InferenceSession:
    """An ONNX Runtime session on the CPU that does not spin."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def pack(
    sequences: Sequences, rows: npt.NDArray[np.integer], at: npt.NDArray[np.float64], length: int
) -> Arrays:
    """The latest events before each request, oldest first, padding on the left.

    Args:
        sequences: Histories.
        rows: int[B] customers, -1 for an empty history.
        at: float64[B] days.
        length: At most this many events; fewer columns come back if no history is that long (at least 1).

    Returns:
        ``item``, ``action``, ``channel`` int64[B, L] and ``age`` float32[B, L].
    """
    stops = np.array(
        [_stop(sequences, int(row), moment) for row, moment in zip(rows, at, strict=True)], np.int64
    )
    starts = np.array([sequences.offsets[row] if row >= 0 else 0 for row in rows], np.int64)
    starts = np.maximum(starts, stops - length)
    width = max(1, int((stops - starts).max(initial=0)))
    index = stops[:, None] - width + np.arange(width)
    real = index >= starts[:, None]
    if not len(sequences.at):
        real, index = np.zeros_like(real), np.zeros_like(index)
        empty = np.zeros(real.shape, np.int64)
        return {"item": empty, "action": empty, "channel": empty, "age": np.zeros(real.shape, np.float32)}
    index = np.where(real, index, 0)
    return {
        "item": np.where(real, sequences.item[index], 0).astype(np.int64),
        "action": np.where(real, sequences.action[index].astype(np.int64) + 1, 0),
        "channel": np.where(real, sequences.channel[index].astype(np.int64) + 1, 0),
        "age": np.where(real, at[:, None] - sequences.at[index], 0).astype(np.float32),
    }


def _stop(sequences: Sequences, row: int, moment: float) -> int:
    if row < 0:
        return 0
    start, stop = int(sequences.offsets[row]), int(sequences.offsets[row + 1])
    return start + int(np.searchsorted(sequences.at[start:stop], moment, side="left"))
