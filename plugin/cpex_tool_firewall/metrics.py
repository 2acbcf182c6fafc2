# SPDX-License-Identifier: Apache-2.0
"""What Prometheus sees: calls, verdicts, risk and alarms of this process, at the gateway's metrics page.

The engine counts anyway; a collector reads its counts when the page is asked for, so that a call pays
nothing. There is one collector per process, however often the gateway rebuilds its plugin instances. Every
sample carries the label `worker` (the process id), because each worker of a gateway has counts and a metrics
page of its own.

With PROMETHEUS_MULTIPROC_DIR the gateway's page shows only values that prometheus_client keeps in files, and
so none of these; `tool-firewall status` adds the workers up in any case.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from .alarms import Alarms

if TYPE_CHECKING:
    from .runtime import Runtime

_registering = threading.Lock()
_registered: weakref.WeakSet[CollectorRegistry] = weakref.WeakSet()


class FirewallCollector(Collector):
    """Reads the engines of this process when Prometheus asks."""

    def __init__(
        self,
        runtimes: Callable[[], Iterable[Runtime]],
        alarms: Alarms,
        events: Callable[[], dict[str, int]],
    ) -> None:
        self._runtimes = runtimes
        self._alarms = alarms
        self._events = events

    def describe(self) -> Iterator[Metric]:
        """The names this collector will give; asking for them reads no engine."""
        yield from self._families().values()

    def collect(self) -> Iterator[Metric]:
        """All samples of this process."""
        worker = str(os.getpid())
        families = self._families()
        up = 0
        for runtime in self._runtimes():
            up = 1
            measured = runtime.engine.metrics()
            for (decision, mode), count in sorted(measured["verdicts"].items()):
                families["calls"].add_metric([worker, decision, mode], count)
            buckets = [(_bound(le), count) for le, count in measured["risk_buckets"]]
            families["risk"].add_metric([worker], buckets=buckets, sum_value=measured["risk_sum"])
            for event, count in sorted(runtime.engine.counters().items()):
                families["events"].add_metric([worker, event], count)
        for event, count in sorted(self._events().items()):
            families["events"].add_metric([worker, event], count)
        for cause, count in sorted(self._alarms.counts().items()):
            families["alarms"].add_metric([worker, cause], count)
        families["up"].add_metric([worker], up)
        families["active"].add_metric([worker], len(self._alarms.active()))
        yield from families.values()

    @staticmethod
    def _families() -> dict[str, Any]:
        return {
            "calls": CounterMetricFamily(
                "tool_firewall_calls",
                "Tool calls by decision and mode.",
                labels=["worker", "decision", "mode"],
            ),
            "risk": HistogramMetricFamily(
                "tool_firewall_risk", "Risk of tool calls, 0 to 1, as decided on.", labels=["worker"]
            ),
            "events": CounterMetricFamily(
                "tool_firewall_events",
                "What happened besides: bounds reached, records dropped, errors.",
                labels=["worker", "event"],
            ),
            "alarms": CounterMetricFamily(
                "tool_firewall_alarms", "How often each alarm was raised.", labels=["worker", "cause"]
            ),
            "active": GaugeMetricFamily(
                "tool_firewall_alarms_active", "Alarms on right now.", labels=["worker"]
            ),
            "up": GaugeMetricFamily(
                "tool_firewall_up",
                "1 when this worker screens calls, 0 when it cannot.",
                labels=["worker"],
            ),
        }


def register(
    runtimes: Callable[[], Iterable[Runtime]],
    alarms: Alarms,
    events: Callable[[], dict[str, int]],
    registry: CollectorRegistry = REGISTRY,
) -> None:
    """Adds the collector to `registry`, once per process."""
    with _registering:
        if registry not in _registered:
            registry.register(FirewallCollector(runtimes, alarms, events))
            _registered.add(registry)


def _bound(upper: float | str) -> str:
    return "+Inf" if upper in ("+Inf", float("inf")) else f"{float(upper):g}"
