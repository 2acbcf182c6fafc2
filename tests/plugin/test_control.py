# SPDX-License-Identifier: Apache-2.0
"""Mode changes as records: what is written, that an engine follows, and what is refused."""

import time

import pytest
from cpex_tool_firewall._native import Engine, decode_record
from cpex_tool_firewall.control import MODES, ControlError, set_mode
from cpex_tool_firewall.journal.interface import Kind, records_since
from cpex_tool_firewall.journal.memory import MemoryJournal


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


@pytest.mark.parametrize("value", ["Block", "off", "enforce", " block", "warn\n"])
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
