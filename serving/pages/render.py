"""Filling the templates.

Belongs here: choosing and formatting what a page shows. Does not belong here: markup
(`templates/`), facts (`serving/server.py`).
"""

from __future__ import annotations

import datetime as dt
import json
import pathlib
import re
from typing import Any

import jinja2

from contracts.decisions import Decision
from serving.routes.problems import KINDS
from serving.server import Server

FOLDER = pathlib.Path(__file__).resolve().parent
STATIC = FOLDER / "static"
RECENT = 8
EXAMPLES = 4

_LINK_TITLES = {
    "dagster": ("Dagster", "assets, runs, sensors"),
    "mlflow": ("MLflow", "experiments, models, approvals"),
    "feast": ("Feast", "feature views and services"),
}
_HEADLINE = "ndcg_at_10"
_BASELINE = re.compile(r"baseline_(?P<name>\w+)_ndcg_at_10")
_BASELINE_TITLES = {
    "recent_popularity": "Recent popularity",
    "personal_frequency": "What the customer buys most",
    "personal_frequency_45d": "What the customer buys most lately",
    "item_knn": "Similar items (item-kNN)",
    "tifu_knn": "Similar customers (TIFU-kNN)",
}
_NOTES = {
    "registry_down": "The registry does not answer; the release that is loaded keeps serving.",
    "release_refused": "The newest release was refused; the old one keeps serving.",
    "no_profiles": "No histories are published yet: every customer is new.",
    "profiles_unreadable": "The newest histories cannot be read; the old ones are used.",
    "decisions_not_stored": "Some decision records could not be stored.",
}

_environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(FOLDER / "templates"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)


def _ago(moment: dt.datetime | None) -> str:
    """How long ago, in words."""
    if moment is None:
        return "never"
    seconds = (dt.datetime.now(dt.UTC) - moment).total_seconds()
    for size, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count != 1 else ''} ago"
    return "just now"


def _when(moment: dt.datetime | None) -> str:
    return "" if moment is None else moment.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M UTC")


def _number(value: float) -> str:
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.4f}"


_environment.filters.update(ago=_ago, when=_when, number=_number)


def render_status(server: Server, customer_id: str, answer: Decision | None, problem: str) -> str:
    """The status page."""
    snapshot = server.profiles.snapshot
    examples = [] if snapshot is None else snapshot.customers[:EXAMPLES].tolist()
    return _environment.get_template("status.html").render(
        **common(server), **_numbers(server), customer_id=customer_id, examples=examples,
        **_answer(server, customer_id, answer, problem),
    )  # fmt: skip


def render_numbers(server: Server) -> str:
    """The part of the status page that changes by itself."""
    return _environment.get_template("_numbers.html").render(**common(server), **_numbers(server))


def render_answer(server: Server, customer_id: str, answer: Decision | None, problem: str) -> str:
    """The answer below the status page's form."""
    context = _answer(server, customer_id, answer, problem)
    return _environment.get_template("_answer.html").render(**context)


def render_docs(server: Server, document: dict[str, Any]) -> str:
    """The interface's documentation."""
    operations = [
        {"method": method.upper(), "path": path, **operation}
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    schemas = [
        {"name": name, "fields": _fields(schema), **schema}
        for name, schema in sorted(document["components"]["schemas"].items())
    ]
    return _environment.get_template("docs.html").render(
        **common(server), operations=operations, schemas=schemas, kinds=KINDS, pretty=_pretty,
        type_of=_type_words, version=document["info"]["version"],
    )  # fmt: skip


def template(name: str) -> jinja2.Template:
    """A template of this package."""
    return _environment.get_template(name)


def common(server: Server) -> dict[str, Any]:
    """What every page shows."""
    links = [
        {"url": url, "title": title, "about": about}
        for name, (title, about) in _LINK_TITLES.items()
        if (url := server.options.links.get(name))
    ]
    return {"title": server.options.title, "simulated": server.options.simulated, "links": links}


def _numbers(server: Server) -> dict[str, Any]:
    current = server.holder.current
    metrics = {} if current is None else current.manifest.metrics
    readiness = server.readiness()
    return {
        "holder": server.holder,
        "current": current,
        "quality": _quality(metrics),
        "interval": _interval(metrics),
        "all_metrics": sorted(metrics.items()),
        "readiness": readiness,
        "notes": [_NOTES[note] for note in readiness.notes],
        "intake": server.intake,
        "pending": server.pending_events(),
        "snapshot": server.profiles.snapshot,
        "recent": server.decisions.recent(RECENT),
        "started_at": server.started_at,
        "now_us": server.clock.now_us(),
        "clock": server.clock,
    }


def _quality(metrics: dict[str, float]) -> list[dict[str, Any]]:
    """The release beside every baseline, best first, with bars relative to the best of all."""
    if _HEADLINE not in metrics:
        return []
    baselines = {
        _BASELINE_TITLES.get(found["name"], found["name"].replace("_", " ")): value
        for key, value in metrics.items()
        if (found := _BASELINE.fullmatch(key))
    }
    if not baselines and "best_baseline_ndcg_at_10" in metrics:
        baselines = {"Best simple baseline": metrics["best_baseline_ndcg_at_10"]}
    bars = [("This release", metrics[_HEADLINE])]
    bars += sorted(baselines.items(), key=lambda bar: -bar[1])
    top = max(value for _, value in bars)
    return [
        {"label": label, "value": value, "width": round(100 * value / top, 1) if top > 0 else 0.0}
        for label, value in bars
    ]


def _interval(metrics: dict[str, float]) -> str:
    """The headline's confidence interval in words, where it is known."""
    low, high = (metrics.get(f"{_HEADLINE}_ci_{side}") for side in ("low", "high"))
    return "" if low is None or high is None else f"95 % interval {low:.4f} to {high:.4f}"


def _answer(server: Server, customer_id: str, answer: Decision | None, problem: str) -> dict[str, Any]:
    return {"answer": answer, "problem": problem, "asked": customer_id}


def _fields(schema: dict[str, Any]) -> list[dict[str, Any]]:
    required = set(schema.get("required", ()))
    return [
        {
            "name": name,
            "type": _type_words(field),
            "required": name in required,
            "default": "" if "default" not in field else json.dumps(field["default"]),
            "about": field.get("description", ""),
        }
        for name, field in schema.get("properties", {}).items()
    ]


def _type_words(schema: dict[str, Any]) -> str:
    """A JSON schema in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(_type_words(option) for option in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(str(value) for value in schema["enum"])
    kind = str(schema.get("type", "anything"))
    if kind == "array":
        items = schema.get("items")
        return f"list of {_type_words(items)}" if isinstance(items, dict) and items else "list"
    bounds = [
        f"{sign} {schema[key]:g}" for key, sign in (("minimum", "≥"), ("maximum", "≤")) if key in schema
    ]
    if "maxLength" in schema:
        bounds.append(f"up to {schema['maxLength']} characters")
    if schema.get("format"):
        bounds.append(str(schema["format"]))
    return f"{kind} ({', '.join(bounds)})" if bounds else kind


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
