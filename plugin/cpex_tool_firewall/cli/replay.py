# SPDX-License-Identifier: Apache-2.0
"""`tool-firewall replay`: scores old traffic from a file, learning as it goes. Needs no gateway, no state."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ..config import ConfigError, Settings, load
from .options import JsonOption
from .output import WRONG_INPUT, console, counted, fail, print_json, reports_errors, say
from .plugin_config import FileError, settings_in

# The same for every replay: the same events and settings give the same scores, on every machine.
_KEY = b"tool-firewall replay: no secret."

_DASH = Path("-")
_STANDARD_INPUT = Path("/dev/stdin")

OnProgress = Callable[[int, int, int], None]


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("replay")(replay)


@reports_errors
def replay(
    events: Annotated[
        Path,
        typer.Argument(
            metavar="EVENTS.jsonl[.gz]", help="One event a line, oldest first. -: standard input."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="SCORES.jsonl[.gz]", help="Where to write one score an event.")
    ],
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="YAML with the plugin's settings, or the gateway's plugin configuration.",
        ),
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Count bad lines and go on.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Score recorded events, learning as it goes.

    Runs on a fresh engine; the gateway and its state are not touched. An event is a JSON object: event_id,
    ts (seconds, UTC), tenant, user, agent, session, tool, args, ok, cost, duration. A score has event_id,
    risk, verdict and signals. A bad line stops the replay with exit code 2.

    \b
    Example:
      tool-firewall replay march.jsonl.gz --out scores.jsonl.gz
      tool-firewall replay march.jsonl --out scores.jsonl --config plugins/config.yaml --skip-bad
      tool-firewall export --format events | tool-firewall replay - --out scores.jsonl
    """
    settings = _settings(config)
    _check_files(events, out)
    from .._native import Replay
    from ..engines import build_engine

    source = str(_STANDARD_INPUT if events == _DASH else events)
    engine = build_engine(settings, _KEY)
    policy = engine.policy(
        mode=settings.mode, threshold=settings.threshold, exempt_tools=settings.uninspectable_exempt_tools
    )
    job = Replay(engine, policy, source, str(out), skip_bad=skip_bad)
    try:
        with _progress() as on_progress:
            result = job.run(on_progress)
    except UnicodeDecodeError as error:  # the engine's message quotes a line that is not UTF-8
        _fail_at(events, error.object.decode("utf-8", "backslashreplace"))
    except ValueError as error:
        _fail_at(events, str(error))
    if as_json:
        print_json(result)
    else:
        say(_summary(result))


def _fail_at(events: Path, text: str) -> NoReturn:
    fail(f"{events}: {text}" if text.startswith("line ") else text, WRONG_INPUT)


def _settings(path: Path | None) -> Settings:
    if path is None:
        return load({})
    try:
        return load(settings_in(path))
    except (FileError, ConfigError) as error:
        fail(str(error) if isinstance(error, FileError) else f"{path}: {error}", WRONG_INPUT)


def _check_files(events: Path, out: Path) -> None:
    if events != _DASH and not events.is_file():
        what = "is not a file" if events.exists() else "there is no such file"
        fail(f"{events}: {what}; accepted: JSON Lines, plain or gzip", WRONG_INPUT)
    if events != _DASH and not os.access(events, os.R_OK):
        fail(f"{events}: may not be read", WRONG_INPUT)
    if not out.parent.is_dir():
        fail(f"{out}: the folder {out.parent} does not exist", WRONG_INPUT)
    if out.is_dir():
        fail(f"{out}: is a folder; name a file", WRONG_INPUT)
    if events != _DASH and out.exists() and out.samefile(events):
        fail(f"{out}: the scores would overwrite the events; name another file", WRONG_INPUT)


@contextmanager
def _progress() -> Iterator[OnProgress | None]:
    terminal = console(error=True)
    if not terminal.is_terminal:
        yield None
        return
    with Progress(
        TextColumn("replaying"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[events]:,} events"),
        TimeRemainingColumn(),
        console=terminal,
        transient=True,
    ) as bar:
        task = bar.add_task("", total=None, events=0)

        def on_progress(done: int, total: int, events: int) -> None:
            bar.update(task, completed=done, total=total or None, events=events)

        yield on_progress


def _summary(result: dict[str, Any]) -> str:
    seconds = result["seconds"]
    rate = result["events"] / seconds if seconds > 0 else 0.0
    verdicts = ", ".join(f"{name} {count:,}" for name, count in result["verdicts"].items())
    skipped = f"; {counted(result['skipped'], 'bad line')} skipped" if result["skipped"] else ""
    return (
        f"{counted(result['events'], 'event')} in {seconds:.2f} s ({rate:,.0f} a second): {verdicts}{skipped}"
    )
