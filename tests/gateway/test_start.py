# SPDX-License-Identifier: Apache-2.0
"""Starts that must not look healthy: wrong settings, no state folder, plugin failures ignored."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Screened
from gateway_lab import GatewayOptions, Lab
from gateway_lab.firewall import Firewall, firewall_plugin


def test_wrong_settings_stop_the_gateway_and_are_all_named(tmp_path: Path) -> None:
    wrong = firewall_plugin(treshold=0.5, burst_threshold="twenty", mode="blok")
    lab = Lab(tmp_path, GatewayOptions(plugins=[wrong]))
    try:
        process = lab.launch_gateway()
        assert process.wait_for_exit(60) != 0
        log = process.log()
        # Each wrong setting by its path, with what is accepted or probably meant.
        assert re.search(r"treshold: unknown setting[^;]*threshold", log), log[-3000:]
        assert re.search(r"burst_threshold: .*twenty.*; accepted: .*1000", log), log[-3000:]
        assert re.search(r"mode: .*blok.*; accepted: .*learning.*block", log), log[-3000:]
    finally:
        lab.stop()


def test_block_mode_without_a_state_folder_stops_the_gateway(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the folder should be", encoding="utf-8")
    lab = Lab(tmp_path, GatewayOptions(plugins=[firewall_plugin(mode="block")]))
    try:
        process = lab.launch_gateway()
        assert process.wait_for_exit(60) != 0
        assert str(tmp_path / "state") in process.log()
    finally:
        lab.stop()


def test_learning_without_a_state_folder_runs_and_raises_the_alarm(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the folder should be", encoding="utf-8")
    with Lab(tmp_path, GatewayOptions(plugins=[firewall_plugin(mode="learning")])) as lab:
        assert lab.call("alice", "db_query", {"sql": "select 1"}).ok
        errors = [
            line for line in lab.gateway_log().splitlines() if "ERROR" in line and "firewall" in line.lower()
        ]
        assert any(str(tmp_path / "state") in line for line in errors), lab.gateway_log()[-3000:]
        doctor = Firewall(lab).command("doctor")
        assert doctor.returncode == 1, doctor.stdout
        assert str(tmp_path / "state") in doctor.stdout + doctor.stderr


def test_doctor_finds_a_healthy_gateway_healthy(shared: Screened) -> None:
    assert shared.lab.call("alice", "db_query", {"sql": "select 1"}).ok
    doctor = shared.firewall.command("doctor")
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr


@pytest.mark.parametrize(("user", "code"), [("alice", 0), ("carol", 1)])
def test_doctor_proves_by_a_call_that_calls_are_screened(shared: Screened, user: str, code: int) -> None:
    """carol may not call the tool, so her call leaves no record and proves nothing."""
    doctor = shared.firewall.command(
        *("doctor", "--gateway-config", str(shared.lab.folder / "plugins.yaml")),
        *(
            "--url",
            shared.lab.base_url,
            "--tool",
            shared.lab.tool("db_query"),
            "--arguments",
            '{"sql": "select 1"}',
        ),
        env={"TOOL_FIREWALL_TOKEN": shared.lab.token(user), "PLUGINS_FAIL_ON_PLUGIN_ERROR": "true"},
    )
    assert doctor.returncode == code, doctor.stdout + doctor.stderr
    assert shared.lab.token(user) not in doctor.stdout + doctor.stderr


def test_doctor_sees_that_the_gateway_would_start_unscreened(start_lab: Callable[..., Screened]) -> None:
    careless = start_lab(env={"PLUGINS_FAIL_ON_PLUGIN_ERROR": "false"})
    try:
        assert careless.lab.call("alice", "db_query", {"sql": "select 1"}).ok
        doctor = careless.firewall.command("doctor")
        assert doctor.returncode == 1, doctor.stdout
        assert "PLUGINS_FAIL_ON_PLUGIN_ERROR" in doctor.stdout + doctor.stderr
    finally:
        careless.lab.stop()
