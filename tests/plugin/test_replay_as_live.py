# SPDX-License-Identifier: Apache-2.0
"""Exported events, replayed, score as the live traffic did, whatever the traffic was like."""

import json
from pathlib import Path
from typing import Any

import pytest
from cli_support import Site, run
from traffic import Event, evaluations, live, stream


def servers(events: list[Event]) -> list[Event]:
    """Two servers with tools of the same names."""
    return [{**event, "server": f"server {number % 2}"} for number, event in enumerate(events)]


@pytest.mark.parametrize(
    ("events", "circumstances"),
    [
        pytest.param(stream(14), {}, id="calls that take no time"),
        pytest.param(stream(14), {"group": "team", "agent": "team"}, id="a group named as its agent"),
        pytest.param(stream(14, duration=3.0), {}, id="calls that take three seconds"),
        pytest.param(servers(stream(14)), {}, id="tools of the same name on two servers"),
        pytest.param(stream(14), {"token": "one"}, id="tokens"),
        pytest.param(stream(14), {"group": "team", "agent": ""}, id="a peer group without an agent"),
    ],
)
def test_replayed_risks_are_the_live_ones(
    tmp_path: Path, events: list[Event], circumstances: dict[str, Any]
) -> None:
    seen = Site(tmp_path / "seen")
    live(seen, events, **circumstances)
    file, out = tmp_path / "events.jsonl", tmp_path / "out"
    exported = run("export", "--state", str(seen.folder), "--format", "events", "--out", str(file))
    assert exported.exit_code == 0, exported.output
    assert run("replay", str(file), "--out", str(out)).exit_code == 0
    scores = [json.loads(line) for line in out.read_text().splitlines()]
    expected = list(evaluations(seen))
    worst = max(abs(score["risk"] - after) for score, (_, after) in zip(scores, expected, strict=True))
    assert worst < 1e-9
    seen.close()
