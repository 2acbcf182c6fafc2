# SPDX-License-Identifier: Apache-2.0
"""What a new installation learns from imported history is what one learned that saw the same traffic live."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from cli_support import DAY, HOUR, Site, heartbeat, run
from cpex_tool_firewall._native import Engine
from cpex_tool_firewall.config import load
from cpex_tool_firewall.engines import build_engine
from cpex_tool_firewall.restoring import restore
from traffic import Event, live, stream, token_of

KEY = bytes(range(32))
DAYS = 14
# Sections of a snapshot (native/journal/snapshot_format.h): what scores depend on, apart from the clock.
LEARNED = {1: "signals", 3: "tools", 4: "tenants and peer groups", 5: "users"}
HEAD, NAME_AND_LENGTH, SEAL = 40, struct.Struct("<IQ"), 32


def site(folder: Path, settings: dict[str, Any] | None = None) -> Site:
    """With a key that both installations have: else no two states could be compared byte by byte."""
    folder.mkdir(mode=0o700)
    (folder / "key").write_bytes(KEY)
    (folder / "key").chmod(0o600)
    made = Site(folder, load(settings or {}))
    made.journal.beat("w", heartbeat(made.settings))
    return made


def learned(engine: Engine) -> dict[str, bytes]:
    """The state of an engine in parts."""
    data = engine.snapshot("")
    at = HEAD + 4  # an empty label
    parts = {}
    while at < len(data) - SEAL:
        name, length = NAME_AND_LENGTH.unpack_from(data, at)
        at += NAME_AND_LENGTH.size
        if name in LEARNED:
            parts[LEARNED[name]] = data[at : at + length]
        at += length
    return parts


def engine_of(at: Site) -> Engine:
    return restore(at.journal, lambda: build_engine(at.settings, KEY)).engine


def baselines(engine: Engine) -> list[Any]:
    known = sorted((entry["tenant"], entry["user"]) for entry in engine.principals())
    return [engine.baseline(tenant, user) for tenant, user in known]


def take(at: Site, file: Path) -> None:
    result = run("import", "--state", str(at.folder), str(file))
    assert result.exit_code == 0, result.output


def write(file: Path, events: list[Event]) -> Path:
    file.write_text("".join(json.dumps(event) + "\n" for event in events))
    return file


@pytest.mark.parametrize("form", ["jsonl", "parquet", "events", "args"])
@pytest.mark.parametrize(
    ("circumstances", "settings"),
    [
        ({}, {}),
        ({"token": "a token", "group": "a group", "agent": ""}, {}),
        ({}, {"learn_peer_groups": True, "time_zone": "Asia/Tokyo"}),
    ],
    ids=["plain", "tokens and a group", "learned groups"],
)
def test_a_new_installation_is_the_same_byte_by_byte(
    tmp_path: Path, form: str, circumstances: dict[str, str], settings: dict[str, Any]
) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    seen, told = site(tmp_path / "seen", settings), site(tmp_path / "told", settings)
    # Two tenants; calls take longer than the pauses between some of them, so that they overlap.
    events = stream(DAYS, duration=3.0) + stream(DAYS, users=2, seed=6, duration=3.0, tenant="t2")
    events.sort(key=lambda event: event["ts"])
    live(seen, events, **circumstances)
    file = tmp_path / f"file.{form}"
    if form == "args":
        own = [
            {
                **event,
                **circumstances,
                "token": token_of(event, circumstances.get("token", "")),
                "event_id": n,
            }
            for n, event in enumerate(events)
        ]
        write(file, own)
    else:
        command = ["export", "--state", str(seen.folder), "--format", form, "--out", str(file)]
        assert run(*command).exit_code == 0
    take(told, file)
    expected, found = engine_of(seen), engine_of(told)
    assert len(baselines(found)) == 8
    assert baselines(found) == baselines(expected)
    for part, state in learned(expected).items():
        assert learned(found)[part] == state, part
    assert set(learned(found)) == set(LEARNED.values())

    # So both go on alike, to the last bit.
    after = stream(2, seed=7, start=events[-1]["ts"] + DAY - 5 * HOUR)
    scores = []
    for engine in (expected, found):
        policy, risks = engine.policy(), []
        for event in after:
            caller = engine.caller("t1", event["user"], session=event["session"], **circumstances)
            verdict = engine.check(policy, caller, "", event["tool"], event["args"], event["ts"])
            ended = engine.observe(verdict.ticket, "ok", event["ts"], event["cost"] or 0.0)
            risks.append((verdict.risk, getattr(ended, "risk", 0.0)))
        scores.append(risks)
    assert scores[0] == scores[1]
    for each in (seen, told):
        each.close()


def test_history_that_comes_after_live_calls_teaches_counts_and_hours(tmp_path: Path) -> None:
    seen, told = site(tmp_path / "seen"), site(tmp_path / "told")
    events = stream(DAYS + 1)
    last_day = events[0]["ts"] + DAYS * DAY - HOUR
    live(seen, events)
    live(told, [event for event in events if event["ts"] >= last_day])
    take(told, write(tmp_path / "e", [event for event in events if event["ts"] < last_day]))
    compared = 0
    for expected, found in zip(baselines(engine_of(seen)), baselines(engine_of(told)), strict=True):
        assert found["calls"] == expected["calls"]
        assert found["first"] == expected["first"]
        assert found["hours"] == pytest.approx(expected["hours"], abs=1e-4)
        assert found["signals"]["off_hours"] == pytest.approx(expected["signals"]["off_hours"], abs=1e-4)
        # The everyday tools: what was held back as new at one of the two is counted differently.
        everyday = {tool["tool"]: tool["count"] for tool in expected["tools"] if tool["count"] > 20}
        counts = {tool["tool"]: tool["count"] for tool in found["tools"]}
        compared += len(everyday)
        assert {tool: counts[tool] for tool in everyday} == pytest.approx(everyday, rel=0.15)
        assert set(counts) >= set(everyday)
        # Rates and costs of now come from live calls only.
        assert found["signals"]["cost"]["calls"] < expected["signals"]["cost"]["calls"] / 5
    assert compared >= 15
    for each in (seen, told):
        each.close()
