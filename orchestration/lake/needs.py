"""Fitting the model of open needs, and needs as the lake sees them.

Belongs here: the fit (a multinomial logistic regression) and its export. Does not belong here: features and
arithmetic (`contracts/needs.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from contracts.moments import MomentRules
from contracts.needs import FEATURES, NEEDS, NeedModel, need_features, needs
from contracts.sessions import ACTION, session_id
from orchestration.lake.sessions import LakeStream
from orchestration.lake.tables import TIMESTAMP

DONE: tuple[str, ...] = ("checkout", "redeem", "subscribe", "purchase")
"""Acts that settle a need; moments after them are not used to learn or to judge."""

NEEDS_TABLE = pa.schema(
    [
        pa.field("person_id", pa.string()),
        pa.field("session_id", pa.string()),
        pa.field("as_of", TIMESTAMP),
        pa.field("need", pa.string()),
        pa.field("confidence", pa.float64()),
        *(pa.field(f"p_{need}", pa.float64()) for need in NEEDS),
    ]
)
"""The need of each session as of its last act."""


def labelled(
    lake: LakeStream, rules: MomentRules, need_of_visit: Mapping[str, str]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Acts whose need is known, with what could be known at each.

    Args:
        lake: The stream.
        rules: Thresholds.
        need_of_visit: Need by the source's own session id.

    Returns:
        Rows of the stream, features, need (index in NEEDS) and number of the visit, all over N acts.
    """
    rows, features, _ = need_features(lake.stream, rules, np)
    encoded = lake.rows["session"].combine_chunks().dictionary_encode()
    visits = encoded.dictionary.to_pylist()
    of_visit = np.array([NEEDS.index(need_of_visit[v]) if v in need_of_visit else -1 for v in visits] + [-1])
    visit = np.asarray(encoded.indices.fill_null(len(visits)).to_numpy(), np.int64)[rows]
    done = np.isin(lake.stream.action[rows], [ACTION[name] for name in DONE])
    known = (of_visit[visit] >= 0) & ~done
    return rows[known], features[known], of_visit[visit][known], visit[known]


def needs_table(lake: LakeStream, model: NeedModel, rules: MomentRules) -> pa.Table:
    """The need of every session as of its last act, as `NEEDS_TABLE`.

    Args:
        lake: The stream.
        model: Coefficients.
        rules: Thresholds.
    """
    rows, features, cut = need_features(lake.stream, rules, np)
    number = cut.of_event[rows]
    last = np.searchsorted(number, np.arange(len(cut)), side="right") - 1
    chance = needs(features[last], model, np)
    best = chance.argmax(axis=1)
    return pa.table(
        {
            "person_id": lake.people.take(pa.array(cut.person)),
            "session_id": pa.array([session_id(key) for key in cut.key.tolist()], pa.string()),
            "as_of": pa.array(lake.stream.at_us[rows[last]]).cast(TIMESTAMP),
            "need": pa.array(NEEDS).take(pa.array(best)),
            "confidence": pa.array(chance[np.arange(len(best)), best]),
            **{f"p_{need}": pa.array(chance[:, place]) for place, need in enumerate(NEEDS)},
        },
        schema=NEEDS_TABLE,
    )


def fit_needs(
    features: npt.NDArray[np.float64],
    need: npt.NDArray[np.int64],
    weight: npt.NDArray[np.float64],
    origin: str,
    strength: float = 1.0,
) -> NeedModel:
    """Fit coefficients on labelled moments.

    Args:
        features: ``(N, len(FEATURES))`` of `contracts.needs.need_features`.
        need: ``(N,)``, index in `contracts.needs.NEEDS`; the label: what the session turned out to be for.
        weight: ``(N,)``, for example 1 / acts, so that long sessions do not count for more.
        origin: What the labels are, for people.
        strength: Inverse of the L2 penalty.

    Raises:
        ValueError: A need has no example.
    """
    from sklearn.linear_model import LogisticRegression

    missing = sorted(set(range(len(NEEDS))) - set(np.unique(need).tolist()))
    if missing:
        raise ValueError(
            f"no example of need '{NEEDS[missing[0]]}'; expected some of each of {', '.join(NEEDS)}"
        )
    mean, scale = features.mean(0), features.std(0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    model: Any = LogisticRegression(C=strength, max_iter=300)
    model.fit((features - mean) / scale, need, sample_weight=weight)
    return NeedModel(
        features=FEATURES,
        mean=tuple(mean.tolist()),
        scale=tuple(scale.tolist()),
        weight=tuple(tuple(row) for row in model.coef_.tolist()),
        bias=tuple(model.intercept_.tolist()),
        origin=origin,
    )
