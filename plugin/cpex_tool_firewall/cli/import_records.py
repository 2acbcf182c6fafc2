# SPDX-License-Identifier: Apache-2.0
"""`tool-firewall import`: puts exported records, or events of any origin, into the journal as history."""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from .history import History, read_history, reading
from .options import JsonOption, StateOption
from .output import PROBLEM, WRONG_INPUT, counted, fail, moment, note, print_json, reports_errors, say
from .progress import progress

if TYPE_CHECKING:
    from ..importing import Importer, Numbers, Summary
    from ..record_files import BadLine

    Lines = Iterable[tuple[int, dict[str, Any] | BadLine]]

_LONGEST_TEXT: Final = 4096  # characters of a name
_SHOWN: Final = 5  # bad lines that are named
_MOST_WORKER: Final = 2**63 - 1
_MOST_RUNNING: Final = 65_536  # calls of events whose ending is still to come
_MOST_COST: Final = 1e12
_MOST_DESTINATIONS: Final = 4
_LONGEST_DESTINATION: Final = 255  # characters
_CALL_TEXTS: Final = ("tenant", "agent", "group", "session", "token", "server")
_EVENT_TEXTS: Final = ("tenant", "agent", "session", "token", "server")


class Format(StrEnum):
    """What the file holds."""

    JSONL = "jsonl"
    PARQUET = "parquet"
    EVENTS = "events"


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("import")(import_records)


@reports_errors
def import_records(
    file: Annotated[str, typer.Argument(metavar="FILE", help="-: standard input. Gzip is recognised.")],
    form: Annotated[
        Format | None,
        typer.Option("--format", help="Default: parquet by the name, else by what the first line holds."),
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Count bad lines and go on.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and say what would be new; store nothing.")
    ] = False,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Learn from a file of records or events, as history.

    Takes what `export` writes, also from another installation, and the events that `replay` reads, oldest
    first. Running workers learn from it by themselves. Mode changes in the file are not taken over, and
    neither are scores: calls are scored anew. Of the `args` of an event the keyed digests are kept, as of a
    live call, and never a value. Importing a file again, or one that overlaps it, changes nothing; neither
    does going on after an interrupted import. Events of foreign origin are known by the first event of their
    file: do not import them in two different cuts. A time in the future is refused.

    \b
    Example:
      tool-firewall import march.jsonl.gz --dry-run
      tool-firewall import march.jsonl.gz
      ssh old-host tool-firewall export | tool-firewall import -
    """
    from ..importing import Importer
    from ..record_files import STANDARD, FileProblem, read_lines, read_parquet

    if file != STANDARD and not Path(file).is_file():
        what = "is not a file" if Path(file).exists() else "there is no such file"
        fail(f"{file}: {what}; accepted: what `tool-firewall export` writes, or events", WRONG_INPUT)
    if form is None and file.endswith(".parquet"):
        form = Format.PARQUET
    history = read_history(state)
    with reading(state) as (opened, journal), progress("importing") as on_progress:
        importer = Importer(history.engine, None if dry_run else journal)
        read = read_parquet if form is Format.PARQUET else read_lines
        job = _Job(file, importer, opened.key, history, skip_bad=skip_bad)
        try:
            job.run(read(file, on_progress), form)
        except FileProblem as error:
            job.end_calls(math.inf)
            importer.close()
            fail(str(error), WRONG_INPUT)
        importer.close()
    _report(job, importer.summary, dry_run=dry_run, as_json=as_json)


class _Bad(Exception):
    """What is wrong with a line, without quoting from it."""


class _Job:
    """One file on its way into the importer."""

    def __init__(
        self, file: str, importer: Importer, key: bytes, history: History, *, skip_bad: bool
    ) -> None:
        self.bad = 0
        self.controls = 0  # left out
        self.bad_lines: list[str] = []  # the first few
        self._file = file
        self._importer = importer
        self._key = key
        self._facts = history.engine.facts
        self._names_hosts = history.settings.record_destinations
        self._skip_bad = skip_bad
        self._numbers: Numbers | None = None
        self._endings: list[
            tuple[float, int, int, dict[str, Any]]
        ] = []  # a heap: time, worker, seq, the rest
        self._latest = 0.0
        self._unit = "line"

    def run(self, lines: Lines, form: Format | None) -> None:
        """Imports all of it. Raises FileProblem and JournalError; ends the command at a bad line."""
        from ..importing import FUTURE_SECONDS
        from ..record_files import BadLine

        self._latest = time.time() + FUTURE_SECONDS
        self._unit = "row" if form is Format.PARQUET else "line"
        iterator = iter(lines)
        for number, line in iterator:
            if form is None and not isinstance(line, BadLine):
                form = Format.EVENTS if "event_id" in line else Format.JSONL
            try:
                if isinstance(line, BadLine):
                    raise _Bad(str(line))
                if form is Format.EVENTS:
                    self._event(line)
                else:
                    self._record(line)
            except _Bad as error:
                self._note(number, str(error))
        self.end_calls(math.inf)

    def _note(self, number: int, what: str) -> None:
        self.bad += 1
        text = f"{self._unit} {number}: {what}"
        if not self._skip_bad:
            self.end_calls(math.inf)
            self._importer.close()
            stored = self._importer.summary.calls
            fail(
                f"{self._file}: {text}. The {counted(stored, 'call')} before it "
                f"{'was' if stored == 1 else 'were'} taken; correct the line and import the file again "
                "(nothing counts twice), or use --skip-bad",
                WRONG_INPUT,
            )
        if len(self.bad_lines) < _SHOWN:
            self.bad_lines.append(text)

    def _record(self, line: dict[str, Any]) -> None:
        kind = line.get("kind")
        if kind == "control":
            self.controls += 1
            return
        ts = self._time(line)
        worker, seq = _worker(line), _number(line, "seq")
        if kind == "call":
            texts = {name: _text(line, name) for name in _CALL_TEXTS}
            names = {name: _text(line, name, needed=True) for name in ("user", "tool")}
            self._call(
                ts=ts,
                worker=worker,
                seq=seq,
                **names,
                **texts,
                blocked=_truth(line, "blocked", default=False),
                **_said(line),
            )
        elif kind == "outcome":
            from ..records import OUTCOMES

            outcome = _text(line, "outcome", needed=True)
            if outcome not in OUTCOMES:
                raise _Bad(f"'outcome': one of {', '.join(OUTCOMES)} was expected")
            self._importer.ended(ts=ts, worker=worker, seq=seq, outcome=outcome, cost=_cost(line))
        else:
            raise _Bad("'kind': call, outcome or control was expected")

    def _event(self, line: dict[str, Any]) -> None:
        from ..importing import Numbers
        from ..records import identity

        ts = self._time(line)
        named = line.get("event_id")
        if isinstance(named, bool) or not isinstance(named, str | int):
            raise _Bad("'event_id': text or a whole number was expected")
        texts = {name: _text(line, name) for name in _EVENT_TEXTS}
        group = texts["agent"] if line.get("group") is None else _text(line, "group")
        names = {name: _text(line, name, needed=True) for name in ("user", "tool")}
        ok = _truth(line, "ok", default=True)
        blocked = _truth(line, "blocked", default=False)
        cost = _cost(line)
        said = _said(line)
        if (args := line.get("args")) is not None:
            if not isinstance(args, dict):
                raise _Bad("'args': an object was expected")
            said = self._facts(args)
        own = identity(named)
        unended = own is not None and line.get("duration") is None
        if own is None:
            if self._numbers is None:
                self._numbers = Numbers(self._key, repr(("events", named, ts, names["user"], names["tool"])))
            own = self._numbers.of(texts["tenant"], ts)
        worker, seq = own
        self.end_calls(ts)
        self._call(
            ts=ts, worker=worker, seq=seq, **names, **texts, group=group, blocked=blocked, **said
        )
        if not blocked and not unended:
            duration = line.get("duration")
            took = duration if isinstance(duration, int | float) and 0 <= duration < 86_400 else 0.0
            ending = {"outcome": "ok" if ok else "tool_error", "cost": cost}
            heapq.heappush(self._endings, (min(ts + took, self._latest), worker, seq, ending))

    def end_calls(self, until: float) -> None:
        """Records the endings of events up to then, between the calls, where a journal has them."""
        while self._endings and (self._endings[0][0] <= until or len(self._endings) > _MOST_RUNNING):
            ts, worker, seq, ending = heapq.heappop(self._endings)
            self._importer.ended(ts=ts, worker=worker, seq=seq, **ending)

    def _call(self, **fields: Any) -> None:
        if not self._names_hosts:
            del fields["destinations"]
        try:
            self._importer.call(**fields)
        except ValueError as error:  # "facts: what was expected"
            name, _, what = str(error).partition(": ")
            raise _Bad(f"'{name}': {what}") from None

    def _time(self, line: dict[str, Any]) -> float:
        ts = line.get("ts")
        if isinstance(ts, bool) or not isinstance(ts, int | float) or not math.isfinite(ts) or ts < 0:
            raise _Bad("'ts': seconds since 1970 were expected")
        if ts > self._latest:
            raise _Bad("'ts': lies in the future")
        return float(ts)


def _text(line: dict[str, Any], name: str, *, needed: bool = False) -> str:
    value = line.get(name)
    if value is None and not needed:
        return ""
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT or (needed and not value):
        raise _Bad(f"'{name}': text of {'1' if needed else '0'} to {_LONGEST_TEXT} characters was expected")
    return value


def _said(line: dict[str, Any]) -> dict[str, Any]:
    """What a record keeps of arguments, as encode_call() takes it; whether it is well made is seen there."""
    hosts = line.get("destinations")
    if hosts is None:
        hosts = []
    if (
        not isinstance(hosts, list)
        or len(hosts) > _MOST_DESTINATIONS
        or not all(isinstance(host, str) and len(host) <= _LONGEST_DESTINATION for host in hosts)
    ):
        raise _Bad(
            f"'destinations': a list of up to {_MOST_DESTINATIONS} texts of up to {_LONGEST_DESTINATION} "
            "characters was expected"
        )
    return {
        "arguments": _text(line, "arguments"),
        "facts": _text(line, "facts"),
        "destinations": hosts,
    }


def _cost(line: dict[str, Any]) -> float:
    """NaN when it is not known."""
    cost = line.get("cost")
    if cost is None:
        return math.nan
    if isinstance(cost, bool) or not isinstance(cost, int | float) or not 0 <= cost <= _MOST_COST:
        raise _Bad(f"'cost': a number from 0 to {_MOST_COST:g} was expected")
    return float(cost)


def _truth(line: dict[str, Any], name: str, *, default: bool) -> bool:
    value = line.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise _Bad(f"'{name}': true or false was expected")
    return value


def _number(line: dict[str, Any], name: str) -> int:
    value = line.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST_WORKER:
        raise _Bad(f"'{name}': a whole number from 1 was expected")
    return value


def _worker(line: dict[str, Any]) -> int:
    value = line.get("worker")
    if isinstance(value, str) and len(value) == 16:
        try:
            value = int(value, 16)
        except ValueError:
            value = None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST_WORKER:
        raise _Bad("'worker': 16 hex digits were expected")
    return value


def describe(found: Summary) -> dict[str, Any]:
    """A summary for JSON."""
    return {
        "records": found.records,
        "calls": found.calls,
        "new": found.new,
        "known": found.calls - found.new,
        "tenants": len(found.tenants),
        "users": len(found.users),
        "tools": len(found.tools),
        "first": found.first if found.calls else None,
        "last": found.last if found.calls else None,
    }


def summary_words(found: Summary, *, dry_run: bool) -> str:
    """A summary for people, two lines."""
    if not found.calls:
        return "no calls"
    stored = "would be new" if dry_run else "new"
    return (
        f"{counted(found.calls, 'call')} ({counted(found.records, 'record')}) by "
        f"{counted(len(found.users), 'user')} in {counted(len(found.tenants), 'tenant')}, "
        f"{counted(len(found.tools), 'tool')}; {moment(found.first)} to {moment(found.last)}\n"
        f"{found.new:,} {stored}, {found.calls - found.new:,} known already"
    )


def _report(job: _Job, found: Summary, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        print_json({**describe(found), "bad": job.bad, "controls_left_out": job.controls, "dry_run": dry_run})
    else:
        for line in summary_words(found, dry_run=dry_run).split("\n"):
            say(line)
        if job.controls:
            say(f"{counted(job.controls, 'control record')} left out: mode changes are not imported")
    if job.bad:
        for text in job.bad_lines:
            note(text)
        fail(f"{counted(job.bad, 'bad line')} skipped", PROBLEM)
