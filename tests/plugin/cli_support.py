# SPDX-License-Identifier: Apache-2.0
"""For the tests of the command line: a state folder with history, workers that follow, running commands."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cpex_tool_firewall._native import decode_record
from cpex_tool_firewall.cli import app
from cpex_tool_firewall.config import Settings, load
from cpex_tool_firewall.engines import build_engine
from cpex_tool_firewall.journal.interface import Pack, records_since
from cpex_tool_firewall.journal.sqlite import SqliteJournal
from cpex_tool_firewall.state import State, open_state
from typer.testing import CliRunner

HOUR, DAY = 3600.0, 86_400.0
MONDAY_NOON = 1_794_830_400.0  # 2026-11-16 12:00 UTC


def run(*arguments: str, env: Mapping[str, str | None] | None = None, stdin: str | None = None) -> Any:
    """One command in this process, with nothing of the caller's environment that matters to it."""
    bare = {name: None for name in os.environ if name.startswith(("TOOL_FIREWALL", "PLUGINS_", "SUDO_"))}
    return CliRunner().invoke(app, list(arguments), env={**bare, **(env or {})}, input=stdin)


def heartbeat(settings: Settings | None = None, **more: Any) -> dict[str, Any]:
    """A heartbeat as a healthy worker of this process writes it."""
    settings = settings or load({})
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started": time.time() - 60,
        "last_seen": time.time(),
        "version": "0.1.0",
        "gateway": "1.1.0",
        "cpex": "0.1.4",
        "python": "3.13.0",
        "fail_on_plugin_error": True,
        "mode": settings.mode,
        "settings": settings.model_dump(mode="json"),
        "cursor": 0,
        "instances": 1,
        "counters": {},
        "alarms": [],
        **more,
    }


@dataclass
class Site:
    """A state folder with a journal, as a gateway leaves it."""

    folder: Path
    settings: Settings = field(default_factory=lambda: load({}))

    def __post_init__(self) -> None:
        self.state: State = open_state(str(self.folder))
        self.journal = SqliteJournal(self.state.folder, self.state.key)
        self._engine = build_engine(self.settings, self.state.key, worker=4711, journaling=True)

    def call(
        self,
        user: str,
        tool: str,
        now: float,
        *,
        tenant: str = "t1",
        token: str = "",
        mode: str = "learning",
        argument: str = "",
    ) -> str:
        """One call as a worker records it; returns the decision."""
        engine = self._engine
        caller = engine.caller(tenant, user, session=f"{tenant}/{user}", token=token)
        policy = engine.policy(mode=mode)
        verdict = engine.check(policy, caller, "srv", tool, {"q": argument or 1}, now)
        if verdict.ticket:
            engine.observe(verdict.ticket, "ok", now + 0.1)
        self.journal.append([Pack(*pack) for pack in engine.drain(10)])
        return verdict.decision

    def habit(self, user: str, *, tenant: str = "t1", days: int = 5, start: float = MONDAY_NOON) -> None:
        """A user who queries, now and then exports, around noon."""
        for day in range(days):
            for n in range(12):
                tool = "export" if n % 6 == 5 else "db_query"
                self.call(user, tool, start + day * DAY + n * 300, tenant=tenant)

    def controls(self) -> list[dict[str, Any]]:
        """The control records in the journal."""
        decoded = [decode_record(record) for record in records_since(self.journal)]
        return [fields for fields in decoded if fields["kind"] == "control"]

    def burst(self, user: str, start: float, *, calls: int = 25, mode: str = "learning") -> None:
        """More calls at once than the limit."""
        for n in range(calls):
            self.call(user, "db_query", start + n * 0.5, mode=mode)

    def close(self) -> None:
        """Closes the journal; the folder stays."""
        self.journal.close()


@contextlib.contextmanager
def worker(site: Site, name: str, *, every: float = 0.02, follow: bool = True) -> Iterator[None]:
    """A worker that tails the journal and says how far it got; follow=False: one that reads but is stuck."""
    stop = threading.Event()
    journal = SqliteJournal(site.folder, site.state.key)
    journal.beat(name, heartbeat(site.settings, cursor=0))

    def work() -> None:
        cursor = 0
        while not stop.wait(every):
            entries = journal.read_since(cursor)
            if entries:
                cursor = entries[-1].cursor
                journal.beat(name, heartbeat(site.settings, cursor=cursor if follow else 0))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        journal.close()
