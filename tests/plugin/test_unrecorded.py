# SPDX-License-Identifier: Apache-2.0
"""Calls and decisions while the journal takes or gives nothing: what holds, and where it is recorded."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from cpex_tool_firewall import freshness, runtime, second_sink
from cpex_tool_firewall._native import decode_record
from cpex_tool_firewall.journal.interface import records_since
from hooks import Firewall, call, said, wait_for

SECRET = "xyzzy-argument-value"
MODES = ("learning", "warn", "shadow", "block")

_WRITE_LOCKER = """
import sys, apsw
database = apsw.Connection(sys.argv[1])
database.set_busy_timeout(5000)
database.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""
# The locks of SQLite's readers in the -shm file: a process that was stopped while it recovered the log holds
# them.
_READ_LOCKER = """
import fcntl, sys
with open(sys.argv[1] + "-shm", "r+b") as file:
    fcntl.lockf(file, fcntl.LOCK_EX, 5, 123)
    print("locked", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process(script: str, state: Path) -> Iterator[None]:
    command = [sys.executable, "-c", script, str(state / "journal.db")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield
    finally:
        process.communicate("")


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The records on standard error since this was last asked."""
    return [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]


def incidents(firewall: Firewall) -> list[str]:
    """Of all calls of delete_records in the journal."""
    journal = firewall.journal()
    try:
        records = [decode_record(record) for record in records_since(journal)]
    finally:
        journal.close()
    return [record["incident"] for record in records if record.get("tool") == "delete_records"]


async def until(condition: Any) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("not within 5 s")


# --- decisions ---


@pytest.mark.parametrize("mode", MODES)
async def test_a_decision_holds_and_is_recorded_elsewhere_while_the_journal_is_locked(
    firewall: Firewall, mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    instance = firewall.instance(mode=mode)
    await firewall.history(instance, "db_query", calls=200)
    lines(capsys)
    with another_process(_WRITE_LOCKER, firewall.state):
        assert (await call(instance, "db_query")).continue_processing
        await until(lambda: firewall.runtime.freshness.failing)
        answer = await call(instance, "delete_records", args={"table": SECRET})
        assert answer.continue_processing == (mode != "block")
        told = lines(capsys)
        if mode == "learning":
            assert told == []
            assert runtime.events == {}
        else:
            (record,) = told
            assert record["tool_firewall"] == "record"
            assert record["recorded"] is False
            assert (record["verdict"], record["mode"]) == ("deny", mode)
            assert (record["tenant"], record["user"]) == ("team", "alice@example.com")
            assert record["tool"] == "delete_records"
            assert record["signals"] == said(answer)["detection_types"]
            assert record["ts"] == pytest.approx(firewall.now, abs=0.001)
            assert SECRET not in json.dumps(record)
            assert runtime.events == {"decisions_on_stderr": 1}
            assert any(text.startswith("decision-record:") for text in runtime.alarms.active())
        if mode == "block":
            assert said(answer)["recorded"] is False
            assert answer.violation.details["incident"] == record["incident"]
    wait_for(lambda: len(incidents(firewall)) == 1)
    if mode != "learning":
        assert incidents(firewall) == [record["incident"]], "the journal got it in the end"


async def test_a_recorded_decision_is_not_recorded_elsewhere(
    firewall: Firewall, capsys: pytest.CaptureFixture[str]
) -> None:
    for mode in MODES:
        instance = firewall.instance(mode=mode, threshold=0.34)
        await firewall.history(instance, "db_query", calls=100, user=mode)
        lines(capsys)
        answer = await call(instance, f"delete_{mode}", user=mode)
        assert said(answer)["risk_score"] >= 0.34
        assert lines(capsys) == []
    assert runtime.events == {}


async def test_when_standard_error_does_not_take_it_either_that_is_counted(
    firewall: Firewall, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = firewall.instance(mode="block")
    await firewall.history(instance, "db_query", calls=200)
    nowhere = open("/dev/full", "w")  # noqa: SIM115  closing it fails
    with another_process(_WRITE_LOCKER, firewall.state):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", nowhere)
            answer = await call(instance, "delete_records")
        assert not answer.continue_processing
    with suppress(OSError):
        nowhere.close()
    assert runtime.events["decisions_unrecorded"] == 1


def test_a_record_is_one_line_whatever_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    odd = "\ud800\0\n\u202e" + "x" * 100
    names = {"tenant": odd, "user": odd, "tool": odd}
    assert second_sink.put(incident="tf-1", ts=1.23456, **names, verdict="deny", mode="block", signals=["a"])
    written = capsys.readouterr().err
    assert written.count("\n") == 1
    assert written.isascii()
    assert json.loads(written)["user"] == odd
    assert json.loads(written)["ts"] == 1.235


# --- audit: strict ---


@pytest.mark.parametrize("audit", ["best_effort", "strict"])
@pytest.mark.parametrize("mode", MODES)
async def test_calls_that_cannot_be_recorded_run_unless_audit_is_strict_in_block_mode(
    firewall: Firewall, mode: str, audit: str, capsys: pytest.CaptureFixture[str]
) -> None:
    instance = firewall.instance(mode=mode, audit=audit)
    await firewall.history(instance, "db_query", calls=200)
    lines(capsys)
    with another_process(_WRITE_LOCKER, firewall.state):
        assert (await call(instance, "db_query")).continue_processing, "not for long yet"
        await until(firewall.runtime.freshness.unwritten)
        answer = await call(instance, "db_query", args={"sql": SECRET})
        closed = mode == "block" and audit == "strict"
        assert answer.continue_processing == (not closed)
        if closed:
            (record,) = lines(capsys)
            assert answer.violation.code == "TF_AUDIT"
            assert answer.violation.details["incident"] == record["incident"]
            assert said(answer)["recorded"] is False
            assert said(answer)["blocked"] is True
            assert record["signals"] == ["unrecorded"]
            assert SECRET not in json.dumps(record)
            assert runtime.events["unrecorded_stopped"] == 1
        else:
            assert lines(capsys) == []
    await until(lambda: not firewall.runtime.freshness.unwritten())
    assert (await call(instance, "db_query")).continue_processing, "it heals by itself"


# --- what cannot be read ---


async def test_verdicts_say_that_the_journal_cannot_be_read(
    firewall: Firewall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader hangs for seconds in SQLite here, so it is the call path that has to notice."""
    monkeypatch.setattr(freshness, "STALE_SECONDS", 0.5)
    instance = firewall.instance(mode="warn")
    await firewall.history(instance, "db_query", calls=200)
    assert said(await call(instance, "db_query"))["degraded"] is False
    with another_process(_READ_LOCKER, firewall.state):
        await asyncio.sleep(1)
        begin = time.perf_counter()
        assert said(await call(instance, "db_query"))["degraded"] is True, "an ordinary call"
        assert said(await call(instance, "delete_records"))["degraded"] is True, "one that is warned about"
        assert time.perf_counter() - begin < 0.5
        assert any(text.startswith("tail-stale:") for text in runtime.alarms.active())
    await until(lambda: not firewall.runtime.freshness.stale())
    assert said(await call(instance, "db_query"))["degraded"] is False
    await until(lambda: not any(text.startswith("tail-stale:") for text in runtime.alarms.active()))
    fresh = firewall.instance()
    assert said(await call(fresh, "db_query"))["degraded"] is False
