"""Features of the moment: what stored rows mean at the time of a request.

Belongs here: the function behind Feast's on-demand view `moment`, vectorised over rows. Does not belong
here: the arithmetic itself (`contracts.features.ranker_features`), stored rows (`feature_repo/transforms`).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from contracts import features

REQUEST_COLUMNS = ("now", "x_display", "x_mailer")
"""What the request brings: its time in days since 1970-01-01 UTC, and the product's promotion then and there."""

_STORED = {
    "c": features.CUSTOMER_COLUMNS,
    "cp": features.CUSTOMER_PRODUCT_COLUMNS,
    "ct": features.CUSTOMER_TYPE_COLUMNS,
    "cc": features.CUSTOMER_CATEGORY_COLUMNS,
    "p": features.PRODUCT_COLUMNS,
    "s": features.STORE_PRODUCT_COLUMNS,
    "cs": features.CUSTOMER_STORE_PRODUCT_COLUMNS,
}
_OTHER_MODELS = ("encoder_score", "co_bought")
_TAKEN = {*(name for names in _STORED.values() for name in names), *REQUEST_COLUMNS, *_OTHER_MODELS}

_PROMOTION = {"on_display": "x_display", "on_mailer": "x_mailer"}

MOMENT_COLUMNS = (*(name for name in features.RANKER_FEATURES if name not in _TAKEN), *_PROMOTION)
"""The ranker's features that depend on the moment (days since, due, decayed counts, hour, weekday and so on),
and the product's promotion."""


def moment_features(inputs: pd.DataFrame) -> pd.DataFrame:
    """Compute `MOMENT_COLUMNS` from the request and stored rows; a row that does not exist counts as zeros."""

    def column(name: str) -> NDArray[np.float64]:
        values: NDArray[np.float64] = np.nan_to_num(inputs[name].to_numpy(np.float64))
        return values

    nothing = np.zeros(len(inputs))
    found = features.ranker_features(
        **{view: {name: column(name) for name in names} for view, names in _STORED.items()},
        x={name: column(name) for name in ("x_display", "x_mailer")},
        encoder_score=nothing,
        co_bought=nothing,
        now=column("now"),
        xp=np,
    )
    found |= {name: column(given) for name, given in _PROMOTION.items()}
    return pd.DataFrame({name: found[name] for name in MOMENT_COLUMNS}, index=inputs.index)
