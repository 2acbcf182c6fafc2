# SPDX-License-Identifier: Apache-2.0
"""The gateway most tests share, and how a test starts one of its own."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from gateway_lab import GatewayOptions, Lab
from gateway_lab.firewall import Firewall, firewall_plugin
from gateway_lab.history import Habit, hours_around

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Screened:
    """A running lab whose gateway has the tool firewall."""

    lab: Lab
    firewall: Firewall


def office_habits(lab: Lab, users: Sequence[str]) -> list[Habit]:
    """Users who work at this hour and the hours around it; bob works in the other half of the day only."""
    now = time.time()
    present = hours_around(now, before=5, after=3)
    absent = hours_around(now + 12 * 3600, before=4, after=4)
    return [Habit(lab.email(user), absent if user == "bob" else present) for user in users]


@pytest.fixture(scope="session")
def start_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Screened]]:
    """start_lab(settings, users=who has a history, **GatewayOptions); all are stopped after the last test."""
    with ExitStack() as running:

        def start(
            settings: dict[str, Any] | None = None, *, users: Sequence[str] = (), **options: Any
        ) -> Screened:
            plugins = [*options.pop("plugins", ()), firewall_plugin(**(settings or {}))]
            folder = tmp_path_factory.mktemp("gateway")
            lab = running.enter_context(Lab(folder, GatewayOptions(plugins=plugins, **options)))
            firewall = Firewall(lab)
            running.callback(firewall.close)
            if users:
                firewall.learn(office_habits(lab, users))
            return Screened(lab, firewall)

        yield start


@pytest.fixture(scope="session")
def spy_notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the spy in the shared gateway writes."""
    return tmp_path_factory.mktemp("spy") / "notes.jsonl"


@pytest.fixture(scope="session")
def shared(start_lab: Callable[..., Screened], spy_notes: Path) -> Screened:
    """One gateway for all tests that need nothing special of it.

    The firewall starts in learning mode. A policy plugin before it (a spy) refuses the tool `report`.
    """
    policy = {
        "name": "Policy",
        "kind": "spy_plugin.SpyPlugin",
        "hooks": ["tool_pre_invoke", "tool_post_invoke"],
        "mode": "sequential",
        "priority": 10,
        "config": {"notes": str(spy_notes), "block": ["report"]},
    }
    return start_lab(
        users=("alice", "bob", "dave", "erin"),
        plugins=[policy],
        python_path=[HERE],
        # The gateway's own limit of 30 levels would hide what the firewall does with deep arguments.
        env={"OBSERVABILITY_ENABLED": "true", "VALIDATION_MAX_JSON_DEPTH": "100"},
        tool_timeout_seconds=4,
    )
