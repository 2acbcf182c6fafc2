# SPDX-License-Identifier: Apache-2.0
"""Reading the records of a journal: which packs are opened, and going on where it stopped."""

import pytest
from cpex_tool_firewall._native import encode_call, pack
from cpex_tool_firewall.control import set_mode
from cpex_tool_firewall.journal.interface import Kind, Pack
from cpex_tool_firewall.journal.memory import MemoryJournal
from cpex_tool_firewall.records import JournalRecords, Selection


def add_call(journal: MemoryJournal, seq: int) -> None:
    record = encode_call(ts=1e9, worker=7, seq=seq, tenant="t", user="u", tool="x")
    journal.append([Pack(*made) for made in pack([record])])


@pytest.mark.parametrize(
    ("selection", "kinds"),
    [
        (Selection(), {Kind.ORDINARY, Kind.FINDING, Kind.CONTROL}),
        (Selection(ordinary=False), {Kind.FINDING, Kind.CONTROL}),
        (Selection(findings=True), {Kind.FINDING}),
    ],
)
def test_only_the_packs_that_are_wanted_are_opened(selection: Selection, kinds: set[Kind]) -> None:
    assert {kind for kind in Kind if selection.takes_pack(kind)} == kinds


def test_without_ordinary_records_controls_remain() -> None:
    journal = MemoryJournal()
    add_call(journal, 1)
    set_mode(journal, "warn", by="root")
    assert [fields["kind"] for fields in JournalRecords(journal, Selection(ordinary=False))] == ["control"]


def test_reading_again_gives_what_came_since() -> None:
    journal = MemoryJournal()
    add_call(journal, 1)
    records = JournalRecords(journal)
    assert [fields["seq"] for fields in records] == [1]
    assert list(records) == []
    add_call(journal, 2)
    assert [fields["seq"] for fields in records] == [2]
    assert [fields["seq"] for fields in JournalRecords(journal, after=1)] == [2]
