# SPDX-License-Identifier: Apache-2.0
"""`tool-firewall backfill`: learns from the calls that the gateway stored before the plugin was there."""

from __future__ import annotations

import time
from array import array
from bisect import bisect_left
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from .history import read_history, reading
from .import_records import describe, summary_words
from .options import JsonOption, StateOption
from .output import PROBLEM, WRONG_INPUT, counted, fail, moment, print_json, reports_errors, say, warn
from .progress import progress

if TYPE_CHECKING:
    from ..gateway_db import GatewayDatabase, PastCall
    from ..importing import Importer
    from ..journal.interface import Journal

_DAY: Final = 86_400.0
_SETTLE_SECONDS: Final = 2.0  # rows of the last moments may still be on their way
_SAME_CALL_SECONDS: Final = 2.0  # the plugin's time and the gateway's time of one call differ by less
_SHOW_EVERY: Final = 500  # calls


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("backfill")(backfill)


@reports_errors
def backfill(
    url: Annotated[
        str | None,
        typer.Option(
            "--gateway-db",
            metavar="URL",
            envvar="DATABASE_URL",
            help="The gateway's DATABASE_URL, sqlite or postgresql; opened for reading only. With a "
            "password, better by the environment variable DATABASE_URL.",
            show_envvar=False,
        ),
    ] = None,
    days: Annotated[
        int, typer.Option("--days", min=1, max=365, help="How far back, in whole UTC days.")
    ] = 14,
    tenant: Annotated[
        list[str] | None, typer.Option("--tenant", metavar="T", help="Only this team id; may be repeated.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be learned; store nothing.")
    ] = False,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Learn from the calls that the gateway stored in its database.

    Works when the gateway ran with STRUCTURED_LOGGING_DATABASE_ENABLED=true and LOG_LEVEL=INFO (or DEBUG):
    nothing else in its database says who called which tool. Calls that the plugin recorded itself are left
    out, and running this again adds only what is new. Sessions and arguments are not in the database.
    See docs/backfill.md.

    \b
    Example:
      tool-firewall backfill --gateway-db sqlite:////var/lib/mcpgateway/mcp.db --dry-run
      DATABASE_URL=postgresql://reader:...@db/mcp tool-firewall backfill --days 30
    """
    if not url:
        fail("--gateway-db is missing (or the environment variable DATABASE_URL)", WRONG_INPUT)
    from ..gateway_db import GatewayDatabase, GatewayDatabaseError

    try:
        database = GatewayDatabase(url)
    except GatewayDatabaseError as error:
        fail(str(error), WRONG_INPUT)
    try:
        _backfill(database, days, set(tenant or ()), state, dry_run=dry_run, as_json=as_json)
    except GatewayDatabaseError as error:
        fail(str(error))
    finally:
        database.close()


def _backfill(
    database: GatewayDatabase,
    days: int,
    tenants: set[str],
    folder: str | None,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    from ..importing import Importer, Numbers

    until = time.time() - _SETTLE_SECONDS
    since = (until - days * _DAY) // _DAY * _DAY
    history = read_history(folder)
    if database.path is not None and database.path.resolve().parent == history.state.folder.resolve():
        fail(f"{database.path}: this is the firewall's own state, not the gateway's database", WRONG_INPUT)
    with reading(folder) as (opened, journal):
        with progress("reading the journal") as on_progress:
            recorded = _Recorded(journal, since, until, on_progress)
        # What was pruned from the journal is still learned, and must not be learned again.
        since = max(since, recorded.complete_from)
        held = database.holdings(since, until)
        if not held.calls:
            _explain_nothing(database, held.unnamed, days)
        importer = Importer(history.engine, None if dry_run else journal)
        job = _Job(importer, Numbers(opened.key, "gateway database"), recorded, tenants)
        with progress("learning") as on_progress:
            done = 0
            for done, call in enumerate(database.calls(since, until), 1):
                job.take(call)
                if on_progress is not None and done % _SHOW_EVERY == 0:
                    on_progress(done, held.calls)
            importer.close()
    found = importer.summary
    if found.calls and not job.good:
        warn(
            "only failed calls were stored: the gateway ran with a LOG_LEVEL above INFO (its default is "
            "ERROR), so what was learned is one-sided"
        )
    if as_json:
        print_json(
            {
                **describe(found),
                "recorded_by_plugin": job.recorded,
                "other_tenants": job.elsewhere,
                "unknown_tools": database.unknown_tools,
                "since": since,
                "until": until,
                "dry_run": dry_run,
            }
        )
        return
    for line in summary_words(found, dry_run=dry_run).split("\n"):
        say(line)
    if job.recorded:
        say(f"{counted(job.recorded, 'call')} left out: the plugin recorded them itself")
    if job.elsewhere:
        say(f"{counted(job.elsewhere, 'call')} of other tenants left out")
    if recorded.complete_from > 0:
        say(f"nothing from before {moment(since)}: the plugin ran then, and its records were pruned since")
    if database.unknown_tools:
        warn(f"{counted(database.unknown_tools, 'call')} left out: the gateway no longer knows their tools")


def _explain_nothing(database: GatewayDatabase, unnamed: int, days: int) -> None:
    instead = (
        f" It has {counted(unnamed, 'call')} in tool_metrics, but that table does not say whose."
        if unnamed
        else ""
    )
    fail(
        f"{database.shown}: names no user's calls in the last {counted(days, 'day')}.{instead} The gateway "
        "stores them only while it runs with STRUCTURED_LOGGING_DATABASE_ENABLED=true and LOG_LEVEL=INFO; "
        "set both, or just let the plugin learn",
        PROBLEM,
    )


class _Recorded:
    """When the plugin saw which calls, to tell them from those it missed."""

    def __init__(self, journal: Journal, since: float, until: float, on_progress: Any) -> None:
        from ..records import JournalRecords, Selection

        self.complete_from = 0.0  # s; before this the journal was pruned. 0: it never was
        self._times: dict[tuple[str, str, str, str], array[float]] = {}
        self._used: dict[tuple[str, str, str, str], bytearray] = {}
        oldest = 0.0
        for fields in JournalRecords(journal, Selection(kind="call"), on_progress):
            if not fields["incident"]:
                continue  # imported
            oldest = min(oldest or fields["ts"], fields["ts"])
            if since - _DAY <= fields["ts"] < until + _DAY:
                key = (fields["tenant"], fields["user"], fields["server"], fields["tool"])
                self._times.setdefault(key, array("d")).append(fields["ts"])
        if journal.first() > 0:
            self.complete_from = oldest or until
        for key, times in self._times.items():
            self._times[key] = array("d", sorted(times))

    def has(self, call: PastCall) -> bool:
        """Whether the plugin recorded this call; each of its records answers for one call."""
        key = (call.tenant, call.user, call.server, call.tool)
        times = self._times.get(key)
        if times is None:
            return False
        used = self._used.setdefault(key, bytearray(len(times)))
        for at in range(bisect_left(times, call.started - _SAME_CALL_SECONDS), len(times)):
            if times[at] > call.ended + _SAME_CALL_SECONDS:
                return False
            if not used[at]:
                used[at] = 1
                return True
        return False


class _Job:
    """Calls on their way into the importer."""

    def __init__(self, importer: Importer, numbers: Any, recorded: _Recorded, tenants: set[str]) -> None:
        self.recorded = 0  # left out because the plugin has them
        self.elsewhere = 0  # left out because of --tenant
        self.good = 0  # calls without an error
        self._importer = importer
        self._numbers = numbers
        self._recorded = recorded
        self._tenants = tenants

    def take(self, call: PastCall) -> None:
        """One call. Raises JournalError."""
        # Numbered before it is left out, so that every run numbers alike.
        worker, seq = self._numbers.of(call.tenant, call.ended)
        if self._tenants and call.tenant not in self._tenants:
            self.elsewhere += 1
        elif self._recorded.has(call):
            self.recorded += 1
        else:
            self._importer.call(
                ts=call.started,
                worker=worker,
                seq=seq,
                tenant=call.tenant,
                user=call.user,
                server=call.server,
                tool=call.tool,
            )
            self.good += call.ok
            outcome = "ok" if call.ok else "tool_error"
            self._importer.ended(ts=call.ended, worker=worker, seq=seq, outcome=outcome)
