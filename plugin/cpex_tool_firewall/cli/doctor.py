# SPDX-License-Identifier: Apache-2.0
"""`tool-firewall doctor`: does the running gateway really screen calls, and if not, what is to be done."""

import json
import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from ..config import load
from ..journal.interface import Journal, JournalError, Worker
from ..journal.opening import open_journal
from ..liveness import state_of
from ..state import State
from . import checks
from .checks import Finding, ok, problem, skipped
from .live_call import TOKEN_VARIABLE, check_live_call, read_token
from .options import JsonOption, StateOption
from .output import (
    PROBLEM,
    WRONG_INPUT,
    console,
    counted,
    fail,
    print_json,
    printable_lines,
    reports_errors,
    say,
    size,
)
from .version import installed_version

_STYLES = {"ok": "green", "problem": "bold red", "skipped": "dim"}
_SUBJECT_WIDTH = 14


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("doctor")(doctor)


@reports_errors
def doctor(
    gateway_config: Annotated[
        Path | None,
        typer.Option(
            "--gateway-config",
            metavar="FILE",
            help=f"The gateway's plugin configuration. Default: {checks.CONFIG_VARIABLE}.",
        ),
    ] = None,
    url: Annotated[
        str | None, typer.Option("--url", metavar="URL", help="Make a live call through this gateway.")
    ] = None,
    tool: Annotated[
        str | None, typer.Option("--tool", metavar="NAME", help="The tool to call, as the gateway lists it.")
    ] = None,
    arguments: Annotated[
        str, typer.Option("--arguments", metavar="JSON", help="Arguments of the live call.")
    ] = "{}",
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check that calls are really screened. Exit code 1 when anything is missing.

    The live call needs a token of a user who may call the tool: from TOOL_FIREWALL_TOKEN or standard input,
    never from the command line, where other users of the machine could read it. The
    call really runs, and it counts and teaches like any other of that user.

    \b
    Example:
      tool-firewall doctor --gateway-config plugins/config.yaml
      TOOL_FIREWALL_TOKEN=... tool-firewall doctor --url http://127.0.0.1:4444 --tool lab-srv-db-query
    """
    if (url is None) != (tool is None):
        fail("a live call needs both --url and --tool", WRONG_INPUT)
    parsed = _parse_arguments(arguments)
    findings = [
        checks.check_platform(),
        checks.check_engine(),
        checks.check_storage(),
        checks.check_cpex(),
        checks.check_gateway(),
        checks.check_plugin(),
    ]
    state_finding, opened = checks.check_state(state)
    journal_finding, journal, workers = _open_journal(opened)
    try:
        now = time.time()
        needed = not any(state_of(worker, now) == "alive" for worker in workers)
        findings += checks.check_config(_config_file(gateway_config), needed=needed)
        findings += [state_finding, journal_finding]
        findings += checks.check_workers(workers, installed_version(), now)
        if url is None or tool is None:
            findings.append(
                skipped("live call", f"not asked for; --url and --tool, token in {TOKEN_VARIABLE}")
            )
        elif opened is None or journal is None:
            findings.append(skipped("live call", "there is no journal to find its record in"))
        else:
            findings.append(check_live_call(url, tool, parsed, read_token(), opened, journal))
    finally:
        if journal is not None:
            journal.close()
    _report(findings, as_json)


def _parse_arguments(text: str) -> dict[str, Any]:
    try:
        parsed = json.loads(text)
    except ValueError as error:
        fail(f"--arguments: not JSON: {error}", WRONG_INPUT)
    if not isinstance(parsed, dict):
        fail('--arguments: must be a JSON object, such as {"query": "select 1"}', WRONG_INPUT)
    return parsed


def _config_file(given: Path | None) -> Path | None:
    if given is not None:
        return given
    named = os.environ.get(checks.CONFIG_VARIABLE)
    return Path(named) if named else None


def _open_journal(state: State | None) -> tuple[Finding, Journal | None, list[Worker]]:
    if state is None:
        return skipped("journal", "there is no state folder to look into"), None, []
    journal = None
    try:
        journal = open_journal(load({}), state, create=False)
        workers = journal.workers()
        found = ok("journal", f"{journal.where}, {size(journal.size())}")
    except JournalError as error:
        if journal is not None:
            journal.close()
        return problem("journal", str(error), "nothing is learned or remembered without it"), None, []
    return found, journal, workers


def _report(findings: list[Finding], as_json: bool) -> None:
    bad = sum(finding.status == "problem" for finding in findings)
    if as_json:
        print_json({"ok": not bad, "checks": [finding.as_dict() for finding in findings]})
    else:
        terminal = console()
        for finding in findings:
            line = Text(f"{finding.status:<8}", style=_STYLES[finding.status])
            line.append(
                f" {finding.subject:<{_SUBJECT_WIDTH}} {printable_lines(finding.text)}", style="default"
            )
            terminal.print(line, soft_wrap=True)
            if finding.advice:
                terminal.print(Text(f"{'':<9}-> {finding.advice}"), soft_wrap=True)
        said = "everything that was checked is well" if not bad else f"{counted(bad, 'problem')} found"
        say(said, "bold red" if bad else "bold green")
    if bad:
        raise typer.Exit(PROBLEM)
