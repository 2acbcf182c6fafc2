# SPDX-License-Identifier: Apache-2.0
"""`tool-firewall export`: the records of the journal as a file other programs read."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .history import reading
from .options import JsonOption, StateOption
from .output import PROBLEM, WRONG_INPUT, counted, fail, note, print_json, reports_errors
from .progress import progress
from .times import SinceOption, UntilOption, interval

if TYPE_CHECKING:
    from ..record_files import Writer
    from ..records import JournalRecords


class Format(StrEnum):
    """What a file holds."""

    JSONL = "jsonl"
    PARQUET = "parquet"
    EVENTS = "events"


class RecordKind(StrEnum):
    """What a record tells of."""

    CALL = "call"
    OUTCOME = "outcome"
    CONTROL = "control"


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("export")(export)


@reports_errors
def export(
    form: Annotated[
        Format,
        typer.Option("--format", help="jsonl or parquet: every record. events: calls, as replay reads them."),
    ] = Format.JSONL,
    out: Annotated[
        str, typer.Option("--out", metavar="FILE", help="-: standard output. A name in .gz is compressed.")
    ] = "-",
    since: SinceOption = None,
    until: UntilOption = None,
    kind: Annotated[RecordKind | None, typer.Option("--kind", help="Only records of this kind.")] = None,
    findings: Annotated[
        bool,
        typer.Option(
            "--findings",
            help="Only calls that were listed, warned about or stopped, and ends that made one so.",
        ),
    ] = False,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the records of the journal to a file, oldest first.

    Records hold names, times, costs, scores and reasons. Of argument values they hold keyed digests only,
    which mean something to this installation, and the hosts that were named. docs/records.md describes
    every field. Damaged records are left out and counted, with exit code 1. A file is readable for its
    owner only.

    \b
    Example:
      tool-firewall export --format jsonl --out march.jsonl.gz --since 14d
      tool-firewall export --findings | jq .user
      tool-firewall export --format events | tool-firewall replay - --out scores.jsonl
    """
    begin, end = interval(since, until)
    events = form is Format.EVENTS
    if events and kind not in (None, RecordKind.CALL):
        fail(f"--kind {kind}: events are calls; use --format jsonl", WRONG_INPUT)
    if form is Format.PARQUET and out == "-":
        fail("--format parquet needs a file: --out FILE", WRONG_INPUT)
    if as_json and out == "-":
        fail(
            "--json prints a summary, and standard output has the records: name a file with --out",
            WRONG_INPUT,
        )
    from ..record_files import FileProblem, LineWriter, ParquetWriter
    from ..records import JournalRecords, Selection

    # Endings of calls are needed for events, also those after --until and outside of --findings.
    selection = Selection() if events else Selection(begin, end, kind.value if kind else None, findings)
    with reading(state) as (_, journal), progress("exporting") as on_progress:
        try:
            writer: Writer = ParquetWriter(out) if form is Format.PARQUET else LineWriter(out)
            records = JournalRecords(journal, selection, on_progress)
            try:
                if events:
                    written = _write_events(records, writer, Selection(begin, end), findings)
                else:
                    written = _write_records(records, writer)
                writer.done()
            except BaseException:
                writer.abandon()
                raise
        except FileProblem as error:
            fail(str(error), WRONG_INPUT)
        except BrokenPipeError:
            raise  # somebody reads only the beginning: typer ends quietly
        except OSError as error:
            fail(f"{out}: cannot be written ({error.strerror})")
    what = "event" if events else "record"
    if as_json:
        print_json({f"{what}s": written, "damaged": records.damaged, "file": out, "format": form.value})
    else:
        note(counted(written, what) + ("" if out == "-" else f" in {out}"))
    if records.damaged:
        fail(
            f"{counted(records.damaged, 'damaged record')} left out; the first: {records.first_damage}. "
            "Run: tool-firewall verify",
            PROBLEM,
        )


def _write_records(records: JournalRecords, writer: Writer) -> int:
    from ..records import named_worker, to_json

    written = 0
    for fields in records:
        named = named_worker(fields)
        writer.write(to_json(named), named)
        written += 1
    return written


def _write_events(records: JournalRecords, writer: Writer, selection: Any, findings: bool) -> int:
    from ..records import EventJoiner, to_strict_json

    joiner = EventJoiner(findings=findings)
    written = 0

    def write(event: dict[str, Any]) -> None:
        nonlocal written
        writer.write(to_strict_json(event), event)
        written += 1

    for fields in records:
        if fields["kind"] == "outcome" or selection.takes(fields):
            for event in joiner.add(fields):
                write(event)
    for event in joiner.rest():
        write(event)
    return written
