"""What a reviewer reads about the relationship models: model cards, calibration and Qini plots.

Belongs here: words and figures from numbers. Does not belong here: the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.evaluation.statistics import Interval
from training.relationship.measures import Reliability
from training.relationship.qini import Curve


def calibration_figure(found: Reliability, title: str) -> Any:
    """Predicted against observed shares, one point per bin."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0, 5.0), layout="constrained")
    axes = figure.add_subplot()
    top = max(float(found.predicted.max()), float(found.happened.max())) * 1.05
    axes.plot([0, top], [0, top], color="#b9c4be", linestyle="--", label="perfect")
    axes.plot(
        found.predicted, found.happened, marker="o", color="#0b6e4f", label=f"model, error {found.error:.4f}"
    )
    axes.set_xlabel("predicted")
    axes.set_ylabel("happened")
    axes.set_title(title, loc="left")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def qini_figure(curve: Curve, title: str) -> Any:
    """Outcomes that the contact causes by the share of customers contacted, best first."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(curve.share, curve.gain, color="#0b6e4f", label=f"model, Qini {curve.coefficient:.5f}")
    axes.plot([0, 1], [0, curve.gain[-1]], color="#b9c4be", linestyle="--", label="anyone")
    axes.set_xlabel("share of customers contacted")
    axes.set_ylabel("caused per treated customer")
    axes.set_title(title, loc="left")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def effect_figure(predicted: Any, observed: Any, size: Any, title: str) -> Any:
    """Predicted against observed effect of a contact, one point per group of customers."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0, 5.0), layout="constrained")
    axes = figure.add_subplot()
    low = min(float(min(predicted)), float(min(observed)), 0.0)
    top = max(float(max(predicted)), float(max(observed)), 0.01)
    axes.plot([low, top], [low, top], color="#b9c4be", linestyle="--", label="perfect")
    axes.scatter(predicted, observed, s=[max(10.0, float(each) / 40) for each in size], color="#0b6e4f")
    axes.set_xlabel("predicted change")
    axes.set_ylabel("observed change, contacted less held out")
    axes.set_title(title, loc="left")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def card(
    title: str, purpose: str, made: Mapping[str, str], numbers: Mapping[str, Interval], care: list[str]
) -> str:
    """A model card, Markdown.

    Args:
        title: Of the model.
        purpose: One paragraph: what it says, for whom.
        made: How it was made, label to text.
        numbers: Results with intervals.
        care: What to be careful about.
    """
    rows = "\n".join(f"| {name} | {_text(value)} |" for name, value in numbers.items())
    facts = "\n".join(f"| {name} | {text} |" for name, text in made.items())
    return (
        f"# {title}\n\n{purpose}\n\n## How it was made\n| | |\n|---|---|\n{facts}\n\n"
        f"## How good it is\nBrackets hold 95 % bootstrap intervals.\n\n| | |\n|---|---|\n{rows}\n\n"
        "## Use with care\n" + "\n".join(f"- {line}" for line in care) + "\n"
    )


def _text(value: Interval) -> str:
    if value.low == value.high == value.value:
        return f"{value.value:.4f}"
    return f"{value.value:.4f} [{value.low:.4f}, {value.high:.4f}]"
