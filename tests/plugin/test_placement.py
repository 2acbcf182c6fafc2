# SPDX-License-Identifier: Apache-2.0
"""What is wrong with how the gateway runs the plugin, and what our instances alone can tell of it."""

from typing import Any

import pytest
from cpex.framework import PluginMode
from cpex_tool_firewall._native import encode_control, pack
from cpex_tool_firewall.alarms import Alarms
from cpex_tool_firewall.config import load
from cpex_tool_firewall.engines import build_engine
from cpex_tool_firewall.gateway_view import Run, View
from cpex_tool_firewall.placement import Lookout, Placement, judge, may_block
from hooks import Firewall

NAME = "ToolFirewall"
TEAM_TOOL = "team::lab-delete-records"
OTHER_TOOL = "team::lab-db-query"


def run(mode: str = "sequential", context: str = "", **more: Any) -> Run:
    return Run(**{"plugin": NAME, "context": context, "mode": mode, "priority": 900} | more)


def problems(*runs: Run, blocks: bool = True, configured: Run | None = None) -> list[str]:
    return list(judge(runs, (configured or run(),), lambda _: blocks).problems)


# --- judging ---


@pytest.mark.parametrize("mode", ["sequential", "concurrent"])
@pytest.mark.parametrize("blocks", [True, False])
def test_a_mode_that_can_stop_calls_is_fine(mode: str, blocks: bool) -> None:
    assert problems(run(mode), blocks=blocks) == []


@pytest.mark.parametrize("mode", ["transform", "audit", "fire_and_forget"])
def test_a_mode_that_cannot_stop_calls_is_a_problem_in_block_mode(mode: str) -> None:
    (said,) = problems(run(mode), configured=run(mode))
    assert f"`{mode}`" in said
    assert "stops nothing" in said
    assert 'PUT /admin/plugins/ToolFirewall {"mode": "enforce"}' in said


def test_a_mode_weaker_than_configured_is_a_problem_whatever_the_firewalls_mode() -> None:
    (said,) = problems(run("transform"), blocks=False)
    assert "would stop nothing" in said
    assert problems(run("transform"), blocks=False, configured=run("transform")) == []


@pytest.mark.parametrize("mode", ["audit", "fire_and_forget"])
def test_a_mode_in_which_ends_of_calls_are_not_seen_is_a_problem_in_any_mode(mode: str) -> None:
    (said,) = problems(run(mode), blocks=False, configured=run(mode))
    assert "how calls end is not seen" in said


def test_disabled_is_a_problem_in_any_mode() -> None:
    (said,) = problems(run("disabled"), blocks=False, configured=run("disabled"))
    assert "not screened" in said


def test_a_plugin_that_could_not_be_loaded_is_a_problem() -> None:
    (said,) = problems(run(), run(context=TEAM_TOOL, loaded=False))
    assert "could not be loaded for lab-delete-records" in said


def test_the_switch_for_all_plugins_is_a_problem() -> None:
    found = judge([run()], [run()], lambda _: False, enabled=False)
    assert found.plugin_mode == "disabled"
    assert "switched off" in found.problems[0]


@pytest.mark.parametrize("on_error", ["ignore", "disable"])
def test_going_on_after_an_error_is_a_problem_where_it_was_not_configured_or_calls_are_blocked(
    on_error: str,
) -> None:
    (said,) = problems(run(on_error=on_error), blocks=False)
    assert f"`{on_error}`" in said
    assert problems(run(on_error=on_error), blocks=True, configured=run(on_error=on_error))
    assert problems(run(on_error=on_error), blocks=False, configured=run(on_error=on_error)) == []


def test_plugins_after_ours_are_named() -> None:
    (said,) = problems(run(priority=50, later=("Policy", "Limits")))
    assert "Policy, Limits may stop calls after this plugin (priority 50)" in said


def test_tools_with_a_problem_of_their_own_are_named_and_counted() -> None:
    few = [run("transform", f"team::tool-{number}") for number in (2, 1)]
    assert "for tool-1, tool-2:" in problems(run(), *few)[0]
    many = [run("transform", f"team::tool-{number}") for number in range(9)]
    assert "for tool-0, tool-1, tool-2, 6 more:" in problems(run(), *many)[0]
    assert " for " not in problems(*many)[0]
    (said,) = problems(run("transform"), run(context=TEAM_TOOL))
    assert "for all tools without a binding of their own:" in said


def test_the_weakest_mode_and_the_lowest_priority_are_told() -> None:
    found = judge([run(), run("transform", TEAM_TOOL, priority=5)], [run()], lambda _: True)
    assert (found.plugin_mode, found.plugin_priority) == ("transform", 5)
    unknown = judge([run("something new"), run()], [run()], lambda _: True)
    assert unknown.plugin_mode == "something new"


# --- where block mode is in force ---


@pytest.mark.parametrize(
    ("scope", "where", "expected"),
    [
        ({}, run(), True),
        ({}, run(context=TEAM_TOOL), True),
        ({"tenant": "team"}, run(), True),
        ({"tenant": "team"}, run(context=TEAM_TOOL), True),
        ({"tenant": "others"}, run(context=TEAM_TOOL), False),
        ({"tenant": "others"}, run(), True),
        ({"tool": "x"}, run(context=TEAM_TOOL), True),
        (None, run(context=TEAM_TOOL), False),
        (None, run(firewall_mode="block"), True),
        (None, run(firewall_mode="not a mode"), False),
    ],
)
def test_block_mode_counts_where_it_can_meet_the_tool(
    scope: dict[str, str] | None, where: Run, expected: bool
) -> None:
    now, settings = 1_790_000_000.0, load({})
    engine = build_engine(settings, bytes(32))
    if scope is not None:
        everything = {"tenant": "", "tool": "", "user": ""} | scope
        record = encode_control(
            ts=now, worker=5, seq=1, action="mode", value="block", by="test", why="", **everything
        )
        engine.apply([body for _, _, body in pack([record])])
    assert may_block(engine, settings, where, now) is expected


# --- instances alone ---


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def look(lookout: Lookout, *instances: Any, gateway: View | None = None) -> Placement:
    return lookout.look(instances, lambda _: True, lambda: gateway)


def test_without_a_view_the_instances_tell(firewall: Firewall) -> None:
    lookout = Lookout()
    assert look(lookout) == Placement()
    strong = firewall.instance()
    assert look(lookout, strong) == Placement("sequential", strong.config.priority)
    weak = firewall.instance()
    weak._config = weak.config.model_copy(update={"mode": PluginMode.TRANSFORM})
    found = look(lookout, strong, weak)
    assert found.plugin_mode == "transform"
    assert len(found.problems) == 1


async def test_without_a_view_the_lasting_absence_of_instances_is_a_problem(firewall: Firewall) -> None:
    clock = Clock()
    lookout = Lookout(clock)
    instance = firewall.instance()
    look(lookout, instance)
    await instance.shutdown()
    assert look(lookout, instance).problems == (), "it may be about to be made anew"
    clock.now += 11
    (said,) = look(lookout, instance).problems
    assert "shut the plugin down" in said
    assert look(lookout, instance, firewall.instance()).problems == ()


def test_the_alarm_begins_and_ends() -> None:
    alarms = Alarms()
    Placement("transform", 900, ("it cannot stop calls",)).tell(alarms)
    assert alarms.active() == ["override: it cannot stop calls"]
    Placement("sequential", 900).tell(alarms)
    assert alarms.active() == []
