# SPDX-License-Identifier: Apache-2.0
"""`tool-firewall export`: every record in each format, damage counted, replays of events that agree."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_support import DAY, MONDAY_NOON, Site, run
from cpex_tool_firewall._native import decode_record, encode_call, encode_outcome, pack
from cpex_tool_firewall.control import set_mode
from cpex_tool_firewall.journal.interface import Pack, records_since
from traffic import evaluations, live, stream

STRANGE = "b\ud800b\n<b>"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "state")
    made.habit("alice", days=4)
    made.habit(STRANGE, tenant="t2", days=1)
    made.call("alice", "delete_records", MONDAY_NOON + 3 * DAY + 4000)
    yield made
    made.close()


def export(site: Site, *arguments: str) -> Any:
    return run("export", "--state", str(site.folder), *arguments)


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def clean(value: Any) -> Any:
    """As Parquet can hold it."""
    return value.replace("\ud800", "\\ud800") if isinstance(value, str) else value


def test_every_record_in_order_as_decoded(site: Site) -> None:
    result = export(site)
    assert result.exit_code == 0, result.stderr
    found = lines(result.stdout)
    stored = [decode_record(record) for record in records_since(site.journal)]
    assert [{**line, "worker": int(line["worker"], 16)} for line in found] == [
        {"cursor": line["cursor"], **fields} for line, fields in zip(found, stored, strict=True)
    ]
    assert [line["cursor"] for line in found] == sorted(line["cursor"] for line in found)
    assert result.stdout.isascii()


def test_a_name_in_gz_is_compressed_and_private(site: Site, tmp_path: Path) -> None:
    plain, packed = tmp_path / "a.jsonl", tmp_path / "a.jsonl.gz"
    for out in (plain, packed):
        assert export(site, "--out", str(out)).exit_code == 0
        assert out.stat().st_mode & 0o777 == 0o600
    assert gzip.decompress(packed.read_bytes()) == plain.read_bytes() != b""
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_parquet_holds_the_same(site: Site, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "a.parquet"
    result = export(site, "--format", "parquet", "--out", str(out), "--json")
    assert result.exit_code == 0, result.stderr
    rows = parquet.read_table(out).to_pylist()
    expected = lines(export(site).stdout)
    assert json.loads(result.stdout)["records"] == len(rows) == len(expected)
    for row, line in zip(rows, expected, strict=True):
        assert {name for name, value in row.items() if value is not None} == {
            name for name, value in line.items() if value is not None
        }
        assert all(row[name] == clean(line[name]) for name in line if name != "reasons"), row
    assert {row["user"] for row in rows} == {"alice", "b\\ud800b\n<b>", None}
    assert rows[0]["reasons"] == expected[0]["reasons"] != []


def test_without_pyarrow_it_says_what_to_install(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = export(site, "--format", "parquet", "--out", str(tmp_path / "a.parquet"))
    assert result.exit_code == 2
    assert "pip install 'cpex-tool-firewall[parquet]'" in result.stderr
    assert list(tmp_path.glob("*.parquet")) == []


def test_filters(site: Site) -> None:
    append_control(site)
    every = lines(export(site).stdout)
    middle = MONDAY_NOON + DAY
    for arguments, wanted in (
        (["--kind", "outcome"], lambda line: line["kind"] == "outcome"),
        (["--kind", "control"], lambda line: line["kind"] == "control"),
        (["--findings"], lambda line: line.get("decision") in ("audit", "deny")),
        (["--since", str(middle)], lambda line: line["ts"] >= middle),
        (["--until", "2026-11-17T12:00"], lambda line: line["ts"] < middle),
        (["--until", "2026-11-17T13:00:00+01:00"], lambda line: line["ts"] < middle),
    ):
        found = lines(export(site, *arguments).stdout)
        assert found == [line for line in every if wanted(line)]
        assert 0 < len(found) < len(every)


def append_control(site: Site) -> None:
    set_mode(site.journal, "warn", by="test")


def test_events_join_calls_with_their_ends(site: Site) -> None:
    ends = {"ok": ("ok", 2.5), "boom": ("tool_error", 1.0), "never": ("", 0.0)}
    records = []
    start = MONDAY_NOON + 3 * DAY + 8000
    for seq, (tool, (outcome, took)) in enumerate(ends.items(), 1):
        records.append(encode_call(ts=start + seq, worker=9, seq=seq, tenant="t9", user="eve", tool=tool))
        if outcome:
            records.append(encode_outcome(ts=start + seq + took, worker=9, seq=seq, outcome=outcome))
    blocked = encode_call(ts=start + 9, worker=9, seq=9, tenant="t9", user="eve", tool="no", blocked=True)
    site.journal.append([Pack(*one) for one in pack([*records, blocked])])
    found = [event for event in lines(export(site, "--format", "events").stdout) if event["user"] == "eve"]
    assert [(event["tool"], event["ok"], event["duration"], event["blocked"]) for event in found] == [
        ("ok", True, 2.5, False),
        ("boom", False, 1.0, False),
        ("never", True, None, False),
        ("no", False, None, True),
    ]
    assert [event["cost"] for event in found] == [None] * 4
    assert found[0]["event_id"] == "call-0000000000000009-1"


def test_events_can_be_replayed_and_two_replays_are_the_same(site: Site, tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    assert export(site, "--format", "events", "--out", str(events)).exit_code == 0
    outs = [tmp_path / "one", tmp_path / "two"]
    for out in outs:
        result = run("replay", str(events), "--out", str(out))
        assert result.exit_code == 0, result.stderr
    assert outs[0].read_bytes() == outs[1].read_bytes() != b""
    scores = lines(outs[0].read_text())
    calls = lines(export(site, "--kind", "call").stdout)
    assert len(scores) == len(calls)
    # The live engine scored the same calls in the same order.
    assert [score["risk"] for score in scores] == pytest.approx([call["risk"] for call in calls])


def test_replayed_events_score_as_live_with_arguments_costs_and_failures(
    tmp_path: Path,
) -> None:
    seen = Site(tmp_path / "seen")
    live(seen, stream(14))
    events, out = tmp_path / "events.jsonl", tmp_path / "out"
    assert export(seen, "--format", "events", "--out", str(events)).exit_code == 0
    assert run("replay", str(events), "--out", str(out)).exit_code == 0
    before_and_after = list(evaluations(seen))
    assert [(s["risk_pre"], s["risk"]) for s in lines(out.read_text())] == before_and_after
    assert sum(after > before for before, after in before_and_after) > 50
    exported = lines(events.read_text())
    assert [event["risk"] for event in exported] == [after for _, after in before_and_after]
    text = events.read_text()
    assert not any(secret in text for secret in ("mate1@", "DE123", "/srv/", "name1", "dear all"))
    assert {host for event in exported for host in event["destinations"]} >= {"store.example"}
    seen.close()


def test_findings_after_the_call_are_findings(tmp_path: Path) -> None:
    seen = Site(tmp_path / "seen")
    events = stream(10, users=3)
    dear = {**events[-1], "cost": 1e4, "ts": events[-1]["ts"] + 300}
    live(seen, [*events, dear])
    ended = lines(export(seen, "--findings", "--kind", "outcome").stdout)
    assert ended[-1]["user"] == dear["user"]
    assert (ended[-1]["cost"], ended[-1]["decision"]) == (1e4, "deny")
    assert "cost" in [reason["signal"] for reason in ended[-1]["reasons"]]
    every = lines(export(seen, "--format", "events").stdout)
    found = lines(export(seen, "--format", "events", "--findings").stdout)
    assert found[-1] == every[-1]
    assert found == [event for event in every if event["risk"] >= 1 / 3]
    assert 1 < len(found) < len(every) / 5
    seen.close()


def test_events_pipe_into_replay(site: Site, tmp_path: Path) -> None:
    script = Path(sys.executable).parent / "tool-firewall"
    env = {**os.environ, "TOOL_FIREWALL_STATE": str(site.folder)}
    done = subprocess.run(
        f"{script} export --format events | {script} replay - --out {tmp_path / 'out'}",
        shell=True,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "out").read_text().splitlines()) == len(
        lines(export(site, "--kind", "call").stdout)
    )


def test_damaged_records_are_counted_and_left_out(site: Site) -> None:
    before = len(lines(export(site).stdout))
    record = bytearray(encode_call(ts=MONDAY_NOON, worker=9, seq=1, tenant="t", user="u", tool="t"))
    record[40] ^= 1
    good = encode_call(ts=MONDAY_NOON, worker=9, seq=2, tenant="t", user="u", tool="t")
    site.journal.append([Pack(*one) for one in pack([bytes(record), good])])
    result = export(site)
    assert result.exit_code == 1
    assert len(lines(result.stdout)) == before + 1
    assert "1 damaged record left out; the first: cursor" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--format", "events", "--kind", "outcome"], "events are calls"),
        (["--format", "parquet"], "needs a file"),
        (["--json"], "name a file with --out"),
        (["--since", "yesterday"], "is not a time; accepted: 14d"),
        (["--since", "1d", "--until", "2d"], "--since is not before --until"),
        (["--out", "/no/such/folder/a"], "cannot be written"),
        (["--format", "xml"], "--format"),
    ],
)
def test_wrong_usage(site: Site, arguments: list[str], said: str) -> None:
    result = export(site, *arguments)
    assert result.exit_code == 2, result.output
    assert said in result.stderr


def test_an_empty_journal(tmp_path: Path) -> None:
    empty = Site(tmp_path / "state")
    for form in ("jsonl", "events"):
        result = export(empty, "--format", form)
        assert (result.exit_code, result.stdout) == (0, "")
    empty.close()
