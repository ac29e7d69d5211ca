"""Purchase intent in the session that is under way, by the graph that orchestration last published.

``intent.onnx``: features float32[M, F] (`contracts.needs.FEATURES`) to probability float32[M]. A graph of other features
is refused.

Belongs here: reading, checking and asking the graph. Does not belong here: features (`contracts/needs.py`), training.
"""

from __future__ import annotations

import datetime as dt
import pathlib
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np

from contracts.events import Event
from contracts.moments import MomentRules
from contracts.needs import FEATURES, need_features
from contracts.sessions import ACTION, session_id
from serving.profiles.history import to_microseconds
from serving.profiles.moments import live_stream
from serving.profiles.predictions import PredictionsError
from serving.profiles.published import Published

FILE = "intent.onnx"


class LiveIntent(msgspec.Struct, frozen=True):
    """Intent in the session that is under way.

    Attributes:
        chance: Probability that a purchase follows in it.
        session_id: The session.
        as_of: Its last act so far.
        acts: Its acts so far.
    """

    chance: float
    session_id: str
    as_of: dt.datetime
    acts: int


class IntentModel:
    """The newest published graph; read again when the file changes.

    Args:
        folder: Where orchestration publishes, or None for nowhere.
    """

    def __init__(self, folder: pathlib.Path | None) -> None:
        self._graph: Published[Any] = Published(folder, FILE, _open)

    def of(
        self, person: str, events: Iterable[Event], rules: MomentRules, now: dt.datetime
    ) -> LiveIntent | None:
        """Intent of a person, or None where no graph is published, no session is under way, or it has bought already.

        Args:
            person: The person's id, as the lake has it.
            events: Theirs, in any order; those after ``now`` are left out.
            rules: Says what a page is for, and when a session ends.
            now: The moment of the question, with a zone.

        Raises:
            PredictionsError: The published graph cannot be used.
        """
        session = self._graph.current()
        if session is None:
            return None
        live = live_stream(person, [event for event in events if event.occurred_at <= now], rules)
        rows, features, cut = need_features(live.stream, rules, np)
        if not len(rows) or to_microseconds(now) - int(cut.end_us[-1]) > rules.session.gap_us:
            return None
        inside = cut.of_event[rows] == len(cut) - 1
        if bool((live.stream.action[rows[inside]] == ACTION["purchase"]).any()):
            return None
        chance = session.run(["probability"], {"features": features[-1:].astype(np.float32)})[0]
        last = live.events[int(rows[-1])]
        return LiveIntent(float(chance[0]), session_id(cut.key[-1]), last.occurred_at, int(cut.acts[-1]))


def _open(path: pathlib.Path) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    try:
        session = ort.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        (given,) = session.get_inputs()
        outputs = [output.name for output in session.get_outputs()]
    except Exception as error:
        raise PredictionsError(f"{path.name} cannot be used: {error}") from error
    if given.name != "features" or given.shape[-1] != len(FEATURES) or outputs != ["probability"]:
        raise PredictionsError(
            f"{path.name} reads {given.name}{given.shape} and gives {outputs}; expected features of width "
            f"{len(FEATURES)} and probability"
        )
    return session
