# SPDX-License-Identifier: Apache-2.0
"""Runs the demonstration: `make demo`. Exit code 0 only when every step went as expected.

Starts a fresh gateway and upstream for each transport and stops them, whatever happens. Their logs stay in
build/demo/TRANSPORT until the next run.
"""

import shutil
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Final

from gateway_lab import TRANSPORTS, GatewayOptions, Lab, LabError
from gateway_lab.firewall import Firewall, firewall_plugin
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from demo.report import show, write_summary
from demo.story import BURST_LIMIT, STEPS, StepResult, Story

FOLDER: Final = Path("build/demo")  # in the project's root, where `make demo` runs
NAMES: Final = {"rpc": "/rpc", "mcp": "MCP streamable HTTP"}
_INTERRUPTED: Final = 130


def main() -> int:
    # Without this a SIGTERM would end us on the spot and leave the gateway running.
    signal.signal(signal.SIGTERM, _terminated)
    console = Console()
    results: list[StepResult] = []
    shutil.rmtree(FOLDER, ignore_errors=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("", total=len(TRANSPORTS) * (len(STEPS) + 2))
            for transport in TRANSPORTS:
                told = play(transport, progress, task)
                results += told
                show(console, NAMES[transport], told)
    except LabError as error:
        console.print(f"[bold red]The demonstration could not go on:[/] {error}", highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted; everything that was started is stopped.")
        return _INTERRUPTED
    finally:
        write_summary(FOLDER / "summary.json", results)
    failed = [result for result in results if not result.ok]
    console.print(
        f"{len(results) - len(failed)} of {len(results)} steps as expected; see {FOLDER / 'summary.json'}"
    )
    return 1 if failed else 0


def play(transport: str, progress: Progress, task: TaskID) -> list[StepResult]:
    """The whole story on one transport."""

    def doing(what: str) -> None:
        progress.update(task, description=f"{NAMES[transport]}: {what}")

    folder = FOLDER.absolute() / transport
    folder.mkdir(parents=True)
    plugin = firewall_plugin(mode="warn", burst_threshold=BURST_LIMIT, burst_window_seconds=60)
    doing("starting the gateway and the upstream server")
    with Lab(folder, GatewayOptions(plugins=[plugin])) as lab:
        firewall = Firewall(lab)
        try:
            progress.advance(task)
            story = Story(lab, firewall, transport)
            doing("two weeks of history")
            story.learn()
            progress.advance(task)
            results = []
            for step in STEPS:
                doing(step.title)
                results.append(story.play(step))
                progress.advance(task)
            return results
        finally:
            firewall.close()


def _terminated(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
