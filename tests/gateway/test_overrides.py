# SPDX-License-Identifier: Apache-2.0
"""What weakens the plugin in the gateway is an alarm in `status`, the log and a metric, until it ends."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import HERE, Screened
from gateway_lab.firewall import NAME
from gateway_lab.metrics import samples

# The issue asks for 60 s; a heartbeat comes every 5 s.
SECONDS = 60.0
NOVEL = {"table": "customers"}


class Site:
    """A gateway in block mode, in which delete_records is new to everybody."""

    def __init__(self, screened: Screened) -> None:
        self.lab, self.firewall = screened.lab, screened.firewall

    def put(self, mode: str) -> None:
        self.lab.administrator.request("PUT", f"/admin/plugins/{NAME}", json={"mode": mode})

    def bind(self, tool: str, **policy: Any) -> str:
        """Binds a tool to a policy of its own; the id of the binding."""
        team = self.lab.installation.team
        policies = [
            {"tool_names": [self.lab.tool(tool)], "plugin_id": NAME, "mode": "enforce", "priority": 900}
            | {"config": {}}
            | policy
        ]
        self.lab.administrator.request(
            "POST", "/v1/tools/plugin_bindings/", json={"teams": {team: {"policies": policies}}}
        )
        found = self.lab.administrator.request("GET", f"/v1/tools/plugin_bindings/{team}")
        (binding,) = found["bindings"] if isinstance(found, dict) else found
        return str(binding["id"])

    def unbind(self, binding: str) -> None:
        self.lab.administrator.request("DELETE", f"/v1/tools/plugin_bindings/{binding}")

    def is_blocked(self, tool: str = "delete_records", arguments: dict[str, Any] | None = None) -> bool:
        answer = self.lab.call("alice", tool, NOVEL if arguments is None else arguments)
        assert answer.ok or "Stopped by the tool firewall" in answer.text, answer
        return not answer.ok

    def worker(self) -> dict[str, Any]:
        """What `status` says about the one worker."""
        shown = self.firewall.command("status", "--json")
        assert shown.returncode == 0, shown.stderr
        (worker,) = [one for one in json.loads(shown.stdout)["workers"] if one["state"] == "alive"]
        found: dict[str, Any] = worker
        return found

    def alarm(self) -> str:
        """The text of the alarm in `status`, "" when it is off."""
        return next((text for text in self.worker()["alarms"] if text.startswith("override:")), "")

    def wait_for_alarm(self) -> str:
        _wait(lambda: self.alarm() != "")
        return self.alarm()

    def wait_for_end(self) -> None:
        _wait(lambda: self.alarm() == "")

    def logged(self, words: str) -> int:
        return sum(
            "alarm [override]" in line and words in line for line in self.lab.gateway_log().splitlines()
        )

    def metrics(self) -> tuple[float, float]:
        """How often the alarm was raised, and how many alarms are on."""
        page = self.lab.prometheus()
        return (
            samples(page, "tool_firewall_alarms_total", cause="override"),
            samples(page, "tool_firewall_alarms_active"),
        )


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {SECONDS:g} s"
        time.sleep(0.5)


@pytest.fixture(scope="module")
def site(start_lab: Callable[..., Screened]) -> Iterator[Site]:
    policy = {
        "name": "Policy",
        "kind": "spy_plugin.SpyPlugin",
        "hooks": ["tool_pre_invoke"],
        "mode": "sequential",
        "priority": 10,
        "config": {"notes": "/dev/null"},
    }
    started = start_lab(users=("alice", "bob", "dave", "erin"), plugins=[policy], python_path=[HERE])
    made = Site(started)
    made.firewall.mode("block")
    assert made.is_blocked()
    yield made
    started.lab.stop()


@pytest.fixture(autouse=True)
def calm(site: Site) -> None:
    """Every test begins without an alarm."""
    site.wait_for_end()
    assert site.worker()["plugin_mode"] == "sequential"
    assert site.worker()["plugin_priority"] == 900


# The bindings come first: a mode set by PUT, even `enforce`, beats that of a binding from then on.


def test_a_binding_that_cannot_block_is_an_alarm_for_its_tool(site: Site) -> None:
    binding = site.bind("delete_records", mode="permissive")
    try:
        assert not site.is_blocked()
        text = site.wait_for_alarm()
        assert f"for {site.lab.tool('delete_records')}: block mode stops nothing" in text
        assert site.worker()["plugin_mode"] == "transform"
    finally:
        site.unbind(binding)
    site.wait_for_end()
    assert site.is_blocked()


def test_a_binding_that_disables_is_an_alarm_for_its_tool(site: Site) -> None:
    binding = site.bind("delete_records", mode="disabled")
    try:
        assert not site.is_blocked()
        assert f"for {site.lab.tool('delete_records')}: these calls are not screened" in site.wait_for_alarm()
    finally:
        site.unbind(binding)
    site.wait_for_end()
    assert site.is_blocked()


def test_a_binding_that_puts_us_before_a_policy_plugin_is_an_alarm(site: Site) -> None:
    binding = site.bind("delete_records", priority=5)
    try:
        assert site.is_blocked()
        assert "Policy may stop calls after this plugin" in site.wait_for_alarm()
        assert site.worker()["plugin_priority"] == 5
    finally:
        site.unbind(binding)
    site.wait_for_end()


def test_a_mode_that_cannot_block_is_an_alarm_until_it_is_changed_back(site: Site) -> None:
    raised, _ = site.metrics()
    began, ended = site.logged("`transform`"), site.logged("is over")
    site.put("permissive")
    try:
        text = site.wait_for_alarm()
        assert not site.is_blocked(), "what the alarm is about: block mode stops nothing now"
        assert "`transform`" in text
        assert "block mode stops nothing" in text
        assert NAME in text
        assert site.worker()["plugin_mode"] == "transform"
        _wait(lambda: site.logged("`transform`") == began + 1)
        now_raised, active = site.metrics()
        assert now_raised > raised
        assert active == 1
        doctor = site.firewall.command("doctor")
        assert doctor.returncode == 1
        assert "override" in doctor.stdout
    finally:
        site.put("enforce")
    site.wait_for_end()
    assert site.logged("is over") == ended + 1
    assert site.metrics()[1] == 0
    assert site.is_blocked()


def test_a_disabled_plugin_is_an_alarm_although_no_hook_of_it_runs(site: Site) -> None:
    site.put("disabled")
    try:
        text = site.wait_for_alarm()
        before = site.firewall.journal.last()
        assert not site.is_blocked()
        assert "not screened" in text
        assert site.worker()["plugin_mode"] == "disabled"
        assert site.firewall.journal.last() == before, "the call left a record"
    finally:
        site.put("enforce")
    site.wait_for_end()
    assert site.is_blocked()


def test_the_switch_for_all_plugins_is_an_alarm(site: Site) -> None:
    site.lab.administrator.request("PUT", "/admin/plugins", json={"enabled": False})
    try:
        assert "switched off" in site.wait_for_alarm()
        assert not site.is_blocked()
    finally:
        site.lab.administrator.request("PUT", "/admin/plugins", json={"enabled": True})
    site.wait_for_end()
    assert site.is_blocked()


def test_errors_that_would_let_calls_pass_are_an_alarm(site: Site) -> None:
    site.put("enforce_ignore_error")
    try:
        assert "`ignore`" in site.wait_for_alarm()
        assert site.is_blocked()
    finally:
        site.put("enforce")
    site.wait_for_end()
