# SPDX-License-Identifier: Apache-2.0
"""Snoozes and suppressions from records: scopes, ends, the bound on a chain of snoozes, damaged values."""

import pytest
from cpex_tool_firewall.silences import SNOOZE_SECONDS, SUPPRESS_SECONDS, Scope, Silences, snoozed_until
from made_records import HOUR, NOON, control

DAY = 24 * HOUR


def silences(*records: dict) -> Silences:
    made = Silences()
    for record in records:
        made.add(record)
    return made


def snooze(until: float, ts: float = NOON, **scope: str) -> dict:
    return control("snooze", f"{until:.3f}", ts, **scope)


def test_a_snooze_holds_for_its_scope_until_its_end() -> None:
    made = silences(snooze(NOON + HOUR, tool="export"))
    assert made.snoozed("t1", "export", "alice", NOON) == NOON + HOUR
    assert made.snoozed("t2", "export", "bob", NOON + HOUR - 1) == NOON + HOUR
    assert made.snoozed("t1", "export", "alice", NOON + HOUR) == 0
    assert made.snoozed("t1", "export", "alice", NOON - 1) == 0
    assert made.snoozed("t1", "db_query", "alice", NOON) == 0


@pytest.mark.parametrize(
    "scope",
    [{}, {"tenant": "t1"}, {"tool": "export"}, {"user": "alice"}, {"tenant": "t1", "user": "alice"}],
)
def test_every_wider_scope_covers_a_call(scope: dict[str, str]) -> None:
    made = silences(snooze(NOON + HOUR, **scope))
    assert made.snoozed("t1", "export", "alice", NOON) > 0
    other = made.snoozed("t2", "db_query", "bob", NOON) > 0
    assert other == (not scope)


def test_the_longest_of_several_snoozes_counts() -> None:
    made = silences(snooze(NOON + HOUR, tool="export"), snooze(NOON + 2 * HOUR, user="alice"))
    assert made.snoozed("t1", "export", "alice", NOON) == NOON + 2 * HOUR


@pytest.mark.parametrize("value", ["", f"{NOON:.3f}", f"{NOON - DAY:.3f}"])
def test_nothing_a_past_time_and_a_present_time_clear(value: str) -> None:
    made = silences(snooze(NOON + HOUR), control("snooze", value))
    assert made.snoozed("t1", "export", "alice", NOON) == 0
    assert made.snooze(Scope()) is None


def test_a_later_end_is_brought_forward_to_seven_days() -> None:
    made = silences(snooze(NOON + 30 * DAY))
    assert made.snoozed("t1", "export", "alice", NOON) == NOON + SNOOZE_SECONDS


def test_extending_counts_from_the_first_of_the_chain() -> None:
    made = silences(
        snooze(NOON + 5 * DAY),
        snooze(NOON + 9 * DAY, NOON + 4 * DAY),
        snooze(NOON + 13 * DAY, NOON + 6 * DAY),
    )
    assert made.snoozed("t1", "export", "alice", NOON + 6 * DAY) == NOON + 7 * DAY
    assert made.snoozed("t1", "export", "alice", NOON + 7 * DAY) == 0


@pytest.mark.parametrize("ended", ["cleared", "ran out"])
def test_after_a_break_the_seven_days_begin_anew(ended: str) -> None:
    first = [snooze(NOON + 2 * DAY)]
    if ended == "cleared":
        first.append(control("snooze", "", NOON + DAY))
    made = silences(*first, snooze(NOON + 40 * DAY, NOON + 2 * DAY))
    assert made.snoozed("t1", "export", "alice", NOON + 3 * DAY) == NOON + 9 * DAY


def test_chains_of_different_scopes_are_their_own() -> None:
    made = silences(
        snooze(NOON + 6 * DAY, tool="export"), snooze(NOON + 30 * DAY, NOON + 5 * DAY, user="alice")
    )
    assert made.snoozed("t1", "export", "alice", NOON + 5 * DAY) == NOON + 12 * DAY


def test_the_bound_is_the_same_when_it_is_asked_for() -> None:
    current = silences(snooze(NOON + 5 * DAY)).snooze(Scope())
    assert snoozed_until(NOON + 20 * DAY, NOON + DAY, current) == (NOON, NOON + 7 * DAY)
    assert snoozed_until(NOON + 20 * DAY, NOON + 6 * DAY, current) == (NOON + 6 * DAY, NOON + 13 * DAY)
    assert snoozed_until(NOON + HOUR, NOON, None) == (NOON, NOON + HOUR)


def test_a_suppression_is_of_one_signal_or_of_all() -> None:
    until = NOON + DAY
    made = silences(
        control("suppress", f"off_hours {until:.3f}", user="alice"),
        control("suppress", f"* {until:.3f}", tool="db_query"),
    )
    assert made.suppressed("off_hours", "t1", "export", "alice", NOON) == until
    assert made.suppressed("novelty", "t1", "export", "alice", NOON) == 0
    assert made.suppressed("off_hours", "t1", "export", "bob", NOON) == 0
    assert made.suppressed("burst", "t9", "db_query", "bob", NOON) == until
    assert made.suppressed("off_hours", "t1", "export", "alice", until) == 0


@pytest.mark.parametrize("value", ["off_hours", f"off_hours {NOON:.3f}", "off_hours 0"])
def test_a_suppression_is_taken_back(value: str) -> None:
    made = silences(control("suppress", f"off_hours {NOON + DAY:.3f}"), control("suppress", value))
    assert made.suppressed("off_hours", "t1", "export", "alice", NOON) == 0


def test_a_suppression_ends_after_ninety_days_at_the_latest() -> None:
    made = silences(control("suppress", f"off_hours {NOON + 400 * DAY:.3f}"))
    assert made.suppressed("off_hours", "t1", "export", "alice", NOON) == NOON + SUPPRESS_SECONDS


@pytest.mark.parametrize("value", ["soon", "nan", "inf", "-inf", "1e999"])
def test_what_is_no_time_changes_nothing(value: str) -> None:
    made = silences(snooze(NOON + HOUR), control("snooze", value))
    assert made.snoozed("t1", "export", "alice", NOON) == NOON + HOUR
    made = silences(
        control("suppress", f"burst {NOON + HOUR:.3f}"),
        control("suppress", f"burst {value}"),
        control("suppress", ""),
    )
    assert made.suppressed("burst", "t1", "export", "alice", NOON) == NOON + HOUR


def test_other_records_are_ignored() -> None:
    made = silences(control("mode", "block"), control("accept", "i-" + "0" * 16, user="alice"))
    assert made.snoozed("t1", "export", "alice", NOON) == 0


def test_what_is_in_force_is_listed_the_most_general_first() -> None:
    made = silences(
        snooze(NOON + HOUR, tool="export"),
        snooze(NOON + HOUR),
        snooze(NOON + HOUR, tool="export", user="alice"),
        snooze(NOON + HOUR, tenant="t1"),
        snooze(NOON + 10, NOON, user="gone"),
        control("suppress", f"burst {NOON + HOUR:.3f}", user="alice"),
    )
    listed = list(made.snoozes(NOON + 60))
    assert [scope for scope, _ in listed] == [
        Scope(),
        Scope(tool="export"),
        Scope("t1"),
        Scope(tool="export", user="alice"),
    ]
    assert (listed[0][1].by, listed[0][1].why) == ("root", "because")
    assert [(scope.user, signal) for scope, signal, _ in made.suppressions(NOON + 60)] == [("alice", "burst")]
