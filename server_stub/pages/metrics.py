# SPDX-License-Identifier: Apache-2.0
"""Figures for monitors, in the text format of Prometheus.

What is in the database counts over restarts and is the same from every server on it. Bytes, waiting devices
and closing times are those of one process.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from edgefl._version import __version__
from edgefl.server_stub.pages.figures import Figures, Snapshot
from edgefl.server_stub.values import Closing

KIND = CONTENT_TYPE_LATEST
_SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


class Metrics(Collector):
    """The figures of one server. `closed` is to be told of the rounds it closes."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures
        self._registry = CollectorRegistry()
        self._closing = Histogram(
            "edgefl_round_closing_seconds",
            "Seconds from a full round to its version, of rounds this process closed",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def closed(self, closing: Closing) -> None:
        """Note a round that was closed."""
        self._closing.observe(closing.seconds)

    def text(self) -> bytes:
        """All figures as they are now."""
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        """Nothing ahead of time: names are asked for before there is a server."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The figures that are read, not counted here."""
        now = self._figures.snapshot()
        yield _about(now)
        yield from _gauges(now)
        yield from _counters(now)


def _about(now: Snapshot) -> Metric:
    status = now.status
    labels = {
        "model": status.model,
        "schema": status.schema,
        "federation": status.federation,
        "release": __version__,
    }
    made = GaugeMetricFamily("edgefl_server_info", "What is served", labels=list(labels))
    made.add_metric(list(labels.values()), 1)
    return made


def _gauges(now: Snapshot) -> Iterator[Metric]:
    status, current = now.status, now.current
    last = next((info.loss for info in reversed(now.closed) if info.loss is not None), None)
    yield GaugeMetricFamily("edgefl_version", "Newest version of the parameters", status.version)
    yield GaugeMetricFamily("edgefl_rounds_planned", "Rounds the server is to run", status.rounds_total)
    yield GaugeMetricFamily("edgefl_devices", "Devices that ever checked in", status.devices)
    yield GaugeMetricFamily("edgefl_devices_waiting", "Devices held until there is work", now.waiting)
    if last is not None:
        yield GaugeMetricFamily("edgefl_training_loss", "Mean loss the devices of the last round told", last)
    if now.measured:
        newest = now.measured[-1]
        about = "on examples held out, of the newest version measured"
        yield GaugeMetricFamily("edgefl_evaluated_version", "Newest version measured", newest.version)
        yield GaugeMetricFamily("edgefl_evaluation_loss", f"Mean loss {about}", newest.loss)
        if newest.accuracy is not None:
            yield GaugeMetricFamily("edgefl_evaluation_accuracy", f"Accuracy {about}", newest.accuracy)
    if current is not None:
        yield GaugeMetricFamily("edgefl_round", "Number of the current round", current.round)
        yield GaugeMetricFamily("edgefl_round_goal", "Updates that fill the current round", current.goal)
        yield GaugeMetricFamily("edgefl_round_updates", "Updates the current round has", current.updates)
        yield GaugeMetricFamily("edgefl_round_places", "Places given in the current round", current.assigned)
        left = max(0.0, current.deadline - now.at)
        yield GaugeMetricFamily("edgefl_round_deadline_seconds", "Until the deadline", left)


def _counters(now: Snapshot) -> Iterator[Metric]:
    rounds = now.rounds
    yield CounterMetricFamily("edgefl_rounds_closed", "Rounds closed", now.status.rounds_done)
    yield CounterMetricFamily(
        "edgefl_updates_accepted", "Updates accepted", sum(info.updates for info in rounds)
    )
    yield CounterMetricFamily(
        "edgefl_updates_bounded",
        "Accepted updates that were shortened or set aside",
        sum(info.bounded for info in rounds),
    )
    yield CounterMetricFamily(
        "edgefl_places_given", "Places given to devices", sum(info.assigned for info in rounds)
    )
    yield CounterMetricFamily(
        "edgefl_places_declined", "Places given back", sum(info.declined for info in rounds)
    )
    yield CounterMetricFamily(
        "edgefl_deadlines_put_off", "Deadlines put off", sum(info.extensions for info in rounds)
    )
    refused = CounterMetricFamily("edgefl_updates_refused", "Updates refused", labels=["reason"])
    for reason, count in sorted(now.refusals().items()):
        refused.add_metric([reason], count)
    yield refused
    crossed = CounterMetricFamily(
        "edgefl_http_bytes", "Bytes of requests and answers, headers included", labels=["direction"]
    )
    crossed.add_metric(["received"], now.traffic.up)
    crossed.add_metric(["sent"], now.traffic.down)
    yield crossed
