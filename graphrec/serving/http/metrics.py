"""Metrics for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from graphrec.serving.served_bundle import ServedBundle

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.08, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
USERS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The metrics of a server; no label holds an id."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self.request_seconds = Histogram(
            "graphrec_request_seconds",
            "Seconds from the head of a request to the end of its response.",
            ("route", "method", "status"),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.batch_users = Histogram(
            "graphrec_batch_users", "Users answered together.", buckets=USERS, registry=self.registry
        )
        self.batch_seconds = Histogram(
            "graphrec_batch_seconds", "Seconds of a batch.", buckets=SECONDS, registry=self.registry
        )
        self.refusals = Counter(
            "graphrec_refusals",
            "Requests refused, by the code of the error.",
            ("code",),
            registry=self.registry,
        )
        self.events = Counter("graphrec_accepted_events", "Events on the disk.", registry=self.registry)
        self.feedback = Counter(
            "graphrec_accepted_feedback",
            "Entries of feedback on the disk.",
            ("kind",),
            registry=self.registry,
        )

    def on_batch(self, users: int, seconds: float) -> None:
        """Count a batch of the engine."""
        self.batch_users.observe(users)
        self.batch_seconds.observe(seconds)

    def watch(self, served: ServedBundle) -> None:
        """Report the state of a served bundle too."""
        self.registry.register(_State(served))

    def text(self) -> bytes:
        """All metrics, in Prometheus' text format."""
        return generate_latest(self.registry)


class _State(Collector):
    """What is read from a served bundle when it is asked for."""

    def __init__(self, served: ServedBundle) -> None:
        self._served = served

    def describe(self) -> Iterable[Metric]:
        """Names are not needed in advance."""
        return []

    def collect(self) -> Iterable[Metric]:
        """The metrics now."""
        served, live = self._served, self._served.engine.live
        committer, graph = served.committer, live.bundle.graph
        for name, text, value in (
            ("waiting_requests", "Requests that wait to be answered.", served.engine.num_waiting),
            ("waiting_writes", "Writes that wait to be made.", committer.num_waiting),
            ("write_lag_seconds", "Age of the oldest write not yet taken in.", served.engine.lag_seconds),
            ("log_bytes", "Size of the log of writes.", committer.num_bytes),
            ("log_position", "Records ever written.", committer.position),
            ("applied_position", "Records taken in by the bundle in service.", live.position),
            ("saved_position", "Records in the bundle on the disk.", served.saved_position),
            ("last_event_time_seconds", "Time of the last event.", live.last_time),
            ("users", "Users of the bundle.", graph.num_users),
            ("events", "Events of the bundle.", graph.num_events),
            ("resting_pairs", "Dismissed suggestions that rest.", live.num_resting),
            ("idempotency_keys", "Keys that are remembered.", committer.num_keys),
        ):
            yield GaugeMetricFamily(f"graphrec_{name}", text, float(value))
        for name, text, count in (
            ("applied_events", "Events taken in since the start.", live.num_events_applied),
            ("late_events", "Of these, older than the last; they count from its time.", live.num_events_late),
            ("left_events", "Events without a place in the bundle.", live.num_events_left),
            ("flushes", "Flushes of the log.", committer.num_flushes),
            ("saves", "Times that writes were saved in the bundle.", served.num_saves),
            ("failed_saves", "Times that they could not be.", served.num_failed_saves),
            ("reloads", "Versions taken over.", served.num_reloads),
            ("failed_reloads", "Versions that could not be.", served.num_failed_reloads),
        ):
            yield CounterMetricFamily(f"graphrec_{name}", text, float(count))
