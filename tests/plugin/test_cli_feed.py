# SPDX-License-Identifier: Apache-2.0
"""`tool-firewall feed` and `finding show` over a real journal: rows, filters, following, what is hidden."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_support import DAY, HOUR, Site, run
from cpex_tool_firewall.cli import tailing
from cpex_tool_firewall.feed import Finding
from rich.console import Console

SECRET = "s3cr3t-argument-value"
TOKEN = "raw-token-id-4711"


@pytest.fixture
def hour() -> float:
    """The start of an hour of yesterday."""
    return (time.time() - DAY) // HOUR * HOUR


@pytest.fixture
def site(tmp_path: Path, hour: float) -> Iterator[Site]:
    """Two users with a history of ten days, a burst, and a tool that is new to everybody."""
    made = Site(tmp_path / "state")
    for user in ("alice", "bob"):
        made.habit(user, days=10, start=hour - 10 * DAY)
    made.call("alice", "delete_records", hour + 60, mode="shadow", token=TOKEN, argument=SECRET)
    made.burst("bob", hour + 300, mode="block")
    yield made
    made.close()


def feed(site: Site, *arguments: str) -> list[dict]:
    result = run("feed", *arguments, "--json", "--state", str(site.folder))
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def shown(site: Site, *arguments: str) -> str:
    result = run("feed", *arguments, "--state", str(site.folder))
    assert result.exit_code == 0, result.stderr
    return result.stdout


def uid_of(site: Site, signal: str) -> str:
    (found,) = [row for row in feed(site, "--all") if row["signal"] == signal]
    return found["uid"]


def test_one_row_for_each_incident(site: Site) -> None:
    found = feed(site, "--since", "2d")
    assert [(row["user"], row["signal"]) for row in found] == [("alice", "novel_path"), ("bob", "burst")]
    burst = found[1]
    assert burst["count"] > 3
    assert burst["blocked"] == burst["verdicts"]["deny"] > 0
    assert set(burst) == set(Finding.__slots__) - {"parts"}


def test_the_table_tells_the_same(site: Site) -> None:
    text = shown(site, "--since", "2d")
    alice, bob = (line for line in text.splitlines() if " by " in line)
    assert "delete_records by alice" in alice and "1 call " in alice
    assert alice.startswith("0.") and "novel_path" in alice
    assert "db_query by bob" in bob
    assert "the limit is 20 in 60 s" in text
    assert "Also: novelty." in text
    assert "Suggested: rate_limit." in text
    assert text.splitlines()[-1].startswith("2 findings since 20")


def test_an_empty_feed_says_so(tmp_path: Path) -> None:
    site = Site(tmp_path / "state")
    assert feed(site) == []
    assert shown(site).startswith("no findings since")
    site.close()


def test_filters(site: Site) -> None:
    assert [row["user"] for row in feed(site, "--user", "bob", "--since", "2d")] == ["bob"]
    assert [row["user"] for row in feed(site, "--tool", "delete_records")] == ["alice"]
    assert [row["user"] for row in feed(site, "--signal", "burst")] == ["bob"]
    assert feed(site, "--tenant", "t2") == []
    assert feed(site, "--since", "10m") == []
    assert len(feed(site, "--since", "30d")) > 2  # what was new at first


def test_only_the_last_seven_days_unless_asked(site: Site) -> None:
    site.call("carol", "delete_records", time.time() - 8 * DAY)
    assert not [row for row in feed(site) if row["user"] == "carol"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--signal", "bursts"], "'bursts' is not a signal; there are: novelty, "),
        (["--since", "soon"], "not a time"),
    ],
)
def test_wrong_usage_ends_with_2(site: Site, arguments: list[str], said: str) -> None:
    result = run("feed", *arguments, "--state", str(site.folder))
    assert result.exit_code == 2
    assert said in result.stderr


def test_hidden_rows_are_counted_and_shown_on_request(site: Site) -> None:
    assert run("snooze", "2h", "--user", "bob", "--state", str(site.folder)).exit_code == 0
    assert [row["user"] for row in feed(site, "--since", "2d")] == ["alice"]
    text = shown(site, "--since", "2d")
    assert "db_query" not in text
    assert "1 finding since" in text and "1 snoozed or suppressed (--all shows them)" in text
    everything = shown(site, "--since", "2d", "--all")
    assert "[snoozed until 20" in everything
    (row,) = [row for row in feed(site, "--all", "--since", "2d") if row["user"] == "bob"]
    assert row["snoozed"] and row["snoozed_until"] > time.time()


def test_rows_fit_into_a_hundred_columns(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.call(
        "a-very-long-user-name@some-department.example.com",
        "a_tool_with_quite_a_long_name",
        time.time() - 600,
    )
    monkeypatch.setattr("cpex_tool_firewall.cli.output.Console", narrow(100))
    text = shown(site)
    assert max(len(line) for line in text.splitlines()) <= 100
    assert "a_tool_with_quite_a_long_name by a-v…  " in text
    whole = "a_tool_with_quite_a_long_name by a-very-long-user-name@some-department.example.com"
    assert whole in " ".join(text.split())


def test_risks_have_colours_in_a_terminal(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cpex_tool_firewall.cli.output.Console", narrow(100, color_system="standard"))
    lines = [line for line in shown(site, "--since", "2d").splitlines() if " by " in line]
    assert "\x1b[31m0." in lines[0]


def narrow(width: int, **more: object) -> Callable[..., Console]:
    """A terminal of that width."""

    def make(**options: object) -> Console:
        return Console(**{**options, "width": width, "force_terminal": True, "color_system": None, **more})  # type: ignore[arg-type]

    return make


class Later:
    """Stands for the time between two looks: does one thing at each, then the user interrupts."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        self._steps = list(steps)

    def sleep(self, seconds: float) -> None:
        if not self._steps:
            raise KeyboardInterrupt
        self._steps.pop(0)()


def test_following_shows_what_comes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    steps = Later(
        lambda: site.call("bob", "drop_table", now, mode="warn"),
        lambda: None,
        lambda: site.call("bob", "wipe_disk", now + 1, mode="warn"),
    )
    monkeypatch.setattr(tailing, "time", steps)
    text = shown(site, "--follow", "--since", "2d")
    rows = [line for line in text.splitlines() if " by " in line]
    assert [row.split(" by ")[0].split()[-1] for row in rows] == [
        "delete_records",
        "db_query",
        "drop_table",
        "wipe_disk",
    ]


def test_following_as_json_is_one_object_a_line(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        tailing, "time", Later(lambda: site.call("bob", "drop_table", time.time(), mode="warn"))
    )
    result = run("feed", "--follow", "--json", "--since", "2d", "--state", str(site.folder))
    assert result.exit_code == 0
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["tool"] for row in rows] == ["delete_records", "db_query", "drop_table"]


def test_following_keeps_quiet_about_what_is_snoozed_meanwhile(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = Later(
        lambda: run("snooze", "1h", "--user", "bob", "--state", str(site.folder)),
        lambda: site.call("bob", "drop_table", time.time(), mode="warn"),
    )
    monkeypatch.setattr(tailing, "time", steps)
    assert "drop_table" not in shown(site, "--follow", "--since", "2d")


# --- finding show ---


def test_a_finding_by_uid_by_its_beginning_and_by_incident(site: Site) -> None:
    (row,) = [row for row in feed(site, "--since", "2d") if row["signal"] == "burst"]
    texts = []
    for name in (row["uid"], row["uid"][:9], row["incidents"][0], row["incidents"][-1]):
        result = run("finding", "show", name, "--state", str(site.folder))
        assert result.exit_code == 0, result.stderr
        texts.append(result.stdout)
    assert len(set(texts)) == 1
    text = texts[0]
    assert row["uid"] in text
    assert "ASI08 Cascading Failures" in text
    assert f"{row['count']} of 25" in text  # the picture of the hour: of all his calls
    assert text.count(":0") > 3
    assert "db_query -> db_query" in text and "stopped" in text
    assert row["incidents"][0] in text
    assert "rate_limit" in text


def test_a_finding_as_json_has_its_calls_and_their_endings(site: Site) -> None:
    result = run("finding", "show", uid_of(site, "burst"), "--state", str(site.folder), "--json")
    found = json.loads(result.stdout)
    assert len(found["calls"]) == found["count"]
    assert {call["verdict"] for call in found["calls"]} >= {"deny"}
    result = run(
        "finding",
        "show",
        feed(site, "--user", "alice", "--since", "2d")[0]["uid"],
        "--state",
        str(site.folder),
        "--json",
    )
    (call,) = json.loads(result.stdout)["calls"]
    assert (call["outcome"], call["cost"], call["verdict"]) == ("ok", None, "audit")
    assert call["reason"].startswith("[shadow] would deny: delete_records")


def test_hidden_findings_can_be_looked_at(site: Site) -> None:
    uid = uid_of(site, "burst")
    run("snooze", "1h", "--state", str(site.folder))
    assert "until 20" in run("finding", "show", uid, "--state", str(site.folder)).stdout


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("f-000000000000", 1, "there is no such finding"),
        ("tf-000000000000", 1, "no call of that incident"),
        ("nonsense", 2, "names no finding; accepted: a uid"),
        ("f-12", 2, "names no finding; accepted: a uid"),
    ],
)
def test_what_is_no_finding_is_one_clear_line(site: Site, name: str, code: int, said: str) -> None:
    result = run("finding", "show", name, "--state", str(site.folder))
    assert result.exit_code == code
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_no_argument_token_or_control_character_comes_out(site: Site) -> None:
    evil = "eve\x1b[2J\r\n[red]x[/red]"
    site.call(evil, "tool\x07", time.time() - 60, mode="warn")
    site.burst(evil, time.time() - 50, mode="warn")
    state = ["--state", str(site.folder)]
    for command in (
        ["feed", "--all"],
        ["feed", "--all", "--json"],
        ["events", "--last", "0"],
        ["events", "--json"],
        *(["finding", "show", row["uid"]] for row in feed(site, "--all")),
        *(["runs", row["session"]] for row in feed(site, "--all")),
    ):
        result = run(*command, *state)
        assert result.exit_code == 0, result.stderr
        assert not any(character in result.output for character in "\x1b\r\x07"), command
        assert SECRET not in result.output and TOKEN not in result.output
        assert "4711-argument" not in result.output
