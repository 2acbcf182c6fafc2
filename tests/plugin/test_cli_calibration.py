# SPDX-License-Identifier: Apache-2.0
"""`tool-firewall calibration`: realised rates beside nominal ones, and what a new tool would get."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_support import DAY, HOUR, Site, heartbeat, run
from cpex_tool_firewall.cli.calibration import _column
from cpex_tool_firewall.config import load
from cpex_tool_firewall.detection import KINDS, NOBODYS, PEERS, Detection
from cpex_tool_firewall.engines import build_engine
from cpex_tool_firewall.restoring import restore
from traffic import evaluations, live, stream

NOW = time.time()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two weeks of six users, and the last three days of two others."""
    made = Site(tmp_path_factory.mktemp("calibration") / "state")
    start = (NOW // DAY - 14) * DAY + 12 * HOUR
    events = stream(14, start=start) + stream(3, users=2, seed=9, start=start + 10 * DAY, tenant="t2")
    live(made, sorted(events, key=lambda event: event["ts"]))
    yield made
    made.close()


def calibration(site: Site, *arguments: str, code: int = 0) -> Any:
    result = run("calibration", "--state", str(site.folder), *arguments)
    assert result.exit_code == code, result.output
    return result


def found(site: Site, *arguments: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(calibration(site, *arguments, "--json").stdout)
    return read


def test_rates_are_those_of_the_journal(site: Site) -> None:
    risks = [after for _, after in evaluations(site)]
    rates = found(site, "--since", "30d")["rates"]
    assert [rate["tenant"] for rate in rates] == [None] * 3 + ["t1"] * 3 + ["t2"] * 3
    for rate in rates[:3]:
        reached = sum(risk >= rate["risk"] for risk in risks)
        assert (rate["calls"], rate["reached"]) == (len(risks), reached)
        assert rate["realised"] == reached / len(risks)
        assert rate["low"] < rate["realised"] < rate["high"]
    assert [rate["nominal"] for rate in rates[:3]] == [0.01, 0.001, 0.0001]
    for everybody, one, other in zip(rates[:3], rates[3:6], rates[6:], strict=True):
        assert everybody["reached"] == one["reached"] + other["reached"]


def test_since_and_tenant(site: Site) -> None:
    every, late = found(site, "--since", "30d"), found(site, "--since", str(NOW - 4 * DAY))
    assert 0 < late["calls"] < every["calls"] / 2
    assert late["first"] >= NOW - 4 * DAY
    one = found(site, "--since", "30d", "--tenant", "t2")
    assert [rate["tenant"] for rate in one["rates"]] == ["t2"] * 3
    assert one["rates"] == every["rates"][6:]
    assert one["detection"]["users_known"] == 2


def test_for_people(site: Site) -> None:
    text = calibration(site, "--since", "30d").stdout
    assert "1 in 10,000" in text and "95 % interval" in text
    assert "everybody" in text and "t2" in text
    pictures = [line for line in text.splitlines() if "█" in line and "nominal" in line]
    assert [line.count("█") for line in pictures] == [30, 20, 10]
    assert sum("realised" in line and "┃" in line for line in text.splitlines()) == 3
    assert "a tool that nobody uses" in text
    assert "of 8 users of 8" in text


@pytest.mark.parametrize(
    ("share", "column"),
    [(0.0, 0), (1e-9, 0), (1e-5, 0), (1e-4, 10), (1e-3, 20), (1e-2, 30), (1.0, 50), (0.002, 23)],
)
def test_the_scale_is_logarithmic(share: float, column: int) -> None:
    assert _column(share) == column


def test_a_user(site: Site) -> None:
    read = found(site, "--user", "user4@example.com", "--tenant", "t1")["user"]
    assert (read["calls"] > 200, read["peers_tool"]) == (True, "search")
    assert read["tool_of_nobody"]["tried"] == read["tool_of_peers"]["tried"] == 24
    assert read["tool_of_nobody"]["listed"]["share"] == 1.0
    risks = [probe["risk"] for probe in read["probes"] if probe["kind"] == "tool_of_peers"]
    assert read["tool_of_peers"]["listed"]["share"] == sum(risk >= 1 / 3 for risk in risks) / 24
    assert {probe["after_calls"] for probe in read["probes"]} == set(range(6))
    assert any("new to this user" in reason for probe in read["probes"] for reason in probe["reasons"])
    text = calibration(site, "--user", "user4@example.com", "--tenant", "t1").stdout
    assert "a tool that nobody uses would be seen with probability 1.00, and reach 0.5 with" in text
    assert "search, which only others of the peer group use, would be seen with probability" in text


def test_users_are_found_or_named(site: Site) -> None:
    several = calibration(site, "--user", "user0@example.com", code=2)
    assert "is known in several tenants; choose one with --tenant: t1, t2" in several.stderr
    unknown = calibration(site, "--user", "user9@example.com", code=1)
    assert "nothing was learned of user9@example.com; nearest: user" in unknown.stderr
    elsewhere = calibration(site, "--user", "user5@example.com", "--tenant", "t2", code=1)
    assert "nothing was learned of user5@example.com in tenant t2" in elsewhere.stderr


def test_a_newcomer_is_not_judged_as_somebody_known(site: Site) -> None:
    # With three days and two users little can be new with confidence, and the command says so.
    new, known = (found(site, "--tenant", tenant)["detection"] for tenant in ("t2", "t1"))
    assert new["tool_of_nobody"]["median_risk"] < known["tool_of_nobody"]["median_risk"]


def test_it_changes_nothing_and_says_the_same_twice(site: Site) -> None:
    cursor = site.journal.last()
    first = calibration(site, "--json", "--since", "1000000").stdout
    assert calibration(site, "--json", "--since", "1000000").stdout == first
    assert site.journal.last() == cursor


def test_probes_leave_the_engine_as_it_is_and_name_tools_of_the_group(site: Site) -> None:
    def build() -> Any:
        return build_engine(site.settings, site.state.key)

    engine = restore(site.journal, build).engine
    before = engine.snapshot("")
    detection = Detection(engine, build, session_idle=1800.0)
    assert detection.sample(3) == detection.sample(3)
    assert len(detection.sample(99)) == len(detection.users) == 8
    probes = [probe for user in detection.users for probe in detection.probes(user, range(2))]
    assert engine.snapshot("") == before
    assert {probe.kind for probe in probes} == set(KINDS)
    for probe in probes:
        learned = engine.baseline(probe.user.tenant, probe.user.name) or {}
        assert probe.tool not in {tool["tool"] for tool in learned["tools"]}
        assert (probe.kind == PEERS) == bool(probe.tool)
    # The same question gets the same answer, whatever was asked before it.
    again = [probe for user in reversed(detection.users) for probe in detection.probes(user, [1, 0])]
    assert sorted(again, key=repr) == sorted(probes, key=repr)
    assert {probe.after for probe in probes if probe.kind == NOBODYS} == {0, 1}


def test_groups_that_were_learned_are_in_force_in_probes(tmp_path: Path) -> None:
    seen = Site(tmp_path / "state", load({"learn_peer_groups": True}))
    seen.journal.beat("w", heartbeat(seen.settings))
    live(seen, stream(14, users=9))

    def build() -> Any:
        return build_engine(seen.settings, seen.state.key)

    engine = restore(seen.journal, build).engine
    detection = Detection(engine, build, session_idle=1800.0)
    learned = {user: engine.baseline(user.tenant, user.name) or {} for user in detection.users}
    groups = {found["group"] for found in learned.values()}
    assert len(groups) > 1
    tools = {
        group: {
            tool["tool"] for found in learned.values() if found["group"] == group for tool in found["tools"]
        }
        for group in groups
    }
    for user in detection.users:
        for probe in detection.probes(user, range(2)):
            assert probe.kind == NOBODYS or probe.tool in tools[learned[user]["group"]]
    text = run("baseline", "show", "user0@example.com", "--state", str(seen.folder)).stdout
    assert "(a peer group learned from the use of tools)" in text
    seen.close()


def test_an_empty_journal(tmp_path: Path) -> None:
    empty = Site(tmp_path / "state")
    text = calibration(empty).stdout
    assert "no call was scored since" in text and "there is nothing to compare yet" in text
    assert "there is nobody to try new tools with" in text
    read = found(empty)
    assert (read["calls"], read["first"], read["rates"][0]["realised"]) == (0, None, None)
    assert read["detection"]["tool_of_nobody"]["listed"]["share"] is None
    empty.close()


def test_too_little_data(tmp_path: Path) -> None:
    young = Site(tmp_path / "state")
    young.habit("alice", days=2, start=NOW - 2 * DAY)
    text = calibration(young).stdout
    assert "too few calls" in text
    assert "are needed, which takes" in text
    assert "less than 3 days old" in text
    assert "none to try" in text  # alice has no peers
    young.close()


def test_imported_history_is_left_out(site: Site, tmp_path: Path) -> None:
    file, other = tmp_path / "a.jsonl", Site(tmp_path / "other")
    assert run("export", "--state", str(site.folder), "--out", str(file)).exit_code == 0
    assert run("import", "--state", str(other.folder), str(file)).exit_code == 0
    text = calibration(other, "--since", "30d").stdout
    assert "imported calls left out): there is nothing to compare yet" in text
    assert "a tool that nobody uses" in text  # which needs no scores
    other.close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--since", "yesterday"], "is not a time"), (["--sample", "0"], "--sample")],
)
def test_wrong_usage(site: Site, arguments: list[str], said: str) -> None:
    assert said in calibration(site, *arguments, code=2).stderr
