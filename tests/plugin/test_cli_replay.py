# SPDX-License-Identifier: Apache-2.0
"""`tool-firewall replay`: scores, summary, settings from files, and every way the input can be wrong."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from cli_support import DAY, MONDAY_NOON, run


def event(number: int, tool: str = "db_query", **more: Any) -> dict[str, Any]:
    return {
        "event_id": f"e{number}",
        "ts": MONDAY_NOON + number * 300,
        "tenant": "t1",
        "user": "alice",
        "agent": "",
        "session": "s1",
        "tool": tool,
        "args": {"q": number},
        "ok": True,
        "cost": 0.0,
        "duration": 0.1,
        **more,
    }


def write(path: Path, events: list[Any]) -> Path:
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in events)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def read(path: Path) -> list[dict[str, Any]]:
    data = path.read_bytes()
    text = gzip.decompress(data) if path.suffix == ".gz" else data
    return [json.loads(line) for line in text.splitlines()]


STORY = [event(n) for n in range(60)] + [event(60, "delete_records")]


@pytest.mark.parametrize("source", ["in.jsonl", "in.jsonl.gz"])
@pytest.mark.parametrize("target", ["out.jsonl", "out.jsonl.gz"])
def test_one_score_for_each_event(tmp_path: Path, source: str, target: str) -> None:
    events, out = write(tmp_path / source, STORY), tmp_path / target
    result = run("replay", str(events), "--out", str(out))
    assert result.exit_code == 0, result.stderr
    scores = read(out)
    assert [score["event_id"] for score in scores] == [entry["event_id"] for entry in STORY]
    assert scores[59]["risk"] < 0.5 <= scores[60]["risk"]
    assert scores[60]["verdict"] == "deny"
    assert "novelty" in {signal["name"] for signal in scores[60]["signals"]}
    assert set(scores[60]["signals"][0]) >= {"name", "p", "value", "baseline", "explanation"}
    assert result.stdout.startswith("61 events in ")
    assert "a second): allow " in result.stdout


def test_json_summary(tmp_path: Path) -> None:
    events = write(tmp_path / "in.jsonl", STORY)
    found = json.loads(run("replay", str(events), "--out", str(tmp_path / "out"), "--json").stdout)
    assert found["events"] == 61
    assert sum(found["verdicts"].values()) == 61
    assert found["skipped"] == 0


def test_two_replays_are_the_same_byte_for_byte(tmp_path: Path) -> None:
    events = write(tmp_path / "in.jsonl", STORY)
    outs = [tmp_path / "one", tmp_path / "two"]
    for out in outs:
        assert run("replay", str(events), "--out", str(out)).exit_code == 0
    assert outs[0].read_bytes() == outs[1].read_bytes() != b""


BAD_LINES = [
    '{"event_id": "x"',
    "[1, 2]",
    '{"event_id": "x", "ts": "noon", "user": "u", "tool": "t"}',
    '{"ts": 1}',
]


@pytest.mark.parametrize("bad", BAD_LINES)
def test_a_bad_line_is_named_and_ends_with_2(tmp_path: Path, bad: str) -> None:
    events = write(tmp_path / "in.jsonl", [*STORY[:16], bad, *STORY[16:]])
    result = run("replay", str(events), "--out", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert f"{events}: line 17: " in result.stderr


def test_bad_lines_can_be_skipped_and_are_counted(tmp_path: Path) -> None:
    events = write(tmp_path / "in.jsonl", [*STORY[:16], *BAD_LINES, *STORY[16:]])
    result = run("replay", str(events), "--out", str(tmp_path / "out"), "--skip-bad")
    assert result.exit_code == 0, result.stderr
    assert "61 events" in result.stdout
    assert "4 bad lines skipped" in result.stdout
    assert len(read(tmp_path / "out")) == 61


def test_settings_from_a_file_are_used(tmp_path: Path) -> None:
    burst = [event(n, ts=MONDAY_NOON + n * 600) for n in range(60)]
    burst += [event(n, ts=MONDAY_NOON + DAY + n) for n in range(60, 72)]
    events = write(tmp_path / "in.jsonl", burst)
    bare = tmp_path / "bare.yaml"
    bare.write_text("burst_threshold: 5\n")
    gateway = tmp_path / "gateway.yaml"
    gateway.write_text(
        "plugins:\n"
        "  - {name: other, kind: a.b.C, config: {x: 1}}\n"
        "  - name: fw\n"
        "    kind: cpex_tool_firewall.plugin.ToolFirewallPlugin\n"
        "    config: {burst_threshold: {{ env.LIMIT }}}\n"
        "plugin_dirs: []\n"
    )
    risks = {}
    for name, more in (
        ("none", []),
        ("bare", ["--config", str(bare)]),
        ("gateway", ["--config", str(gateway)]),
    ):
        result = run("replay", str(events), "--out", str(tmp_path / name), *more, env={"LIMIT": "5"})
        assert result.exit_code == 0, result.stderr
        signals = read(tmp_path / name)[68]["signals"]
        risks[name] = next((entry["baseline"] for entry in signals if entry["name"] == "burst"), None)
    assert risks["bare"] == risks["gateway"] == 5
    assert risks["none"] != 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("burst_treshold: 5", "burst_treshold: unknown setting (did you mean burst_threshold?)"),
        ("threshold: high", "threshold: 'high' is not accepted"),
        ("- a\n- b", "holds a list; accepted: a block of settings"),
        ("plugins: []", "no plugin of kind cpex_tool_firewall.plugin.ToolFirewallPlugin"),
        ("plugins: [{kind: cpex_tool_firewall.plugin.ToolFirewallPlugin, config: [1]}]", "config is a list"),
        ("a: 1\n\tb: 2", "line 2: not YAML"),
        ("a: {{ env.", "a placeholder cannot be filled in"),
    ],
)
def test_a_wrong_config_is_explained(tmp_path: Path, text: str, said: str) -> None:
    events, config = write(tmp_path / "in.jsonl", STORY), tmp_path / "c.yaml"
    config.write_text(text)
    result = run("replay", str(events), "--out", str(tmp_path / "out"), "--config", str(config))
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {config}: ")
    assert said in result.stderr
    assert not (tmp_path / "out").exists()


def test_files_that_are_missing_or_in_the_way(tmp_path: Path) -> None:
    events = write(tmp_path / "in.jsonl", STORY)
    for arguments, said in (
        ([str(tmp_path / "none.jsonl"), "--out", str(tmp_path / "out")], "none.jsonl: there is no such file"),
        ([str(tmp_path), "--out", str(tmp_path / "out")], "is not a file"),
        ([str(events), "--out", str(tmp_path / "no" / "out")], "the folder"),
        ([str(events), "--out", str(tmp_path)], "is a folder"),
        ([str(events), "--out", str(events)], "would overwrite the events"),
        (
            [str(events), "--out", str(tmp_path / "out"), "--config", str(tmp_path / "none.yaml")],
            "cannot be read",
        ),
        ([str(events)], "--out"),
    ):
        result = run("replay", *arguments)
        assert result.exit_code == 2, arguments
        assert said in result.stderr, result.stderr
    assert len(events.read_text().splitlines()) == 61


def test_broken_gzip_and_other_bytes(tmp_path: Path) -> None:
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(
        gzip.compress(("\n".join(map(json.dumps, STORY)) + "\n").encode() + os.urandom(50_000))[:-20_000]
    )
    noise = tmp_path / "noise.jsonl"
    noise.write_bytes(b"\xff\xfe\x00" * 100 + b"\n")
    for source in (cut, noise):
        result = run("replay", str(source), "--out", str(tmp_path / "out"))
        assert result.exit_code == 2, result.output
        assert str(source) in result.stderr


def test_an_empty_file_is_no_error(tmp_path: Path) -> None:
    result = run("replay", str(write(tmp_path / "in.jsonl", [])), "--out", str(tmp_path / "out"))
    assert result.exit_code == 0, result.stderr
    assert "0 events" in result.stdout
