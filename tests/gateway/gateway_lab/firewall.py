# SPDX-License-Identifier: Apache-2.0
"""The tool firewall in a lab: its plugin entry, its command line, and what it wrote about each call."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cpex_tool_firewall._native import decode_record
from cpex_tool_firewall.journal.interface import Worker, records_since
from cpex_tool_firewall.journal.sqlite import SqliteJournal
from cpex_tool_firewall.state import open_state

from gateway_lab.history import Habit, records, write
from gateway_lab.lab import Lab
from gateway_lab.process import LabError

NAME: Final = "ToolFirewall"
_RECORD_SECONDS = 10.0
# Fields that a decoded record and a ScoredCall share.
_SAME_NAME = (
    *("tenant", "user", "tool", "server", "session", "token", "previous"),
    *("worker", "risk", "decision", "mode", "blocked", "uninspectable"),
)


def firewall_plugin(**settings: Any) -> dict[str, Any]:
    """The plugin's entry in the gateway's plugin configuration."""
    return {
        "name": NAME,
        "kind": "cpex_tool_firewall.plugin.ToolFirewallPlugin",
        "hooks": ["tool_pre_invoke", "tool_post_invoke"],
        "mode": "sequential",
        "priority": 900,
        "config": settings,
    }


@dataclass(frozen=True)
class ScoredCall:
    """What the journal says about one call. outcome: "" while there is none. signals: strongest first."""

    tenant: str
    user: str
    tool: str
    server: str
    session: str
    token: str
    previous: str  # the tool called before in this session
    worker: int
    risk: float
    decision: str
    mode: str
    blocked: bool
    signals: tuple[str, ...]
    uninspectable: str
    outcome: str = ""


class Firewall:
    """The firewall of a lab, seen from outside: through its journal and its command line. close() it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._journal: SqliteJournal | None = None
        self._cursor = 0

    @property
    def journal(self) -> SqliteJournal:
        """A reader of the journal; the plugin must have made it."""
        if self._journal is None:
            key = open_state(str(self.lab.state), create=False).key
            self._journal = SqliteJournal(self.lab.state, key, create=False, busy_seconds=5.0)
        return self._journal

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def command(self, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Runs `tool-firewall ARGUMENTS` on the lab's state folder, as an operator would."""
        script = Path(sys.executable).parent / "tool-firewall"
        return subprocess.run(
            [str(script), *arguments],
            env={"PATH": str(script.parent), "TOOL_FIREWALL_STATE": str(self.lab.state), **(env or {})},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def mode(self, mode: str, *scope: str) -> None:
        """`tool-firewall mode MODE SCOPE...`, which returns once all workers follow. LabError on failure."""
        done = self.command("mode", mode, *scope)
        if done.returncode != 0:
            raise LabError(f"tool-firewall mode {mode}: exit {done.returncode}\n{done.stdout}{done.stderr}")

    def learn(self, habits: Sequence[Habit], *, until: float | None = None) -> None:
        """Writes two weeks of the habits into the journal and waits until every worker has read them."""
        installation = self.lab.installation
        end = time.time() if until is None else until
        history = records(habits, tenant=installation.team, server=installation.gateway, until=end)
        cursor = write(self.lab.state, history)
        self._cursor = max(self._cursor, cursor)
        _wait(lambda: self._followed(cursor), f"no worker read the history up to record {cursor}")

    def workers(self) -> list[Worker]:
        return self.journal.workers()

    def skip(self) -> None:
        """Forgets the records written so far: the next calls() returns only later ones."""
        self._cursor = self.journal.last()

    def calls(self, count: int) -> list[ScoredCall]:
        """The records of the next `count` calls, each with its outcome unless it was blocked; oldest first.

        Records reach the journal some 20 ms after their call, so this waits for them; LabError when they do
        not come or when there are more.
        """
        _wait(lambda: _complete(self._read(), count), f"{count} calls did not leave {count} complete records")
        found = self._read()
        self.skip()
        if len(found) != count:
            raise LabError(f"{count} calls were expected, {len(found)} were recorded: {found}")
        return found

    def call(self) -> ScoredCall:
        """The record of the one call made since the last look."""
        return self.calls(1)[0]

    def raw_records(self) -> list[bytes]:
        """Every record of the journal, as stored."""
        return records_since(self.journal)

    def _read(self) -> list[ScoredCall]:
        calls: dict[tuple[int, int], dict[str, Any]] = {}
        outcomes: dict[tuple[int, int], str] = {}
        for record in records_since(self.journal, self._cursor):
            fields = decode_record(record)
            key = (fields["worker"], fields["seq"])
            if fields["kind"] == "call":
                calls[key] = fields
            elif fields["kind"] == "outcome":
                outcomes[key] = fields["outcome"]
        return [_scored(fields, outcomes.get(key, "")) for key, fields in calls.items()]

    def _followed(self, cursor: int) -> bool:
        alive = [worker for worker in self.workers() if not worker.silent(time.time())]
        return bool(alive) and all(worker.body.get("cursor", 0) >= cursor for worker in alive)


def _scored(fields: dict[str, Any], outcome: str) -> ScoredCall:
    return ScoredCall(
        **{name: fields[name] for name in _SAME_NAME},
        signals=tuple(reason["signal"] for reason in fields["reasons"]),
        outcome=outcome,
    )


def _complete(found: Sequence[ScoredCall], count: int) -> bool:
    return len(found) >= count and all(call.blocked or call.outcome for call in found)


def _wait(condition: Callable[[], bool], failure: str, *, seconds: float = _RECORD_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"{failure} within {seconds:g} s")
        time.sleep(0.02)
