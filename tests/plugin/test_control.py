# SPDX-License-Identifier: Apache-2.0
"""Changes by an operator as records: what is written, that an engine follows, and what is refused."""

import time
from collections.abc import Callable

import pytest
from cpex_tool_firewall._native import Engine, decode_record
from cpex_tool_firewall.control import (
    MODE_ALIASES,
    MODES,
    ControlError,
    accept,
    is_item,
    reject,
    set_mode,
    snooze,
    suppress,
)
from cpex_tool_firewall.journal.interface import Kind, records_since
from cpex_tool_firewall.journal.memory import MemoryJournal
from cpex_tool_firewall.silences import Scope, Silence, Silences, read_silences

NOON, HOUR, DAY = 1_794_830_400.0, 3600.0, 86_400.0
ITEM = "i-0123456789abcdef"


class DurableOnly(MemoryJournal):
    """Fails the test when a control record is appended without waiting for the disk."""

    def append(self, batch, *, durable=False):  # type: ignore[no-untyped-def]
        assert durable
        return super().append(batch, durable=durable)


def follow(journal: MemoryJournal) -> Engine:
    engine = Engine(bytes(32), worker=1)
    engine.apply([entry.body for entry in journal.read_since(0)])
    return engine


def test_the_record_holds_scope_author_and_reason() -> None:
    journal = DurableOnly()
    before = time.time()
    cursor = set_mode(
        journal, "block", tenant="t1", tool="delete_records", user="alice", by="root", why="drill"
    )
    (entry,) = journal.read_since(0)
    assert entry.cursor == cursor == 1
    assert entry.kind == Kind.CONTROL
    (record,) = records_since(journal)
    fields = decode_record(record)
    assert fields["kind"] == "control"
    assert fields["action"] == "mode"
    assert fields["value"] == "block"
    assert {key: fields[key] for key in ("tenant", "tool", "user")} == {
        "tenant": "t1",
        "tool": "delete_records",
        "user": "alice",
    }
    assert (fields["by"], fields["why"]) == ("root", "drill")
    assert before <= fields["ts"] <= time.time()


@pytest.mark.parametrize("value", MODES)
def test_an_engine_follows_every_mode(value: str) -> None:
    journal = DurableOnly()
    set_mode(journal, "block" if value != "block" else "warn", by="root")
    set_mode(journal, value, by="root")
    engine = follow(journal)
    assert engine.mode_in_force(engine.policy(mode="learning")) == value


def test_the_narrowest_scope_holds_and_clearing_gives_way() -> None:
    journal = DurableOnly()
    set_mode(journal, "warn", by="a")
    set_mode(journal, "block", tool="delete_records", by="a")
    set_mode(journal, "learning", user="alice", by="a")
    engine = follow(journal)
    policy = engine.policy(mode="shadow")
    assert engine.mode_in_force(policy, user="bob", tool="db_query") == "warn"
    assert engine.mode_in_force(policy, user="bob", tool="delete_records") == "block"
    assert engine.mode_in_force(policy, user="alice", tool="delete_records") == "learning"
    set_mode(journal, "", user="alice", by="a")
    set_mode(journal, "", by="a")
    engine = follow(journal)
    assert engine.mode_in_force(policy, user="alice", tool="delete_records") == "block"
    assert engine.mode_in_force(policy, user="bob", tool="db_query") == "shadow"


@pytest.mark.parametrize("value", ["Block", "off", "Enforce", " block", "warn\n", "learn"])
def test_a_value_that_is_no_mode_is_refused(value: str) -> None:
    journal = MemoryJournal()
    with pytest.raises(ControlError, match="is not a mode; accepted: learning, warn, shadow, block"):
        set_mode(journal, value, by="root")
    assert journal.last() == 0


def test_a_long_reason_is_refused() -> None:
    journal = MemoryJournal()
    set_mode(journal, "warn", by="root", why="x" * 200)
    with pytest.raises(ControlError, match="why: 201 characters; accepted: at most 200"):
        set_mode(journal, "warn", by="root", why="x" * 201)
    assert journal.last() == 1


@pytest.mark.parametrize(
    ("alias", "mode"), [("detection", "learning"), ("audit", "warn"), ("enforce", "block")]
)
def test_other_names_of_modes_are_stored_as_ours(alias: str, mode: str) -> None:
    journal = DurableOnly()
    set_mode(journal, alias, by="root")
    assert last(journal)["value"] == mode
    assert MODE_ALIASES[alias] == mode
    engine = follow(journal)
    assert engine.mode_in_force(engine.policy(mode="shadow")) == mode


def last(journal: MemoryJournal) -> dict:
    return decode_record(records_since(journal)[-1])


def test_a_snooze_is_a_record_with_its_end() -> None:
    journal = DurableOnly()
    made = snooze(
        journal,
        NOON + HOUR,
        Scope("t1", "export", "alice"),
        current=None,
        by="root",
        why="load test",
        now=NOON,
    )
    assert (made.cursor, made.until, made.clamped, made.first) == (1, NOON + HOUR, False, NOON)
    fields = last(journal)
    assert {name: fields[name] for name in ("action", "tenant", "tool", "user", "by", "why", "ts")} == {
        "action": "snooze",
        "tenant": "t1",
        "tool": "export",
        "user": "alice",
        "by": "root",
        "why": "load test",
        "ts": NOON,
    }
    assert float(fields["value"]) == NOON + HOUR


def test_a_snooze_is_brought_forward_to_seven_days_and_says_so() -> None:
    journal = DurableOnly()
    made = snooze(journal, NOON + 30 * DAY, current=None, by="root", now=NOON)
    assert (made.until, made.clamped) == (NOON + 7 * DAY, True)
    assert float(last(journal)["value"]) == NOON + 7 * DAY
    exactly = snooze(journal, NOON + 7 * DAY, current=None, by="root", now=NOON)
    assert exactly.clamped is False


def test_extending_a_snooze_does_not_move_its_bound() -> None:
    journal = DurableOnly()
    snooze(journal, NOON + 5 * DAY, current=None, by="root", now=NOON)
    current = read_silences(journal).snooze(Scope())
    made = snooze(journal, NOON + 9 * DAY, current=current, by="root", now=NOON + 4 * DAY)
    assert (made.until, made.clamped, made.first) == (NOON + 7 * DAY, True, NOON)
    assert read_silences(journal).snoozed("t", "x", "u", NOON + 6 * DAY) == NOON + 7 * DAY


def test_after_a_break_a_snooze_is_a_new_one() -> None:
    current = Silence(NOON, NOON + DAY, "root", "")
    made = snooze(DurableOnly(), NOON + 8 * DAY, current=current, by="root", now=NOON + DAY)
    assert (made.until, made.first, made.clamped) == (NOON + 8 * DAY, NOON + DAY, False)


@pytest.mark.parametrize("until", [NOON, NOON - DAY, 0.0])
def test_a_past_or_present_time_clears_a_snooze(until: float) -> None:
    journal = DurableOnly()
    snooze(journal, NOON + HOUR, current=None, by="root", now=NOON - HOUR)
    made = snooze(journal, until, current=None, by="root", now=NOON)
    assert (made.until, last(journal)["value"]) == (0.0, "")
    assert read_silences(journal).snooze(Scope()) is None


def test_a_suppression_is_a_record_and_ends() -> None:
    journal = DurableOnly()
    made = suppress(journal, "off_hours", NOON + DAY, Scope(user="bob"), by="root", why="nights", now=NOON)
    assert (made.until, made.clamped) == (NOON + DAY, False)
    assert (last(journal)["action"], last(journal)["value"]) == ("suppress", f"off_hours {NOON + DAY:.3f}")
    assert read_silences(journal).suppressed("off_hours", "t", "x", "bob", NOON) == NOON + DAY
    assert suppress(journal, "off_hours", NOON, Scope(user="bob"), by="root", now=NOON).until == 0
    assert last(journal)["value"] == "off_hours"
    assert read_silences(journal).suppressed("off_hours", "t", "x", "bob", NOON) == 0


def test_a_suppression_lasts_ninety_days_at_most() -> None:
    made = suppress(DurableOnly(), "off_hours", NOON + 91 * DAY, by="root", now=NOON)
    assert (made.until, made.clamped) == (NOON + 90 * DAY, True)


def test_everything_at_once_cannot_be_suppressed() -> None:
    journal = DurableOnly()
    with pytest.raises(ControlError, match="would hide every finding"):
        suppress(journal, "*", NOON + DAY, by="root", now=NOON)
    assert suppress(journal, "*", NOON + DAY, Scope(tool="x"), by="root", now=NOON).until == NOON + DAY


@pytest.mark.parametrize("signal", ["", " ", "off hours", "burst\n"])
def test_a_signal_is_one_word(signal: str) -> None:
    with pytest.raises(ControlError, match="is not the name of a signal"):
        suppress(MemoryJournal(), signal, NOON + DAY, by="root", now=NOON)


@pytest.mark.parametrize(("judge", "action"), [(accept, "accept"), (reject, "reject")])
def test_a_judgement_is_a_record(judge: Callable[..., int], action: str) -> None:
    journal = DurableOnly()
    assert judge(journal, ITEM, tenant="t1", user="alice", tool="export", by="root", why="new role") == 1
    fields = last(journal)
    assert (fields["action"], fields["value"]) == (action, ITEM)
    assert (fields["tenant"], fields["user"], fields["tool"]) == ("t1", "alice", "export")
    assert (fields["by"], fields["why"]) == ("root", "new role")


@pytest.mark.parametrize(
    "item", ["", "i-", "i-0123", ITEM + "0", "i-0123456789ABCDEF", "tf-0123456789ab", "Burst"]
)
def test_what_is_no_item_is_refused(item: str) -> None:
    assert not is_item(item)
    for judge in (accept, reject):
        with pytest.raises(ControlError, match="is not an item"):
            judge(MemoryJournal(), item, tenant="t1", user="alice", by="root")


def test_bursts_can_be_accepted_and_not_rejected() -> None:
    journal = DurableOnly()
    accept(journal, "burst", tenant="t1", user="alice", by="root")
    assert last(journal)["value"] == "burst"
    with pytest.raises(ControlError, match="can be accepted, not rejected"):
        reject(journal, "burst", tenant="t1", user="alice", by="root")


def test_a_judgement_names_its_user() -> None:
    with pytest.raises(ControlError, match="name the user"):
        accept(MemoryJournal(), ITEM, tenant="t1", user="", by="root")


def test_a_long_reason_is_refused_everywhere() -> None:
    journal, why = MemoryJournal(), "x" * 201
    for change in (
        lambda: snooze(journal, NOON + HOUR, current=None, by="root", why=why, now=NOON),
        lambda: suppress(journal, "burst", NOON + HOUR, by="root", why=why, now=NOON),
        lambda: accept(journal, ITEM, tenant="t1", user="alice", by="root", why=why),
        lambda: reject(journal, ITEM, tenant="t1", user="alice", by="root", why=why),
    ):
        with pytest.raises(ControlError, match="why: 201 characters"):
            change()
    assert journal.last() == 0


def test_reading_silences_passes_over_other_records() -> None:
    journal = MemoryJournal()
    set_mode(journal, "block", by="root")
    assert isinstance(read_silences(journal), Silences)
