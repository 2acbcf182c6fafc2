# SPDX-License-Identifier: Apache-2.0
"""Findings from records: what makes a row, what a row says, ids, alerts, what is hidden, bounds."""

import json

import pytest
from cpex_tool_firewall.feed import Alert, Feed, Finding, Wanted, visible
from made_records import HOUR, KEY, NOON, OTHER_SESSION, SESSION, TOKEN, call, control, outcome, reason

DAY = 24 * HOUR


def fold(*records: dict, wanted: Wanted | None = None, **more: int) -> Feed:
    feed = Feed(KEY, wanted, **more)
    for record in records:
        feed.add(record)
    return feed


def findings(*records: dict, now: float = NOON + HOUR, **more: bool) -> list[Finding]:
    return fold(*records).findings(now, **more)


def one(*records: dict, now: float = NOON + HOUR, **more: bool) -> Finding:
    (found,) = findings(*records, now=now, **more)
    return found


def test_ordinary_calls_and_endings_make_no_finding() -> None:
    ordinary = call()
    assert findings(ordinary, outcome(ordinary)) == []


def test_an_audit_a_denial_and_a_late_finding_each_make_one() -> None:
    late = call(tool="summarize")
    found = findings(
        call("off_hours", risk=0.4),
        call("novelty", tool="delete_records", blocked=True),
        late,
        outcome(late, "cost"),
    )
    assert {(row.signal, row.tool, row.decision) for row in found} == {
        ("off_hours", "export", "audit"),
        ("novelty", "delete_records", "deny"),
        ("cost", "summarize", "deny"),
    }


def test_a_record_without_the_newer_fields_is_read_with_defaults() -> None:
    row = one(call("burst"))
    assert row.destinations == ()
    assert row.snoozed is False
    assert row.z_score is None
    bare = {"kind": "outcome", "ts": NOON, "worker": 1, "seq": 1, "outcome": "ok"}
    assert findings(bare) == []


def test_calls_of_one_incident_are_one_row() -> None:
    row = one(
        call("burst", "frequency", ts=NOON + 60, risk=0.5),
        call({**reason("burst"), "value": 40.0}, ts=NOON + 90, risk=0.7, blocked=True, mode="block"),
        call("burst", "frequency", ts=NOON + 120, risk=0.45),
    )
    assert (row.count, row.blocked, row.verdicts) == (3, 1, {"deny": 2, "audit": 1})
    assert (row.first_seen, row.last_seen, row.hour) == (NOON + 60, NOON + 120, NOON)
    assert (row.risk, row.value, row.baseline) == (0.7, 40.0, 2.0)
    assert (row.signal, row.other_signals, row.decision) == ("burst", ("frequency",), "deny")
    assert row.mode == "warn"
    assert len(row.incidents) == 3


@pytest.mark.parametrize(
    "other",
    [
        call("frequency"),
        call("burst", tenant="t2"),
        call("burst", tool="db_query"),
        call("burst", user="bob"),
        call("burst", ts=NOON + HOUR),
        call("burst", ts=NOON - 1),
    ],
)
def test_another_signal_tenant_tool_user_or_hour_is_another_row(other: dict) -> None:
    found = findings(call("burst"), other)
    assert len(found) == 2
    assert len({row.uid for row in found}) == 2


def test_names_that_run_together_are_told_apart() -> None:
    found = findings(call("burst", tool="a", user="bc"), call("burst", tool="ab", user="c"))
    assert len({row.uid for row in found}) == len({row.id for row in found}) == 2


def test_a_call_is_filed_under_its_strongest_reason() -> None:
    row = one(call("novel_path", "novelty", "off_hours"))
    assert row.signal == "novel_path"
    assert row.other_signals == ("novelty", "off_hours")
    assert row.explanation == "novel_path was 7 where 2 is usual."


def test_arguments_that_could_not_be_inspected_are_a_signal() -> None:
    row = one(call(risk=0.2, decision="deny", uninspectable="depth"))
    assert row.signal == "uninspectable"
    assert row.explanation == "the arguments are nested too deeply to be inspected."
    assert row.suggested_action == "review"


def test_uids_are_stable_opaque_and_of_this_installation() -> None:
    first, again = one(call("burst")), one(call("burst", ts=NOON + 700))
    assert first.uid == again.uid
    assert first.uid.startswith("f-") and len(first.uid) == 18
    feed = Feed(bytes(32))
    feed.add(call("burst"))
    assert feed.findings(NOON)[0].uid != first.uid


def test_the_id_stays_the_same_from_hour_to_hour() -> None:
    first, second = findings(call("off_hours"), call("off_hours", ts=NOON + HOUR))
    assert first.uid != second.uid
    assert first.id == second.id != ""


@pytest.mark.parametrize("signal", ["rate_spike", "burn_spike"])
def test_a_spike_is_the_tools_whoever_calls_it_and_has_no_id(signal: str) -> None:
    row = one(call(signal), call(signal, user="bob", session=OTHER_SESSION), call(signal, user="bob"))
    assert (row.id, row.user, row.users, row.sessions, row.count) == ("", "", 2, 2, 3)
    assert row.principal == ""
    assert one(call(signal)).user == "alice"


def test_a_spike_carries_baseline_and_z_score() -> None:
    row = one(call(reason("rate_spike", 90.0, 9.0)))
    assert (row.baseline, row.z_score) == (9.0, 27.0)
    assert one(call(reason("rate_spike", 90.0, 9.0, z_score=5.5))).z_score == 5.5
    assert one(call(reason("rate_spike", 50.0, 0.0))).z_score == 50.0


def test_two_loops_on_one_tool_stay_apart_and_have_no_z_score() -> None:
    loops = [
        call("retry_loop", loop="01" * 8),
        call("retry_loop", loop="02" * 8),
        call("retry_loop", loop="01" * 8, session=OTHER_SESSION),
    ]
    found = findings(*loops, call("retry_loop", loop="01" * 8, ts=NOON + 10))
    assert len(found) == 3
    assert len({row.id for row in found}) == len({row.uid for row in found}) == 3
    assert all(row.z_score == 0 for row in found)
    assert sorted(row.count for row in found) == [1, 1, 2]
    later = one(call("retry_loop", loop="01" * 8, ts=NOON + HOUR))
    assert later.id in {row.id for row in found}
    assert not any("01" * 8 in json.dumps(row.as_json()) for row in found)


def test_the_digest_of_the_arguments_tells_loops_apart_where_there_is_no_loop() -> None:
    found = findings(call("retry_loop", arguments="01" * 8), call("retry_loop", arguments="02" * 8))
    assert len(found) == 2
    assert one(call("retry_loop"), call("retry_loop")).count == 2


def test_a_call_and_its_ending_are_one_call() -> None:
    made = call("novelty", risk=0.4)
    row = one(made, outcome(made, "novelty", "cost"))
    assert (row.count, row.risk, row.decision, row.verdicts) == (1, 0.6, "deny", {"deny": 1})
    assert row.other_signals == ("cost",)


def test_an_ending_in_the_next_hour_belongs_to_its_call() -> None:
    made = call("novelty", ts=NOON + HOUR - 1)
    row = one(made, outcome(made, "novelty", ts=NOON + HOUR + 5))
    assert (row.count, row.hour, row.last_seen) == (1, NOON, NOON + HOUR + 5)


def test_the_ending_of_a_call_of_a_loop_belongs_to_that_loop() -> None:
    made = call("retry_loop", arguments="01" * 8)
    row = one(made, outcome(made, "retry_loop"))
    assert (row.count, row.risk) == (1, 0.6)


def test_an_ending_that_tells_something_else_is_a_row_of_its_own() -> None:
    made = call("novelty")
    first, second = findings(made, outcome(made, "cost"))
    assert {first.signal, second.signal} == {"novelty", "cost"}
    assert first.count == second.count == 1


@pytest.mark.parametrize("late", ["novelty", "cost"])
def test_a_second_copy_of_a_record_changes_nothing(late: str) -> None:
    made = call("novelty", "cost")
    ending = outcome(made, late)
    assert findings(made, ending) == findings(made, made, ending, made, ending)


def test_the_other_signals_count_once_for_a_call() -> None:
    made = call("novelty", "off_hours")
    assert one(made, outcome(made, "novelty", "off_hours"), call("novelty", "cost")).other_signals == (
        "cost",
        "off_hours",
    )


def test_records_of_several_workers_may_come_in_another_order() -> None:
    row = one(call("burst", ts=NOON + 60), call("burst", ts=NOON + 20), call("burst", ts=NOON + 40))
    assert (row.first_seen, row.last_seen) == (NOON + 20, NOON + 60)


@pytest.mark.parametrize(
    ("signal", "risk", "action"),
    [
        ("rate_spike", 0.4, "rate_limit"),
        ("burn_spike", 0.4, "rate_limit"),
        ("burst", 0.9, "rate_limit"),
        ("frequency", 0.5, "rate_limit"),
        ("cost", 0.9, "rate_limit"),
        ("retry_loop", 0.4, "rate_limit"),
        ("novelty", 0.6, "review"),
        ("novelty", 0.7, "block_tool"),
        ("novel_path", 0.9, "review"),
        ("off_hours", 0.9, "review"),
        ("argument_novelty", 0.9, "review"),
        ("identity_novelty", 0.9, "review"),
        ("something_new", 0.9, "review"),
    ],
)
def test_suggested_actions(signal: str, risk: float, action: str) -> None:
    assert one(call(signal, risk=risk)).suggested_action == action


def test_a_new_tool_on_a_new_path_is_to_be_blocked_when_that_is_severe() -> None:
    assert one(call("novel_path", "novelty", risk=0.7)).suggested_action == "block_tool"


def test_one_sentence_with_numbers_for_many_calls() -> None:
    row = one(call("burst", risk=0.5), call(reason("burst", 25.0, 20.0), risk=0.71))
    assert row.explanation == "2 calls; of the riskiest (0.71): burst was 25 where 20 is usual."


def test_tokens_and_sessions_never_come_out_raw() -> None:
    row = one(call("burst", token="eyJhbGciOi.secret", session="alice-laptop"))
    text = json.dumps(row.as_json())
    assert "eyJ" not in text and "laptop" not in text
    assert len(row.token) == len(row.session) == 16
    digests = one(call("burst"))
    assert (digests.token, digests.session) == (TOKEN, SESSION)
    assert one(call("burst", token="")).token == ""


def test_who_may_not_see_users_sees_none() -> None:
    records = [call("novelty"), call("rate_spike", user="bob")]
    hidden = fold(*records).findings(NOON, show_user=False)
    assert not any(
        name in repr(hidden) + json.dumps([row.as_json() for row in hidden]) for name in ("alice", "bob")
    )
    assert [row.uid for row in hidden] == [row.uid for row in fold(*records).findings(NOON)]
    assert len({row.principal for row in hidden}) == 2
    assert all(row.parts == () for row in hidden)
    alerts = fold(*records).alerts(NOON, show_user=False)
    assert len(alerts) == 2
    assert not any(name in repr(alerts) for name in ("alice", "bob"))


def test_json_has_every_field_but_the_parts() -> None:
    made = one(call("argument_novelty", destinations=["evil.example"])).as_json()
    assert json.loads(json.dumps(made)) == made
    assert set(made) == set(Finding.__slots__) - {"parts"}
    assert made["destinations"] == ["evil.example"]
    assert made["tags"] == ["ASI01", "ASI02", "MCP06:2025", "MCP10:2025", "AML.T0086"]


# --- alerts ---


def test_one_alert_for_each_user_session_and_hour() -> None:
    records = [
        call("novelty", tool="delete_records", risk=0.55),
        call("burst", risk=0.7, ts=NOON + 30),
        call("off_hours", risk=0.4, ts=NOON + 60),
        call("burst", risk=0.5, session=OTHER_SESSION),
        call("burst", risk=0.5, user="bob"),
        call("burst", risk=0.5, tenant="t2"),
        call("burst", risk=0.5, ts=NOON + HOUR),
    ]
    alerts = fold(*records).alerts(NOON + 2 * HOUR)
    assert len(alerts) == 5
    assert len({alert.uid for alert in alerts}) == 5
    (first,) = [alert for alert in alerts if alert.count == 3]
    assert (first.tenant, first.user, first.session, first.hour) == ("t1", "alice", SESSION, NOON)
    assert (first.risk, first.signals) == (0.7, ("burst", "novelty", "off_hours"))
    assert first.tools == ("export", "delete_records")
    assert len(first.findings) == 3
    assert first.explanation == "2 calls; of the riskiest (0.70): burst was 7 where 2 is usual."
    assert json.loads(json.dumps(first.as_json())) == first.as_json()


def test_an_alert_keeps_its_uid_when_more_comes() -> None:
    records = [call("novelty"), call("burst", ts=NOON + 60)]
    (first,) = fold(records[0]).alerts(NOON)
    (second,) = fold(*records).alerts(NOON)
    assert first.uid == second.uid
    assert isinstance(second, Alert) and second.count == 2


def test_a_spike_alerts_for_each_of_its_users() -> None:
    alerts = fold(call("rate_spike"), call("rate_spike", user="bob", session=OTHER_SESSION)).alerts(NOON)
    assert sorted((alert.user, alert.count) for alert in alerts) == [("alice", 1), ("bob", 1)]


def test_hidden_findings_alert_nobody_unless_asked() -> None:
    feed = fold(control("snooze", f"{NOON + HOUR:.3f}"), call("novelty", snoozed=True))
    assert feed.alerts(NOON) == []
    assert len(feed.alerts(NOON, hidden=True)) == 1


# --- snoozed, suppressed ---


def test_a_snooze_in_force_hides_and_then_shows_again_what_was_before() -> None:
    records = [call("burst"), control("snooze", f"{NOON + HOUR:.3f}", NOON + 10, tool="export")]
    row = one(*records, now=NOON + 60)
    assert (row.snoozed, row.snoozed_until, row.hidden) == (True, NOON + HOUR, True)
    row = one(*records, now=NOON + HOUR)
    assert (row.snoozed, row.snoozed_until) == (False, None)
    cleared = control("snooze", "", NOON + 20, tool="export")
    assert one(*records, cleared, now=NOON + 60).snoozed is False


def test_what_came_during_a_snooze_stays_hidden() -> None:
    snoozed = control("snooze", f"{NOON + HOUR:.3f}", NOON - 10)
    quiet = call("burst", snoozed=True)
    assert one(snoozed, quiet, now=NOON + DAY).snoozed
    assert not one(snoozed, quiet, call("burst", snoozed=False), now=NOON + DAY).snoozed


def test_the_engine_says_whether_a_call_was_snoozed_and_the_journal_where_it_does_not() -> None:
    snoozed = control("snooze", f"{NOON + HOUR:.3f}", NOON - 10)
    assert one(snoozed, call("burst"), now=NOON + DAY).snoozed
    assert not one(snoozed, call("burst", snoozed=False), now=NOON + DAY).snoozed
    assert not one(snoozed, call("burst", ts=NOON + HOUR + 1), now=NOON + DAY).snoozed


def test_a_suppression_hides_rows_and_taking_it_back_shows_them() -> None:
    before, after = call("off_hours"), call("off_hours", ts=NOON + 60)
    hide = control("suppress", f"off_hours {NOON + DAY:.3f}", NOON + 30, user="alice")
    row = one(before, hide, after, now=NOON + 90)
    assert (row.suppressed, row.suppressed_until, row.snoozed) == (True, NOON + DAY, False)
    back = control("suppress", "off_hours", NOON + 80, user="alice")
    assert not one(before, hide, after, back, now=NOON + 90).suppressed
    assert not one(hide, after, back, now=NOON + 90).suppressed


def test_a_suppression_hides_only_its_signal_and_scope() -> None:
    hide = control("suppress", f"off_hours {NOON + DAY:.3f}", user="alice")
    rows = findings(hide, call("off_hours"), call("off_hours", user="bob"), call("novelty"), now=NOON + 60)
    assert {(row.signal, row.user): row.suppressed for row in rows} == {
        ("off_hours", "alice"): True,
        ("off_hours", "bob"): False,
        ("novelty", "alice"): False,
    }
    assert len(list(visible(rows))) == 2
    assert len(list(visible(rows, everything=True))) == 3


def test_taking_a_suppression_back_leaves_what_others_hid() -> None:
    bobs = control("suppress", f"off_hours {NOON + 60:.3f}", user="bob")
    alices = control("suppress", f"off_hours {NOON + DAY:.3f}", user="alice")
    back = control("suppress", "off_hours", NOON + 90, user="alice")
    records = [bobs, alices, call("off_hours", user="bob"), call("off_hours"), back]
    assert {row.user: row.suppressed for row in findings(*records)} == {"bob": True, "alice": False}


def test_when_a_suppression_ran_out_what_it_hid_stays_hidden_and_the_rest_comes_back() -> None:
    hide = control("suppress", f"off_hours {NOON + DAY:.3f}", NOON + 30)
    assert one(hide, call("off_hours", ts=NOON + 60), now=NOON + 2 * DAY).suppressed
    assert not one(call("off_hours"), hide, now=NOON + 2 * DAY).suppressed


# --- selection, following, bounds ---


def test_only_what_is_wanted() -> None:
    records = [
        call("burst", ts=NOON - DAY),
        call("burst"),
        call("novelty"),
        call("burst", user="bob"),
        call("burst", tenant="t2"),
        call("burst", tool="db_query"),
    ]

    def count(**wanted: object) -> int:
        return sum(row.count for row in fold(*records, wanted=Wanted(**wanted)).findings(NOON))  # type: ignore[arg-type]

    assert count() == 6
    assert count(since=NOON) == 5
    assert count(until=NOON) == 1
    assert count(signal="novelty") == 1
    assert count(user="bob") == 1
    assert count(tenant="t2") == 1
    assert count(tool="db_query") == 1
    uid = fold(records[1]).findings(NOON)[0].uid
    assert count(uid=uid[:8]) == 1


def test_controls_count_whatever_is_wanted() -> None:
    hide = control("suppress", f"burst {NOON + DAY:.3f}", NOON - DAY)
    (row,) = fold(hide, call("burst"), wanted=Wanted(since=NOON)).findings(NOON)
    assert row.suppressed


def test_changed_tells_new_rows_and_higher_bands_once() -> None:
    feed = fold(call("burst", risk=0.4), call("novelty"))
    assert [row.signal for row in feed.changed(NOON)] == ["burst", "novelty"]
    assert feed.changed(NOON) == []
    feed.add(call("burst", risk=0.45))
    assert feed.changed(NOON) == []
    feed.add(call("burst", risk=0.55))
    assert [(row.signal, row.count) for row in feed.changed(NOON)] == [("burst", 3)]


def test_the_latest_is_last() -> None:
    rows = findings(call("burst", ts=NOON + 60), call("novelty", ts=NOON), call("off_hours", ts=NOON + 90))
    assert [row.signal for row in rows] == ["novelty", "burst", "off_hours"]


def test_rows_are_bounded_and_the_longest_quiet_goes_first() -> None:
    feed = fold(*(call("burst", user=f"u{n}", ts=NOON + n) for n in range(3)), most_rows=3)
    feed.add(call("burst", user="u0", ts=NOON + 10))
    feed.add(call("burst", user="u9", ts=NOON + 11))
    assert feed.dropped == 1
    assert [row.user for row in feed.findings(NOON)] == ["u2", "u0", "u9"]
    assert len(feed.changed(NOON)) == 3


def test_one_row_is_bounded() -> None:
    many = [
        call("rate_spike", user=f"u{n}", session=f"{n:016x}", destinations=[f"h{n}.example"])
        for n in range(400)
    ]
    row = one(*many)
    assert (row.count, row.users, row.sessions) == (400, 256, 256)
    assert len(row.incidents) == 32
    assert len(row.destinations) == 16


def test_calls_waiting_for_their_ending_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cpex_tool_firewall.feed._MOST_CALLS", 10)
    feed = fold(*(call("burst") for _ in range(50)))
    assert len(feed._filed) == 10
    assert feed.findings(NOON)[0].count == 50


def test_names_with_lone_surrogates_are_taken() -> None:
    row = one(call("burst", user="\ud800", tool="\udfff"))
    assert (row.user, row.tool) == ("\ud800", "\udfff")


def test_add_says_which_finding_a_record_belongs_to() -> None:
    feed = Feed(KEY)
    uid = feed.add(call("burst"))
    assert uid == feed.findings(NOON)[0].uid
    assert feed.add(call()) is None
    assert feed.add(control("mode", "block")) is None
