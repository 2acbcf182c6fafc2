# SPDX-License-Identifier: Apache-2.0
"""Counting how often a risk was reached, and what the counts allow to say."""

from typing import Any

import pytest
from cpex_tool_firewall.false_alarms import BANDS, FalseAlarms, Share, calls_needed


def call(seq: int, risk: float, **more: Any) -> dict[str, Any]:
    known = {"kind": "call", "ts": 100.0 + seq, "worker": 1, "seq": seq, "tenant": "t1", "risk": risk}
    return {**known, "incident": "tf-1", "snoozed": False, "blocked": False, **more}


def end(seq: int, risk: float, **more: Any) -> dict[str, Any]:
    return {"kind": "outcome", "ts": 200.0 + seq, "worker": 1, "seq": seq, "risk": risk, **more}


def counted(*records: dict[str, Any]) -> FalseAlarms:
    alarms = FalseAlarms()
    for record in records:
        alarms.add(record)
    return alarms


def hits(alarms: FalseAlarms, tenant: str | None = None) -> list[int]:
    return [share.hits for share in alarms.shares(tenant)]


def test_a_call_counts_once_with_the_larger_of_its_risks() -> None:
    alarms = counted(
        call(1, 0.1),
        *(call(2, 1 / 3), end(2, 0.4)),
        *(call(3, 0.1), end(3, 0.7)),
        *(call(4, 0.6, blocked=True), end(4, 0.9)),  # a blocked call has no end
        end(1, 0.1),
        end(99, 0.9),  # of a call before the time looked at
    )
    assert alarms.calls == 4
    assert hits(alarms) == [3, 2, 1]
    assert (alarms.first, alarms.last) == (101.0, 104.0)


def test_tenants_are_told_apart_and_the_busiest_comes_first() -> None:
    alarms = counted(
        call(1, 0.9, tenant="small"), call(2, 0.1, tenant="big"), call(3, 0.1, tenant="big"), end(3, 0.5)
    )
    assert alarms.tenants() == ["big", "small"]
    assert (hits(alarms, "small"), hits(alarms, "big"), hits(alarms)) == ([1, 1, 1], [1, 1, 0], [2, 2, 1])
    assert hits(alarms, "unknown") == [0, 0, 0]


def test_what_does_not_count() -> None:
    alarms = counted(
        call(1, 0.9, snoozed=True),
        end(1, 0.9),
        call(2, 0.0, incident=""),
        end(2, 0.0),
        {"kind": "control"},
        call(3, 0.9),
        call(3, 0.9),  # stored twice after a fault
        call(1, 0.9, worker=2),
    )
    assert (alarms.calls, alarms.snoozed, alarms.history) == (2, 1, 1)
    assert hits(alarms) == [2, 2, 2]


@pytest.mark.parametrize(
    ("share", "low", "high"),
    [
        # Table 1 of Newcombe, Statistics in Medicine 17 (1998), method 3.
        (Share(81, 263), 0.2553, 0.3662),
        (Share(15, 148), 0.0624, 0.1605),
        (Share(0, 20), 0.0, 0.1611),
        (Share(1, 29), 0.0061, 0.1718),
        (Share(0, 0), 0.0, 1.0),
        (Share(7, 7), 0.6457, 1.0),
    ],
)
def test_wilsons_interval(share: Share, low: float, high: float) -> None:
    assert share.interval() == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (Share(10, 1000), "as nominal"),
        (Share(30, 1000), "above"),
        (Share(1, 1000), "below"),
        (Share(0, 100), "too few calls"),
        (Share(6, 100), "above"),
        (Share(0, 0), "too few calls"),
    ],
)
def test_what_an_interval_says(share: Share, said: str) -> None:
    assert share.against(BANDS[0].nominal) == said


def test_how_many_calls_are_needed() -> None:
    assert [calls_needed(band.nominal) for band in BANDS] == [500, 5_000, 50_000]
