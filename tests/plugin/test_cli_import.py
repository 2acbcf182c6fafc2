# SPDX-License-Identifier: Apache-2.0
"""`tool-firewall import`: the reverse of export, harmless to repeat, and every way the file can be wrong."""

import gzip
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_support import DAY, MONDAY_NOON, Site, heartbeat, run
from cpex_tool_firewall._native import decode_record, encode_control, pack
from cpex_tool_firewall.alarms import Alarms
from cpex_tool_firewall.config import load
from cpex_tool_firewall.engines import build_engine
from cpex_tool_firewall.journal.interface import Pack, records_since
from cpex_tool_firewall.restoring import restore
from cpex_tool_firewall.runtime import Runtime
from traffic import live, stream

CALLS = 4 * 12 + 12


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "source")
    made.habit("alice", days=4)
    made.habit("b\ud800b", tenant="t2", days=1)
    yield made
    made.close()


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "target")
    yield made
    made.close()


def exported(site: Site, path: Path, form: str, *more: str) -> Path:
    result = run("export", "--state", str(site.folder), "--format", form, "--out", str(path), *more)
    assert result.exit_code == 0, result.stderr
    return path


def take(site: Site, *arguments: str, code: int = 0, stdin: Any = None) -> dict[str, Any]:
    result = run("import", "--state", str(site.folder), "--json", *arguments, stdin=stdin)
    assert result.exit_code == code, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def baseline(site: Site, user: str = "alice", tenant: str = "t1") -> Any:
    restored = restore(site.journal, lambda: build_engine(site.settings, site.state.key))
    return restored.engine.baseline(tenant, user)


@pytest.mark.parametrize(("form", "name"), [("jsonl", "a.jsonl"), ("jsonl", "a.gz"), ("events", "e.jsonl")])
def test_another_installation_learns_the_same(
    source: Site, target: Site, tmp_path: Path, form: str, name: str
) -> None:
    found = take(target, str(exported(source, tmp_path / name, form)))
    assert (found["calls"], found["new"], found["users"], found["tenants"], found["tools"]) == (
        *(CALLS, CALLS),
        *(2, 2, 2),
    )
    assert (found["first"], found["last"]) == (MONDAY_NOON, MONDAY_NOON + 3 * DAY + 11 * 300)
    here, there = baseline(source), baseline(target)
    assert there["calls"] == here["calls"] == 48
    for part in ("tools", "steps"):
        assert [list(one.values())[:2] for one in there[part]] == [
            list(one.values())[:2] for one in here[part]
        ]
    assert there["tools"][0]["count"] == pytest.approx(here["tools"][0]["count"])
    assert there["hours"] == here["hours"]


def test_parquet_comes_back(source: Site, target: Site, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    found = take(target, str(exported(source, tmp_path / "a.parquet", "parquet")))
    assert (found["calls"], found["new"]) == (CALLS, CALLS)
    assert baseline(target)["calls"] == 48


@pytest.mark.parametrize("form", ["jsonl", "events"])
def test_twice_changes_nothing_and_stores_nothing(
    source: Site, target: Site, tmp_path: Path, form: str
) -> None:
    file = exported(source, tmp_path / "a", form)
    take(target, str(file))
    once, cursor = baseline(target), target.journal.last()
    again = take(target, str(file))
    assert (again["new"], again["known"]) == (0, CALLS)
    assert target.journal.last() == cursor
    assert baseline(target) == once
    # Nor does the other form of the same calls, nor an import where they came from.
    other = exported(source, tmp_path / "b", "events" if form == "jsonl" else "jsonl")
    assert take(target, str(other))["new"] == 0
    assert take(source, str(file))["new"] == 0


def test_engines_drop_what_two_imports_at_once_stored_twice(
    source: Site, target: Site, tmp_path: Path
) -> None:
    take(target, str(exported(source, tmp_path / "a", "jsonl")))
    once = baseline(target)
    entries = target.journal.read_since(0)
    target.journal.append([Pack(entry.kind, entry.records, entry.body) for entry in entries])
    assert baseline(target) == once


def test_overlapping_and_interrupted_imports_add_what_is_missing(
    source: Site, target: Site, tmp_path: Path
) -> None:
    whole = exported(source, tmp_path / "a", "jsonl")
    half = tmp_path / "half"
    half.write_text("".join(whole.read_text().splitlines(keepends=True)[:51]))
    first = take(target, str(half))
    second = take(target, str(whole))
    assert first["new"] + second["new"] == CALLS
    assert first["new"] == 26
    assert baseline(target)["calls"] == 48


def foreign(number: int, **more: Any) -> dict[str, Any]:
    return {
        "event_id": number,
        "ts": MONDAY_NOON + number * 60,
        "tenant": "t1",
        "user": "alice",
        "session": "s",
        "tool": "db_query",
        "args": {"q": "secret"},
        "ok": True,
        "cost": 1,
        "duration": 0.5,
        **more,
    }


def write(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_a_growing_file_of_foreign_events(target: Site, tmp_path: Path) -> None:
    events = [foreign(number) for number in range(60)]
    events[7]["ts"] = events[6]["ts"]  # two at the same moment are still two
    assert take(target, str(write(tmp_path / "log", events[:40])))["new"] == 40
    assert take(target, str(write(tmp_path / "log", events)))["new"] == 20
    assert baseline(target)["calls"] == 60
    # Another file is another source, even with the same times.
    other = [foreign(number, user="bob") for number in range(60)]
    assert take(target, str(write(tmp_path / "bob", other)))["new"] == 60
    assert all(b"secret" not in record for record in records_since(target.journal))


def told(site: Site) -> list[Any]:
    """What the journal says of arguments and costs, in the order of the calls."""
    found: dict[Any, Any] = {}
    for record in records_since(site.journal):
        fields = decode_record(record)
        if fields["kind"] == "call":
            found[fields["seq"]] = [fields[name] for name in ("arguments", "facts", "destinations", "token")]
        elif fields["kind"] == "outcome":
            found[fields["seq"]].append((fields["outcome"], fields["cost"]))
    return list(found.values())


@pytest.mark.parametrize("form", ["jsonl", "events", "parquet"])
def test_arguments_and_costs_are_carried(source: Site, target: Site, tmp_path: Path, form: str) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    live(target, stream(3))  # a site of its own, so that no call of the source's habit is among them
    other = Site(tmp_path / "other")
    take(other, str(exported(target, tmp_path / f"a.{form}", form)))
    carried = told(other)
    assert carried == told(target)
    assert len({facts for _, facts, *_ in carried}) > 20
    assert {cost for *_, (_, cost) in carried} >= {None}
    other.close()


def test_arguments_of_events_become_the_digests_of_this_installation(target: Site, tmp_path: Path) -> None:
    args = {"to": "eve@evil.example", "url": "https://evil.example/x", "n": 7}
    events = [foreign(1, args=args), foreign(2, args=None), foreign(3, args={}), foreign(4, cost=None)]
    take(target, str(write(tmp_path / "e", events)))
    engine = build_engine(target.settings, target.state.key)
    made = [engine.facts(each) for each in (args, None, {}, events[3]["args"])]
    assert [one[:3] for one in told(target)] == [
        [one["arguments"], one["facts"], one["destinations"]] if number != 1 else ["0" * 16, "", []]
        for number, one in enumerate(made)
    ]
    assert made[0]["destinations"] == ["evil.example"]
    assert [cost for *_, (_, cost) in told(target)] == [1.0, 1.0, 1.0, None]
    assert all(b"eve@" not in record for record in records_since(target.journal))


def test_hosts_stay_out_where_records_are_not_to_name_them(tmp_path: Path) -> None:
    quiet = Site(tmp_path / "quiet", load({"record_destinations": False}))
    quiet.journal.beat("w", heartbeat(quiet.settings))
    named = [
        foreign(1, args={"url": "https://evil.example/x"}),
        foreign(2, args=None, destinations=["b.example"]),
    ]
    take(quiet, str(write(tmp_path / "e", named)))
    assert [hosts for _, _, hosts, *_ in told(quiet)] == [[], []]
    assert "host " in told(quiet)[0][1]
    quiet.close()


def test_a_parquet_file_of_an_older_release_has_fewer_columns(
    source: Site, target: Site, tmp_path: Path
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    file = exported(source, tmp_path / "a.parquet", "parquet")
    table = parquet.read_table(file).drop_columns(["arguments", "facts", "cost", "snoozed", "destinations"])
    parquet.write_table(table, tmp_path / "old.parquet")
    found = take(target, str(tmp_path / "old.parquet"))
    assert (found["calls"], found["new"]) == (CALLS, CALLS)
    assert baseline(target)["calls"] == 48


def test_imported_calls_are_history(source: Site, target: Site, tmp_path: Path) -> None:
    source.call("alice", "delete_records", MONDAY_NOON + 3 * DAY + 5000)
    take(target, str(exported(source, tmp_path / "a", "jsonl")))
    decoded = [decode_record(record) for record in records_since(target.journal)]
    assert {fields["incident"] for fields in decoded if fields["kind"] == "call"} == {""}
    assert {entry.kind for entry in target.journal.read_since(0)} == {0}


def test_mode_changes_are_left_out(source: Site, target: Site, tmp_path: Path) -> None:
    control = encode_control(
        ts=MONDAY_NOON,
        worker=5,
        seq=1,
        action="mode",
        tenant="",
        tool="",
        user="",
        value="block",
        by="x",
        why="",
    )
    source.journal.append([Pack(*one) for one in pack([control])])
    found = take(target, str(exported(source, tmp_path / "a", "jsonl")))
    assert found["controls_left_out"] == 1
    assert target.controls() == []


def test_dry_run_stores_nothing(source: Site, target: Site, tmp_path: Path) -> None:
    file = exported(source, tmp_path / "a", "jsonl")
    assert take(target, str(file), "--dry-run")["new"] == CALLS
    assert target.journal.last() == 0
    result = run("import", "--state", str(target.folder), str(file), "--dry-run")
    assert "60 would be new, 0 known already" in result.stdout
    assert "60 calls (120 records) by 2 users in 2 tenants, 2 tools; 2026-11-16 12:00:00 UTC" in result.stdout


def test_standard_input(source: Site, target: Site, tmp_path: Path) -> None:
    file = exported(source, tmp_path / "a.gz", "jsonl")
    assert take(target, "-", stdin=file.read_bytes())["new"] == CALLS
    assert take(target, "-", stdin=gzip.decompress(file.read_bytes()))["new"] == 0


def test_a_running_worker_learns_from_it(source: Site, target: Site, tmp_path: Path) -> None:
    file = exported(source, tmp_path / "a", "jsonl")
    runtime = Runtime(target.settings, target.state, target.journal, Alarms())
    try:
        importing = threading.Thread(target=take, args=(target, str(file)))
        importing.start()
        importing.join()
        until = time.monotonic() + 10
        while (runtime.engine.baseline("t1", "alice") or {}).get("calls", 0) < 48:
            assert time.monotonic() < until, "the worker did not follow"
            time.sleep(0.02)
    finally:
        runtime.close()


RECORD = {
    "kind": "call",
    "ts": MONDAY_NOON,
    "worker": "00000000000000aa",
    "seq": 1,
    "tenant": "t",
    "user": "u",
    "tool": "t",
}


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("{", "not JSON"),
        ("[1]", "an object was expected"),
        ({**RECORD, "ts": time.time() + 3600}, "'ts': lies in the future"),
        ({**RECORD, "ts": "noon"}, "'ts': seconds since 1970"),
        ('{"kind": "call", "ts": NaN}', "not JSON"),
        ({**RECORD, "ts": -1}, "'ts': seconds since 1970"),
        ({**RECORD, "worker": "zz"}, "'worker': 16 hex digits"),
        ({**RECORD, "worker": "ffffffffffffffff"}, "'worker': 16 hex digits"),
        ({**RECORD, "seq": 0}, "'seq': a whole number"),
        ({**RECORD, "seq": True}, "'seq': a whole number"),
        ({**RECORD, "user": ""}, "'user': text of 1"),
        ({**RECORD, "tool": None}, "'tool': text of 1"),
        ({**RECORD, "tenant": 5}, "'tenant': text of 0"),
        ({**RECORD, "user": "u" * 5000}, "'user': text of 1"),
        ({**RECORD, "blocked": "yes"}, "'blocked': true or false"),
        ({**RECORD, "kind": "gossip"}, "'kind': call, outcome or control"),
        ({**RECORD, "kind": "outcome", "outcome": "well"}, "'outcome': one of ok"),
        ({**RECORD, "kind": "outcome", "outcome": "ok", "cost": -1}, "'cost': a number from 0 to 1e+12"),
        ({**RECORD, "kind": "outcome", "outcome": "ok", "cost": True}, "'cost': a number from 0 to 1e+12"),
        ({**RECORD, "kind": "outcome", "outcome": "ok", "cost": "1"}, "'cost': a number from 0 to 1e+12"),
        ({**RECORD, "arguments": "12"}, "'arguments': 16 hex digits were expected"),
        ({**RECORD, "arguments": 12}, "'arguments': text of 0"),
        ({**RECORD, "facts": "host 12 34"}, "'facts': kind, place and value of each were expected"),
        ({**RECORD, "facts": ["host"]}, "'facts': text of 0"),
        ({**RECORD, "destinations": "h"}, "'destinations': a list of up to 4 texts of up to 255"),
        ({**RECORD, "destinations": ["h"] * 5}, "'destinations': a list of up to 4 texts"),
        ({**RECORD, "destinations": ["h" * 256]}, "'destinations': a list of up to 4 texts"),
        ({**RECORD, "destinations": [None]}, "'destinations': a list of up to 4 texts"),
        ("x" * (1 << 20), "longer than 1 MiB"),
    ],
)
def test_a_bad_line_is_named(source: Site, target: Site, tmp_path: Path, bad: Any, said: str) -> None:
    good = exported(source, tmp_path / "a", "jsonl").read_text().splitlines()
    file = write(tmp_path / "bad", [*good[:16], bad, *good[16:]])
    result = run("import", "--state", str(target.folder), str(file))
    assert result.exit_code == 2, result.output
    assert f"{file}: line 17: {said}" in result.stderr
    assert "The 8 calls before it were taken" in result.stderr
    found = take(target, str(file), "--skip-bad", code=1)
    assert (found["bad"], found["new"], found["known"]) == (1, CALLS - 8, 8)
    assert baseline(target)["calls"] == 48


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"event_id": None}, "'event_id'"),
        ({"user": None}, "'user'"),
        ({"ts": True}, "'ts'"),
        ({"ok": "yes"}, "'ok'"),
        ({"cost": "dear"}, "'cost'"),
        ({"cost": -0.5}, "'cost'"),
        ({"args": ["secret"]}, "'args': an object was expected"),
        ({"args": None, "facts": "secret"}, "'facts': kind, place and value"),
        ({"args": None, "arguments": "secret"}, "'arguments': 16 hex digits"),
    ],
)
def test_bad_events(target: Site, tmp_path: Path, change: dict[str, Any], said: str) -> None:
    file = write(tmp_path / "e", [foreign(1), foreign(2, **change)])
    result = run("import", "--state", str(target.folder), str(file))
    assert result.exit_code == 2
    assert f"line 2: {said}" in result.stderr
    assert "secret" not in result.output
    assert told(target)[0][-1] == ("ok", 1.0)  # the line before is there with its end


def test_files_that_cannot_be_read(target: Site, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gz"
    cut.write_bytes(gzip.compress(json.dumps(RECORD).encode() * 100)[:-12])
    noise = tmp_path / "x.parquet"
    noise.write_bytes(b"no parquet")
    for file, said in (
        (tmp_path / "none", "there is no such file"),
        (tmp_path, "is not a file"),
        (cut, "cannot be read"),
        (noise, "cannot be read"),
    ):
        result = run("import", "--state", str(target.folder), str(file))
        assert result.exit_code == 2, result.output
        assert f"{file}: {said}" in result.stderr
    empty = write(tmp_path / "empty", [])
    result = run("import", "--state", str(target.folder), str(empty))
    assert (result.exit_code, result.stdout) == (0, "no calls\n")
