"""The peer's side of the uplift bench; runs inside causalml's own environment, never in ours.

``python uplift_causalml.py TASKS OUT``: TASKS (.npz) holds ``params`` (JSON for LightGBM) and, for each task i,
``X_i, treated_i, outcome_i, ask_i``; OUT gets float64[4, asked] per task: effects by S, T, X and DR learner.

Belongs here: calls of causalml. Does not belong here: folds and the Qini (`uplift.py`), so that both sides share them.
"""

import json
import sys
import warnings

import numpy as np


def main(tasks: str, out: str) -> None:
    """Fit the four learners on every task."""
    warnings.filterwarnings("ignore")
    from causalml.inference.meta import BaseDRRegressor, BaseSClassifier, BaseTClassifier, BaseXClassifier
    from lightgbm import LGBMClassifier, LGBMRegressor

    given = dict(np.load(tasks, allow_pickle=False))
    params = json.loads(str(given["params"]))
    answers = {}
    for task in range(int(given["tasks"])):
        X, ask = given[f"X_{task}"], given[f"ask_{task}"]
        treated, outcome = given[f"treated_{task}"].astype(int), given[f"outcome_{task}"]
        share = float(treated.mean())
        known, asked = np.full(len(X), share), np.full(len(ask), share)

        def classifier() -> LGBMClassifier:
            return LGBMClassifier(**params)

        def regressor() -> LGBMRegressor:
            return LGBMRegressor(**params)

        s = BaseSClassifier(classifier(), control_name=0)
        s.fit(X, treated, outcome)
        t = BaseTClassifier(classifier(), control_name=0)
        t.fit(X, treated, outcome)
        x = BaseXClassifier(outcome_learner=classifier(), effect_learner=regressor(), control_name=0)
        x.fit(X, treated, outcome, p=known)
        dr = BaseDRRegressor(learner=regressor(), control_name=0)
        dr.fit(X, treated, outcome, p=known, seed=0)
        found = [s.predict(ask), t.predict(ask), x.predict(ask, p=asked), dr.predict(ask)]
        answers[f"effect_{task}"] = np.stack([np.asarray(each, float).ravel() for each in found])
    np.savez(out, **answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
