# SPDX-License-Identifier: Apache-2.0
"""Two workers: one that hangs is an alarm in the other, and each answers for how the gateway runs it."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import Screened
from cpex_tool_firewall.journal.interface import HEARTBEAT_SECONDS
from gateway_lab.firewall import NAME
from gateway_lab.metrics import samples

SECONDS = 60.0


@pytest.fixture(scope="module")
def pair(start_lab: Callable[..., Screened]) -> Iterator[Screened]:
    started = start_lab(workers=2, server="gunicorn")
    _wait(lambda: len(alive(started)) == 2)
    yield started
    started.lab.stop()


def alive(pair: Screened) -> list[int]:
    """The process ids of the workers that `status` calls alive."""
    return [one["pid"] for one in _alive(pair)]


def alarms(pair: Screened) -> list[str]:
    """The alarm about silent workers, of each worker that is alive and raises it."""
    return [text for one in _alive(pair) for text in one["alarms"] if text.startswith("silent-worker:")]


def _alive(pair: Screened) -> list[dict[str, Any]]:
    return [one for one in _workers(pair) if one["state"] == "alive"]


def _workers(pair: Screened) -> list[dict[str, Any]]:
    shown = pair.firewall.command("status", "--json")
    assert shown.returncode == 0, shown.stderr
    found: list[dict[str, Any]] = json.loads(shown.stdout)["workers"]
    return found


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {SECONDS:g} s"
        time.sleep(0.5)


@pytest.mark.parametrize("which", [0, 1])
def test_a_worker_that_hangs_is_an_alarm_until_it_goes_on(pair: Screened, which: int) -> None:
    """Once each: one of the two is the elected one, so that another has to be elected first."""
    victim = sorted(alive(pair))[which]
    os.kill(victim, signal.SIGSTOP)
    try:
        _wait(lambda: bool(alarms(pair)))
        (text,) = alarms(pair)
        assert f"worker {victim} on" in text
        assert "alarm [silent-worker]" in pair.lab.gateway_log()
        assert samples(pair.lab.prometheus(), "tool_firewall_alarms_total", cause="silent-worker") > 0
    finally:
        os.kill(victim, signal.SIGCONT)
    _wait(lambda: not alarms(pair))
    _wait(lambda: len(alive(pair)) == 2)


def test_a_killed_worker_that_was_replaced_is_missed_no_more(pair: Screened) -> None:
    victim = min(alive(pair))
    os.kill(victim, signal.SIGKILL)
    _wait(lambda: victim not in alive(pair) and len(alive(pair)) == 2)
    _wait(lambda: not alarms(pair))  # on a slow machine its successor may have been missed too
    until = time.monotonic() + 22
    while time.monotonic() < until:
        assert alarms(pair) == []
        time.sleep(1)


def test_an_override_in_one_of_two_workers_is_an_alarm_of_that_one(pair: Screened) -> None:
    """Without Redis a change of mode reaches the worker that answered the request, and no other."""
    pair.lab.administrator.request("PUT", f"/admin/plugins/{NAME}", json={"mode": "disabled"})
    _wait(lambda: any(one["plugin_mode"] == "disabled" for one in _alive(pair)))
    time.sleep(2 * HEARTBEAT_SECONDS)
    told = sorted((one["plugin_mode"], _overridden(one)) for one in _alive(pair))
    assert told == [("disabled", True), ("sequential", False)]


def _overridden(worker: dict[str, Any]) -> bool:
    return any(text.startswith("override:") for text in worker["alarms"])
