# SPDX-License-Identifier: Apache-2.0
"""What the demonstration leaves behind: a table on the screen and build/demo/summary.json."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from demo.story import StepResult


def write_summary(path: Path, results: Sequence[StepResult]) -> None:
    """A list of {step, transport, expected, got, risk, signals, ok}."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n", encoding="utf-8")


def show(console: Console, transport: str, results: Sequence[StepResult]) -> None:
    """The story of one transport as a table."""
    table = Table(title=f"Over {transport}", title_justify="left", expand=True, show_lines=True)
    table.add_column("", width=2)
    table.add_column("what happens", ratio=3)
    table.add_column("expected", ratio=3)
    table.add_column("what the firewall did", ratio=5)
    table.add_column("risk", justify="right", width=5)
    table.add_column("signals", ratio=2)
    for result in results:
        table.add_row(
            "[green]ok[/]" if result.ok else "[bold red]NO[/]",
            result.step,
            result.expected,
            result.got,
            "" if result.risk is None else f"{result.risk:.2f}",
            ", ".join(result.signals),
        )
    console.print(table)
