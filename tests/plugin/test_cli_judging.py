# SPDX-License-Identifier: Apache-2.0
"""`tool-firewall news`, `accept` and `reject`: which items are meant, what is written, what is refused."""

import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_support import DAY, Site, run
from cpex_tool_firewall.cli import judging
from cpex_tool_firewall.cli.history import History, read_history

TOOL, STEP, OTHER = "i-" + "1" * 16, "i-" + "2" * 16, "i-" + "3" * 16


class WithNews:
    """An engine with a list of new behaviours made for the test."""

    def __init__(self, engine: Any, items: list[dict]) -> None:
        self._engine, self._items = engine, items

    def news(self, tenant: str = "", user: str = "") -> list[dict]:
        return [item for item in self._items if tenant in ("", item["tenant"]) and user in ("", item["user"])]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


def item(name: str, since: float, **more: Any) -> dict:
    return {
        "tenant": "t1",
        "user": "alice",
        "id": name,
        "kind": "tool",
        "tool": "delete_records",
        "from": "",
        "since": since,
        "risk": 0.6,
        "state": "held",
        "until": since + 2 * DAY,
        **more,
    }


@pytest.fixture
def now() -> float:
    return time.time() - 600


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now: float) -> Iterator[Site]:
    made = Site(tmp_path / "state")
    made.habit("alice", start=now - 5 * DAY)
    made.habit("bob", start=now - 5 * DAY)
    made.call("alice", "delete_records", now, mode="warn")
    items = [
        item(TOOL, now),
        item(STEP, now, kind="step", **{"from": "db_query"}, state="listed", until=0.0),
        item(
            OTHER, now, user="bob", tool="export", kind="argument", what="host", state="rejected", until=0.0
        ),
    ]

    def read(folder: str | None) -> History:
        history = read_history(folder)
        return dataclasses.replace(history, engine=WithNews(history.engine, items))  # type: ignore[arg-type]

    monkeypatch.setattr(judging, "read_history", read)
    yield made
    made.close()


def command(site: Site, *arguments: str) -> Any:
    return run(*arguments, "--state", str(site.folder))


def judged(site: Site) -> list[tuple]:
    names = ("action", "tenant", "user", "tool", "value")
    return [tuple(record[name] for name in names) for record in site.controls()]


def incident(site: Site, signal: str, user: str) -> dict:
    rows = json.loads(run("feed", "--json", "--state", str(site.folder)).stdout)
    return next(row for row in reversed(rows) if row["signal"] == signal and row["user"] == user)


def test_news_is_a_list(site: Site) -> None:
    text = command(site, "news").stdout
    assert TOOL in text and "the tool delete_records" in text and "held" in text
    assert "delete_records right after db_query" in text
    assert "a new host in the arguments of export" in text and "rejected" in text
    found = json.loads(command(site, "news", "--json", "--user", "bob").stdout)
    assert [entry["id"] for entry in found] == [OTHER]
    assert "nothing new" in command(site, "news", "--tenant", "t2").stdout


@pytest.mark.parametrize("verb", ["accept", "reject"])
def test_an_item_is_judged(site: Site, verb: str) -> None:
    result = command(site, verb, TOOL, "--why", "ticket 4711")
    assert result.exit_code == 0, result.stderr
    assert f"{verb}ed: the tool delete_records, of alice" in result.stdout
    assert judged(site) == [(verb, "t1", "alice", "delete_records", TOOL)]
    assert (site.controls()[0]["why"], site.controls()[0]["by"] != "") == ("ticket 4711", True)


def test_several_items_at_once_each_once(site: Site) -> None:
    found = json.loads(command(site, "accept", TOOL, OTHER, TOOL, "--json").stdout)
    assert [entry["id"] for entry in found["accepted"]] == [TOOL, OTHER]
    assert len(judged(site)) == 2


@pytest.mark.parametrize("verb", ["accept", "reject"])
@pytest.mark.parametrize("by", ["uid", "incident"])
def test_an_incident_stands_for_what_its_tool_brought(site: Site, verb: str, by: str) -> None:
    row = incident(site, "novel_path", "alice")
    name = row["uid"] if by == "uid" else row["incidents"][0]
    assert command(site, verb, name).exit_code == 0
    assert [entry[4] for entry in judged(site)] == [TOOL, STEP]


def test_an_incident_without_anything_new_is_one_clear_line(site: Site, now: float) -> None:
    site.call("bob", "wipe_disk", now, mode="warn")
    result = command(site, "accept", incident(site, "novel_path", "bob")["uid"])
    assert result.exit_code == 1
    assert "brought nothing new that waits for a judgement" in result.stderr
    assert judged(site) == []


def test_bursts_are_accepted_for_a_user(site: Site, now: float) -> None:
    assert command(site, "accept", "burst", "--user", "bob").exit_code == 0
    site.burst("bob", now + 10)
    assert command(site, "accept", incident(site, "burst", "bob")["incidents"][0]).exit_code == 0
    assert judged(site) == [
        ("accept", "t1", "bob", "", "burst"),
        ("accept", "t1", "bob", "db_query", "burst"),
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["accept", "i-" + "9" * 16], 1, "there is no such new behaviour"),
        (["accept", TOOL, "--user", "bob"], 1, "there is no such new behaviour"),
        (["accept", "nonsense"], 2, "names no finding"),
        (["accept", "burst"], 2, "name the user with --user"),
        (["accept", "burst", "--user", "nobody"], 1, "nothing was learned of nobody"),
        (["reject", "burst", "--user", "bob"], 2, "can be accepted, not rejected"),
        (["accept", TOOL, "--why", "x" * 201], 2, "why: 201 characters"),
        (["accept"], 2, ""),
    ],
)
def test_what_cannot_be_judged_changes_nothing(
    site: Site, arguments: list[str], code: int, said: str
) -> None:
    result = command(site, *arguments)
    assert result.exit_code == code
    assert said in result.stderr
    assert judged(site) == []
