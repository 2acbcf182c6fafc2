# SPDX-License-Identifier: Apache-2.0
"""Costs, findings that only an ending told, and ambiguous names, on the command line: with made records."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_support import Site, run
from cpex_tool_firewall import records as records_module
from cpex_tool_firewall.cli import incidents
from made_records import NOON, OTHER_SESSION, SESSION, call, outcome


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "state")
    yield made
    made.close()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """What the journal holds, as far as the commands can see."""
    held: list[dict] = []

    class Made:
        damaged = cursor = 0

        def __init__(
            self, journal: Any, selection: Any = None, progress: Any = None, *, after: int = 0
        ) -> None:
            self._selection = selection or records_module.Selection()

        def __iter__(self) -> Iterator[dict]:
            return (dict(fields) for fields in held if self._selection.takes(fields))

    monkeypatch.setattr(records_module, "JournalRecords", Made)
    return held


def command(site: Site, *arguments: str) -> Any:
    return run(*arguments, "--state", str(site.folder))


def test_a_run_shows_costs_and_what_the_ending_told(site: Site, made: list[dict]) -> None:
    cheap, dear = call(ts=NOON), call(ts=NOON + 5)
    made += [cheap, outcome(cheap, cost=0.25), dear, outcome(dear, "cost", cost=8.0)]
    found = json.loads(command(site, "runs", SESSION[:6], "--json").stdout)
    first, second = found["calls"]
    assert (first["cost"], first["risk"], first["verdict"]) == (0.25, 0.05, "allow")
    assert (second["cost"], second["risk"], second["verdict"]) == (8.0, 0.6, "audit")
    assert second["signals"] == ["cost"]
    assert second["reason"].startswith("cost was")
    text = command(site, "runs", SESSION).stdout
    assert "cost 8.25" in text and "0.60" in text


def test_a_second_copy_of_a_call_is_one_step(site: Site, made: list[dict]) -> None:
    only = call()
    made += [only, outcome(only, cost=1.5), only]
    (shown,) = json.loads(command(site, "runs", SESSION, "--json").stdout)["calls"]
    assert (shown["step"], shown["cost"]) == (1, 1.5)


def test_the_beginning_of_several_sessions_is_refused(site: Site, made: list[dict]) -> None:
    made += [call(session="abcd" + "0" * 12), call(session="abcd" + "1" * 12), call(session=OTHER_SESSION)]
    result = command(site, "runs", "abcd")
    assert result.exit_code == 2
    assert "several sessions begin so: abcd000000000000, abcd111111111111" in result.stderr


def test_events_have_a_row_for_what_only_the_ending_told(site: Site, made: list[dict]) -> None:
    only = call()
    made += [only, outcome(only, "cost", mode="shadow")]
    rows = [json.loads(line) for line in command(site, "events", "--json").stdout.splitlines()]
    assert [row["surface"] for row in rows] == ["tool_pre_invoke", "tool_post_invoke"]
    text = command(site, "events").stdout
    assert "cost: after the call: [shadow] would deny: cost was 7" in text


def test_a_late_finding_can_be_looked_at(site: Site, made: list[dict]) -> None:
    only = call()
    made += [only, outcome(only, "cost", cost=8.0)]
    found = json.loads(command(site, "finding", "show", only["incident"], "--json").stdout)
    assert (found["signal"], found["count"]) == ("cost", 1)
    (shown,) = found["calls"]
    assert (shown["cost"], shown["surface"]) == (8.0, "tool_post_invoke")
    assert "1 of 1" in command(site, "finding", "show", found["uid"]).stdout


def test_the_beginning_of_several_findings_is_refused(
    site: Site, made: list[dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    made += [call("novelty"), call("burst")]
    monkeypatch.setattr(incidents, "is_uid", lambda text: True)
    result = command(site, "finding", "show", "f-")
    assert result.exit_code == 2
    assert "several findings begin so: f-" in result.stderr


def test_destinations_are_shown(site: Site, made: list[dict]) -> None:
    made.append(call("argument_novelty", destinations=["paste.example", "evil\x1b.example"]))
    found = json.loads(command(site, "finding", "show", made[0]["incident"], "--json").stdout)
    assert found["destinations"] == ["paste.example", "evil\x1b.example"]
    text = command(site, "finding", "show", found["uid"]).stdout
    assert "paste.example" in text and "\x1b" not in text
