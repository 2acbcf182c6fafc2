# SPDX-License-Identifier: Apache-2.0
"""What Prometheus sees, and that it is registered once however often the gateway rebuilds its instances."""

import os
from types import SimpleNamespace
from typing import Any

import pytest
from cpex_tool_firewall import alarms as alarms_module
from cpex_tool_firewall.alarms import Alarms
from cpex_tool_firewall.metrics import FirewallCollector, register
from prometheus_client import CollectorRegistry, generate_latest


class CountingEngine:
    """Stands for the engine's counts."""

    def metrics(self) -> dict[str, Any]:
        return {
            "verdicts": {("allow", "learning"): 7, ("deny", "block"): 2},
            "risk_buckets": [(0.1, 5), (0.5, 7), (float("inf"), 9)],
            "risk_sum": 2.5,
        }

    def counters(self) -> dict[str, int]:
        return {"unpaired": 3}


def page(collector: FirewallCollector) -> str:
    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry).decode()


def test_calls_verdicts_and_risk_are_shown() -> None:
    alarms = Alarms()
    alarms.report("journal-write", "the disk is full")
    alarms.report("journal-write", "the disk is full")
    runtime: Any = SimpleNamespace(engine=CountingEngine())
    text = page(FirewallCollector(lambda: [runtime], alarms, lambda: {"post_without_pre": 4}))
    worker = f'worker="{os.getpid()}"'
    for line in (
        f'tool_firewall_calls_total{{decision="allow",mode="learning",{worker}}} 7.0',
        f'tool_firewall_calls_total{{decision="deny",mode="block",{worker}}} 2.0',
        f'tool_firewall_risk_bucket{{le="0.5",{worker}}} 7.0',
        f'tool_firewall_risk_bucket{{le="+Inf",{worker}}} 9.0',
        f"tool_firewall_risk_count{{{worker}}} 9.0",
        f"tool_firewall_risk_sum{{{worker}}} 2.5",
        f'tool_firewall_events_total{{event="unpaired",{worker}}} 3.0',
        f'tool_firewall_events_total{{event="post_without_pre",{worker}}} 4.0',
        f'tool_firewall_alarms_total{{cause="journal-write",{worker}}} 2.0',
        f"tool_firewall_alarms_active{{{worker}}} 1.0",
        f"tool_firewall_up{{{worker}}} 1.0",
    ):
        assert line in text


def test_a_worker_that_does_not_screen_is_down() -> None:
    text = page(FirewallCollector(list, Alarms(), dict))
    assert f'tool_firewall_up{{worker="{os.getpid()}"}} 0.0' in text


def test_it_is_registered_once() -> None:
    registry = CollectorRegistry()
    for _ in range(3):
        register(list, Alarms(), dict, registry)  # a second collector of the same names would raise
    assert "tool_firewall_up" in generate_latest(registry).decode()


def test_alarms_are_logged_once_and_then_counted(caplog: pytest.LogCaptureFixture) -> None:
    alarms = Alarms()
    for _ in range(5):
        alarms.report("state", "cannot be opened")
    assert len(caplog.records) == 1
    assert alarms.counts() == {"state": 5}
    assert alarms.active() == ["state: cannot be opened"]
    alarms.clear("state")
    alarms.clear("state")
    alarms.clear("never raised")
    assert alarms.active() == []
    assert len(caplog.records) == 2
    alarms.report("state", "again")  # at once again: counted, not logged
    assert len(caplog.records) == 2
    assert alarms.counts() == {"state": 6}


def test_an_alarm_that_nobody_clears_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    alarms = Alarms()
    alarms.report("binding", "wrong", lasts=120)
    assert alarms.active() == ["binding: wrong"]
    later = alarms_module.time.monotonic() + 121
    monkeypatch.setattr(alarms_module.time, "monotonic", lambda: later)
    assert alarms.active() == []
    assert alarms.counts() == {"binding": 1}


def test_an_alarm_that_begins_anew_within_the_minute_is_logged_after_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [1000.0]
    monkeypatch.setattr(alarms_module.time, "monotonic", lambda: now[0])
    alarms = Alarms()
    alarms.report("override", "one")
    alarms.clear("override")
    said = len(caplog.records)
    for now[0] in range(1005, 1060, 5):
        alarms.report("override", "two")
    assert len(caplog.records) == said
    for now[0] in range(1060, 1200, 5):
        alarms.report("override", "two")
    assert len(caplog.records) == said + 1
    assert "two" in caplog.records[-1].getMessage()
    alarms.clear("override")
    assert "over" in caplog.records[-1].getMessage()


def test_an_alarm_that_comes_and_goes_is_quiet_both_ways(caplog: pytest.LogCaptureFixture) -> None:
    alarms = Alarms()
    for _ in range(20):
        alarms.report("journal-write", "locked")
        alarms.clear("journal-write")
    assert len(caplog.records) == 2
    assert alarms.counts() == {"journal-write": 20}
