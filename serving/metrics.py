"""What the server counts, for Prometheus and for its own status page.

Belongs here: names, help texts and buckets of metrics. Does not belong here: where they are observed.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

_SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 1.0)


class Metrics:
    """The metrics of one server; labels never hold identifiers of people."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.requests = Counter(
            "continuum_http_requests_total",
            "Answers by route and status",
            ("route", "status"),
            registry=registry,
        )
        self.handler_seconds = Histogram(
            "continuum_recommendation_seconds",
            "Recommendation handler, body to answer",
            buckets=_SECONDS,
            registry=registry,
        )
        self.model_seconds = Histogram(
            "continuum_model_seconds",
            "Sum of the ONNX runs of one recommendation",
            buckets=_SECONDS,
            registry=registry,
        )
        graphs = Counter(
            "continuum_graph_seconds_total", "Time in ONNX Runtime by graph", ("graph",), registry=registry
        )
        self.graph_seconds = tuple(graphs.labels(name) for name in ("encoder", "ranker"))
        self.visual_seconds = Histogram(
            "continuum_visual_seconds",
            "Visual answers by kind, request to answer",
            ("surface",),
            buckets=(0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5),
            registry=registry,
        )
        self.visual_steps = Counter(
            "continuum_visual_step_seconds_total",
            "Time of visual answers by step",
            ("step",),
            registry=registry,
        )
        self.answers = Counter(
            "continuum_answers_total", "Recommendations by path", ("path",), registry=registry
        )
        self.fallbacks = Counter(
            "continuum_answer_notes_total", "Stated fallbacks by note", ("note",), registry=registry
        )
        self.events = Counter(
            "continuum_events_total", "Events by outcome: accepted, duplicate, refused", ("outcome",),
            registry=registry,
        )  # fmt: skip
        self.intake_failures = Counter(
            "continuum_intake_failures_total", "Event batches that could not be stored", registry=registry
        )
        self.intake_seconds = Histogram(
            "continuum_intake_seconds", "Event batch, body to durable", buckets=_SECONDS, registry=registry
        )
        self.swaps = Counter("continuum_release_swaps_total", "Releases that went live", registry=registry)
        self.refusals = Counter(
            "continuum_release_refusals_total", "Releases that were refused", registry=registry
        )
        self.registry_up = Gauge(
            "continuum_registry_up", "1 while the release registry answers", registry=registry
        )
        self.release = Info("continuum_release", "What is being served", registry=registry)

    def render(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
