"""Kept runs (`docs/benchmarks/NAME.json`) and the page that is rendered from them."""

from __future__ import annotations

import json
import pathlib
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
KEPT = ROOT / "docs" / "benchmarks"
PAGE = ROOT / "docs" / "benchmarks.md"

ABOUT = {
    "next-basket": "First basket of each household from 2017-12-01 on (Complete Journey), whole catalogue ranked.",
    "point-in-time": "Point-in-time join of 2 M feature rows with 100 k entity rows: ours, stock Feast, plain ASOF.",
    "parity": "Features in the live profile, in the online store and offline, for the same customers and moments; "
    "ONNX against the trained models.",
    "serving": "The live server: overhead, freshness, swaps under load, killed while events arrive.",
    "camera": "Camera search through the server's socket: one 12-megapixel photo with 5 items against 50,000 products, "
    "one request at a time.",
    "identity": "Who is who in simulated shops whose truth is known (atelier, simulated): pairs of events of one person; "
    "undoing merges; time over events.",
    "atelier": "A million events of the simulated fashion shop on one core, its shapes beside those of real shops.",
    "intake": "Events of the shape of the atelier (simulated), from files to identities, sessions, moments and features; "
    "a plain scan and pandas, which does less, beside it.",
    "moments": "Micro-moments and open needs on the atelier (simulated), judged by its truth; live against lake.",
    "attribution": "Credits by channel against hand-worked chains and against what channels caused in the atelier "
    "(simulated): total variation, 0 is equal.",
    "pipeline": "`make run` after installation, on 2 cores.",
    "value": "BG/NBD on CDNOW; churn within 28 days and spend within 91 days on Complete Journey, split by time.",
    "uplift": "Visits that each e-mail of Hillstrom's trial causes: our learners and causalml's, same folds, same Qini.",
    "training-speed": "Targets learned per second: the encoder, plain SASRec code of the same and of its own width, and the "
    "encoder in two processes; amazon-beauty's histories, 2 cores.",
    "visual": "Pictures by the protocols of the data folder: groceries, similar products, names, phone photos, detection, "
    "outfits; every part on the split named for reporting.",
    "index": "A million made vectors: the server's search by cells against exact search, one question at a time.",
    "quantized": "int8 against fp32 for detector and embedder: one thread, one run, the task's own numbers; "
    "what is shipped follows from it.",
    "next-action": "Everybody's next best action in the atelier (simulated) by what each contact truly causes: value per "
    "1,000 customers, beside nobody, everybody, as many at random, and the best with the truth known; same limits.",
    "catalogue-latency": "An answer of the encoder by size of a simulated catalogue, one core, top 20: whole graph, float32 "
    "scan, the server's exact bounded search, 8 bits, sub-items whole and pruned.",
    "intent": "Purchase intent in a session (online-shoppers-intention), 5-fold, calibrated inside the training folds.",
    "sequences": "The encoder on public sequence sets by the published protocols, beside baselines (`--data NAME|FILE`).",
    "sequences-amazon-beauty": "Leave-one-out on Amazon Beauty (22,363 users), whole catalogue; items never seen in "
    "training; time to the published quality beside RecTools.",
    "sequences-amazon-clothing": "Leave-one-out on Amazon Clothing (39,387 users), whole catalogue.",
    "sequences-diginetica": "Next item over all test prefixes of Diginetica, whole catalogue.",
    "sequences-yoochoose": "Next item over all test prefixes of a sample of Yoochoose, whole catalogue.",
}


def keep(result: dict[str, Any]) -> pathlib.Path:
    """Write a result as the bench's kept run."""
    KEPT.mkdir(parents=True, exist_ok=True)
    path = KEPT / f"{result['bench']}.json"
    path.write_text(json.dumps(result, indent=1, default=str, sort_keys=True) + "\n")
    return path


def carried(record: str, outcome: dict[str, Any]) -> dict[str, Any]:
    """An outcome with what the kept run holds of the parts that were not run this time.

    Args:
        record: Name of the kept run.
        outcome: Of a bench; ``left`` names each part that was not run, with the beginnings of its metrics.

    Returns:
        The outcome, its setup telling for each such part (``PART_commit``) where it was measured.
    """
    path, left = KEPT / f"{record}.json", outcome.get("left", {})
    if not left or not path.is_file():
        return outcome
    kept = json.loads(path.read_text())
    measured, setup = dict(outcome["measured"]), dict(outcome["setup"])
    for part, beginnings in left.items():
        old = {
            metric: value
            for metric, value in kept["measured"].items()
            if metric.startswith(tuple(beginnings)) and metric not in measured
        }
        if old:
            measured |= old
            setup |= {key: value for key, value in kept["setup"].items() if key.startswith(f"{part}_")}
            setup.setdefault(f"{part}_commit", kept["setup"].get("commit", "unknown"))
    return {**outcome, "measured": measured, "setup": setup}


def render() -> pathlib.Path:
    """Write docs/benchmarks.md from the kept runs."""
    parts = [
        "# Benchmarks\n",
        "Rendered by `continuum bench --render` from the kept runs in `docs/benchmarks/`; never edited by hand.",
        "Run one yourself with `continuum bench NAME`; `--keep` replaces the kept run.\n",
    ]
    for path in sorted(KEPT.glob("*.json")):
        parts.append(_section(json.loads(path.read_text())))
    PAGE.write_text("\n".join(parts))
    return PAGE


def _section(result: dict[str, Any]) -> str:
    name = result["bench"]
    lines = [f"## {name}\n", ABOUT.get(name, ""), "", "| metric | measured | bar | |", "|---|---|---|---|"]
    for metric, value in result["measured"].items():
        bar = result["bars"].get(metric)
        verdict = "" if bar is None else ("holds" if bar["holds"] else "**missed**")
        wanted = f"{bar['op']} {bar['bar']}" if bar else ""
        lines.append(f"| {metric} | {format_value(value)} | {wanted} | {verdict} |")
    setup = ", ".join(f"{key} {format_value(value)}" for key, value in sorted(result["setup"].items()))
    return "\n".join([*lines, "", f"Setup: {setup}.", ""])


def format_value(value: Any) -> str:
    """A number with four significant digits, anything else as text."""
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    return f"{value:.4g}"
