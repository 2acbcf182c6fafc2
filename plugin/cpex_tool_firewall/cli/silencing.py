# SPDX-License-Identifier: Apache-2.0
"""`tool-firewall snooze` and `suppress`: quiet for a while, in the firewall or in the feed alone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .following import Followed, operator
from .history import reading
from .incidents import is_incident, is_uid, locate
from .options import JsonOption, StateOption, TenantOption, ToolOption, UserOption, WhyOption
from .output import (
    PROBLEM,
    WRONG_INPUT,
    duration,
    fail,
    moment,
    print_json,
    print_table,
    reports_errors,
    say,
    warn,
)
from .risks import known_signal
from .scopes import scope_words
from .times import deadline

if TYPE_CHECKING:
    from ..silences import Scope, Silence

_SUPPRESS_FOR = "30d"


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("snooze")(snooze)
    app.command("suppress")(suppress)


@reports_errors
def snooze(
    until: Annotated[
        str | None,
        typer.Argument(
            metavar="UNTIL",
            help="How long (2h, 3d) or until when (2026-11-21T06:30, UTC); now, or a time that is past, ends "
            "a snooze; none: show what is snoozed.",
            show_default=False,
        ),
    ] = None,
    tenant: TenantOption = "",
    tool: ToolOption = "",
    user: UserOption = "",
    why: WhyOption = "",
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Quiet the firewall for a while: no warning, and nothing is stopped for how it behaves.

    Snoozed calls are still scored, recorded and learned from, and `feed --all` shows them. For a planned load
    test, a migration, a change of role. A snooze ends by itself, and 7 days after the first one for the same
    scope at the latest, however often it is extended: a later time is brought forward, and the answer says
    so.

    \b
    Example:
      tool-firewall snooze 2h --tool db_query --why "load test, ticket 4711"
      tool-firewall snooze 2026-12-01T08:00 --user alice@example.com
      tool-firewall snooze now --tool db_query
      tool-firewall snooze
    """
    from ..control import ControlError
    from ..control import snooze as write
    from ..silences import Scope, read_silences

    scope = Scope(tenant, tool, user)
    with reading(state) as (_, journal):
        now = time.time()
        silences = read_silences(journal)
        if until is None:
            _no_why(why)
            _show([(one, "", held) for one, held in silences.snoozes(now)], scope, as_json, now)
            return
        asked = deadline("UNTIL", until, now)
        current = silences.snooze(scope)
        if asked <= now and not _in_force(current, now):
            fail(f"{_words(scope)}: nothing is snoozed; see: tool-firewall snooze", PROBLEM)
        try:
            made = write(journal, asked, scope, current=current, by=operator(), why=why, now=now)
        except ControlError as error:
            fail(str(error), WRONG_INPUT)
        followed = Followed(journal, made.cursor)
    if as_json:
        print_json(
            {
                **scope._asdict(),
                "snoozed_until": made.until or None,
                "clamped": made.clamped,
                "first": made.first if made.until else None,
                "by": operator(),
                "why": why,
                **followed.as_json(),
            }
        )
    else:
        if made.until:
            left = f"until {moment(made.until)} (in {duration(made.until - now)})"
            say(f"{_words(scope)}: snoozed {left}", "bold")
            say(
                "calls are scored and recorded; there is no warning, and nothing is stopped for its behaviour"
            )
        else:
            say(f"{_words(scope)}: no longer snoozed", "bold")
        if made.clamped:
            warn(
                f"{moment(asked)} was asked for, but a scope is snoozed for 7 days at most, and this began "
                f"{moment(made.first)}"
            )
        followed.tell()
    followed.end()


@reports_errors
def suppress(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="SIGNAL|ID",
            help="A signal, * for all of a scope, or a finding of the feed: its signal, tool and user; none: "
            "show what is suppressed.",
            show_default=False,
        ),
    ] = None,
    until: Annotated[
        str, typer.Argument(metavar="UNTIL", help="As for snooze, 90 days at most; now ends it.")
    ] = _SUPPRESS_FOR,
    tenant: TenantOption = "",
    tool: ToolOption = "",
    user: UserOption = "",
    why: WhyOption = "",
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Hide findings from the feed, for a while. Calls are warned about and stopped as before.

    For what is known and not worth a row. `feed --all` still shows it.

    \b
    Example:
      tool-firewall suppress off_hours 30d --user bob@example.com --why "night shift in December"
      tool-firewall suppress f-5f0c2a9e71
      tool-firewall suppress off_hours now --user bob@example.com
      tool-firewall suppress
    """
    from ..control import ControlError
    from ..control import suppress as write
    from ..silences import ANY_SIGNAL, Scope, read_silences

    scope = Scope(tenant, tool, user)
    with reading(state) as (opened, journal):
        now = time.time()
        silences = read_silences(journal)
        if what is None:
            _no_why(why)
            _show(list(silences.suppressions(now)), scope, as_json, now)
            return
        if is_uid(what) or is_incident(what):
            if any(scope):
                fail("a finding names its own tenant, tool and user: leave those options out", WRONG_INPUT)
            finding = locate(journal, opened.key, what)
            signal, scope = finding.signal, Scope(finding.tenant, finding.tool, finding.user)
        else:
            signal = known_signal(what, ANY_SIGNAL)
        asked = deadline("UNTIL", until, now)
        if asked <= now and not _in_force(silences.suppression(scope, signal), now):
            fail(f"{signal}, {_words(scope)}: nothing is suppressed; see: tool-firewall suppress", PROBLEM)
        try:
            made = write(journal, signal, asked, scope, by=operator(), why=why, now=now)
        except ControlError as error:
            fail(str(error), WRONG_INPUT)
    if as_json:
        print_json(
            {
                **scope._asdict(),
                "signal": signal,
                "suppressed_until": made.until or None,
                "clamped": made.clamped,
                "by": operator(),
                "why": why,
                "cursor": made.cursor,
            }
        )
        return
    name = "every signal" if signal == ANY_SIGNAL else signal
    if made.until:
        left = f"until {moment(made.until)} (in {duration(made.until - now)})"
        say(f"{name}, {_words(scope)}: hidden from the feed {left}", "bold")
        say("calls are warned about and stopped as before; feed --all shows what is hidden")
    else:
        say(f"{name}, {_words(scope)}: shown in the feed again", "bold")
    if made.clamped:
        warn(f"{moment(asked)} was asked for, but findings are suppressed for 90 days at most")


def _no_why(why: str) -> None:
    if why:
        fail("--why goes with a change", WRONG_INPUT)


def _in_force(silence: Silence | None, now: float) -> bool:
    return silence is not None and silence.holds(now)


def _words(scope: Scope) -> str:
    return scope_words(scope._asdict())


def _show(found: list[tuple[Scope, str, Silence]], asked: Scope, as_json: bool, now: float) -> None:
    """What is in force; where a scope is asked for, what is said for exactly that one."""
    kept = [entry for entry in found if not any(asked) or entry[0] == asked]
    if as_json:
        print_json([_entry(*entry) for entry in kept])
        return
    rows = [
        [
            *([signal] if signal else []),
            _words(scope),
            f"{moment(one.until)} (in {duration(one.until - now)})",
            moment(one.first),
            one.by,
            one.why,
        ]
        for scope, signal, one in kept
    ]
    signals = any(signal for _, signal, _ in kept)
    print_table("", [*(["=signal"] if signals else []), "scope", "=until", "=since", "by", "why"], rows)


def _entry(scope: Scope, signal: str, one: Silence) -> dict[str, Any]:
    named = {"signal": signal} if signal else {}
    return {
        "scope": scope._asdict(),
        **named,
        "until": one.until,
        "first": one.first,
        "by": one.by,
        "why": one.why,
    }
