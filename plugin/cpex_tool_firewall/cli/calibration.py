# SPDX-License-Identifier: Apache-2.0
"""`tool-firewall calibration`: are the risks what they say, and what would a new tool get here."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from .history import History, read_history, reading
from .options import JsonOption, StateOption
from .output import (
    PROBLEM,
    WRONG_INPUT,
    console,
    counted,
    duration,
    fail,
    moment,
    print_json,
    print_table,
    reports_errors,
    say,
    warn,
)
from .progress import progress
from .times import SinceOption, point_in_time

if TYPE_CHECKING:
    from ..detection import Detection, Probe, User
    from ..false_alarms import FalseAlarms, Share

_DAYS: Final = "14d"
_DAY: Final = 86_400.0
_YOUNG_DAYS: Final = 3.0
_TENANTS_SHOWN: Final = 10
_SESSIONS: Final = 24  # of one user
_MOST_SECONDS: Final = 60.0  # for trying out new tools
_DECADES: Final = 5  # of the picture: 0.001 % to 100 %
_COLUMNS: Final = 10  # of a decade
_MARKS: Final = "█▒┃"
_ASCII_MARKS: Final = "#-|"
_WORDS: Final = {"nobody's": "that nobody uses", "peers'": "that only others of the peer group use"}


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("calibration")(calibration)


@reports_errors
def calibration(
    since: SinceOption = None,
    user: Annotated[
        str | None, typer.Option("--user", metavar="U", help="Also: what a new tool of this user would get.")
    ] = None,
    tenant: Annotated[
        str | None, typer.Option("--tenant", metavar="T", help="Only this tenant (team id).")
    ] = None,
    sample: Annotated[
        int, typer.Option("--sample", min=1, max=10_000, help="With how many users new tools are tried out.")
    ] = 50,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare how often calls reached a risk with how often ordinary calls should, and try out new tools.

    A risk of 1/3 should be reached by 1 in 100 ordinary calls, 0.5 by 1 in 1,000, 0.667 by 1 in 10,000. The
    first part counts what the journal has of the last 14 days, or since --since. The second asks copies of
    the engine what a call of a new tool would get in the middle of a user's ordinary work; it stores nothing.
    docs/calibration.md says how to read both.

    \b
    Example:
      tool-firewall calibration
      tool-firewall calibration --since 3d --tenant 4f1c
      tool-firewall calibration --user alice@example.com --json
    """
    begin = point_in_time("--since", since or _DAYS)
    history = read_history(state)
    alarms = _count(state, begin, tenant)
    detection = _detection(history, tenant)
    someone = None if user is None else _user(detection, user, tenant)
    everybody, left = _try_sample(detection, sample)
    own = [] if someone is None else list(detection.probes(someone, range(_SESSIONS)))
    if as_json:
        print_json(
            {
                "since": begin,
                "first": alarms.first if alarms.calls else None,
                "last": alarms.last if alarms.calls else None,
                "calls": alarms.calls,
                "snoozed_left_out": alarms.snoozed,
                "history_left_out": alarms.history,
                "rates": list(_rates(alarms, tenant)),
                "detection": _power(everybody)
                | {"users_known": len(detection.users), "users_left_out": left},
                **({} if someone is None else {"user": _power_of(someone, own)}),
            }
        )
        return
    _print_rates(alarms, begin, history, tenant)
    _print_power(everybody, left, detection)
    if someone is not None:
        _print_user(someone, own)


def _count(state: str | None, begin: float | None, tenant: str | None) -> FalseAlarms:
    from ..false_alarms import FalseAlarms
    from ..records import JournalRecords, Selection

    alarms = FalseAlarms()
    with reading(state) as (_, journal), progress("counting") as on_progress:
        records = JournalRecords(journal, Selection(since=begin), on_progress)
        for fields in records:
            # The end of an ordinary call does not say whose it is.
            if tenant is None or fields.get("tenant", tenant) == tenant:
                alarms.add(fields)
    if records.damaged:
        warn(
            f"{counted(records.damaged, 'damaged record')} left out; the first: {records.first_damage}. "
            "Run: tool-firewall verify"
        )
    return alarms


def _rates(alarms: FalseAlarms, only: str | None) -> Iterator[dict[str, Any]]:
    from ..false_alarms import BANDS

    for tenant in (None, *alarms.tenants()) if only is None else (only,):
        for band, share in zip(BANDS, alarms.shares(tenant), strict=True):
            low, high = share.interval()
            yield {
                "tenant": tenant,  # None: everybody
                "risk": band.risk,
                "nominal": band.nominal,
                "calls": share.of,
                "reached": share.hits,
                "realised": share.value if share.of else None,
                "low": low,
                "high": high,
                "says": share.against(band.nominal),
            }


def _print_rates(alarms: FalseAlarms, begin: float | None, history: History, only: str | None) -> None:
    from ..false_alarms import BANDS

    left = [
        *([counted(alarms.snoozed, "call") + " under a snooze"] if alarms.snoozed else []),
        *([counted(alarms.history, "imported call")] if alarms.history else []),
    ]
    without = f" ({' and '.join(left)} left out)" if left else ""
    if not alarms.calls:
        say(
            f"no call was scored since {moment(begin or 0.0)}{without}: there is nothing to compare yet; let "
            "the gateway run, or look further back with --since"
        )
        return
    say(f"{counted(alarms.calls, 'call')}, {moment(alarms.first)} to {moment(alarms.last)}{without}")
    tenants = alarms.tenants()
    shown = [None, *(tenants[:_TENANTS_SHOWN] if len(tenants) > 1 else [])] if only is None else [only]
    rows = []
    for tenant in shown:
        for band, share in zip(BANDS, alarms.shares(tenant), strict=True):
            first = band is BANDS[0]
            whose = "everybody" if tenant is None else tenant or "(no tenant)"
            rows.append(
                [
                    whose if first else "",
                    f"{share.of:,}" if first else "",
                    band.shown,
                    f"1 in {1 / band.nominal:,.0f}",
                    f"{share.hits:,}",
                    _percent(share.value),
                    _range(share),
                    share.against(band.nominal),
                ]
            )
    columns = ["who", ">calls", ">risk", ">nominal", ">reached it", ">realised", ">95 % interval", "it is"]
    more = (
        f" (the {_TENANTS_SHOWN} busiest of {len(tenants)} tenants)" if len(tenants) > _TENANTS_SHOWN else ""
    )
    print_table(f"\nhow often a risk was reached{more}", columns, rows)
    _print_picture(alarms)
    _print_needed(alarms)
    young = history.engine.summary()["last"] - history.engine.summary()["since"] < _YOUNG_DAYS * _DAY
    if young:
        say(
            f"\nwhat was learned is less than {_YOUNG_DAYS:.0f} days old: until then more calls than nominal "
            "reach each risk"
        )


def _print_picture(alarms: FalseAlarms) -> None:
    from ..false_alarms import BANDS

    full, maybe, at = _MARKS if "utf" in (console().encoding or "").lower() else _ASCII_MARKS
    scale = "".join(f"{name:<{_COLUMNS}}" for name in ("0.001 %", "0.01 %", "0.1 %", "1 %", "10 %", "100 %"))
    say(f"\n{'':23}{scale}".rstrip(), "dim")
    for band, share in zip(BANDS, alarms.shares(), strict=True):
        low, high = (_column(end) for end in share.interval())
        realised = _column(share.value)
        picture = full * low + maybe * (high - low)
        picture = picture[:realised] + at + picture[realised + 1 :] if share.hits else picture
        say(f"  risk {band.shown:<5}  nominal  {full * _column(band.nominal)}")
        say(f"              realised {picture}")
    say(f"  {at} what was counted, {maybe} where the true rate may lie", "dim")


def _column(share: float) -> int:
    """Where a share stands on the scale of the picture."""
    if share <= 10**-_DECADES:
        return 0
    return round((math.log10(share) + _DECADES) * _COLUMNS)


def _print_needed(alarms: FalseAlarms) -> None:
    """Which risk cannot be judged yet, and when it can."""
    from ..false_alarms import BANDS, calls_needed

    open_bands = [
        band
        for band, share in zip(BANDS, alarms.shares(), strict=True)
        if share.against(band.nominal) == "too few calls"
    ]
    if not open_bands:
        return
    needed = calls_needed(open_bands[0].nominal)
    pace = alarms.calls / max(alarms.last - alarms.first, 1.0)
    enough = alarms.calls > 1 and alarms.last - alarms.first >= _DAY
    when = f", which takes {duration(needed / pace)} at this pace" if enough else ""
    names = " and ".join(band.shown for band in open_bands)
    say(f"\ntoo few calls to judge risk {names}: for {open_bands[0].shown} about {needed:,} are needed{when}")


def _detection(history: History, tenant: str | None) -> Detection:
    from ..detection import Detection
    from ..engines import build_engine

    return Detection(
        history.engine,
        lambda: build_engine(history.settings, history.state.key),
        session_idle=history.settings.session_idle_minutes * 60,
        tenant=tenant,
    )


def _user(detection: Detection, name: str, tenant: str | None) -> User:
    from .baseline import nearest

    found = [user for user in detection.users if user.name == name]
    if len(found) > 1:
        names = ", ".join(user.tenant or '"" (no tenant)' for user in found)
        fail(f"{name} is known in several tenants; choose one with --tenant: {names}", WRONG_INPUT)
    if not found:
        near = nearest(name, [user.name for user in detection.users])
        hint = f"; nearest: {', '.join(near)}" if near else "; see: tool-firewall baseline list"
        where = "" if tenant is None else f" in tenant {tenant or '(no tenant)'}"
        fail(f"nothing was learned of {name}{where}{hint}", PROBLEM)
    return found[0]


def _try_sample(detection: Detection, size: int) -> tuple[list[Probe], int]:
    """One session each of a sample of users, and how many users there was no time for."""
    users = detection.sample(size)
    probes: list[Probe] = []
    until = time.monotonic() + _MOST_SECONDS
    with progress("trying out new tools") as on_progress:
        for done, user in enumerate(users):
            if time.monotonic() > until:
                return probes, len(users) - done
            probes.extend(detection.probes(user, [done]))
            if on_progress is not None:
                on_progress(done + 1, len(users))
    return probes, 0


def _seen(probes: list[Probe], risk: float) -> Share:
    from ..false_alarms import Share

    return Share(sum(probe.risk >= risk for probe in probes), len(probes))


def _power(probes: list[Probe]) -> dict[str, Any]:
    from ..detection import KINDS
    from ..false_alarms import BANDS

    found = {}
    for kind in KINDS:
        of_kind = [probe for probe in probes if probe.kind == kind]
        entry: dict[str, Any] = {"tried": len(of_kind)}
        for name, band in (("listed", BANDS[0]), ("acted_on", BANDS[1])):
            share = _seen(of_kind, band.risk)
            low, high = share.interval()
            entry[name] = {"share": share.value if share.of else None, "low": low, "high": high}
        entry["median_risk"] = statistics.median(probe.risk for probe in of_kind) if of_kind else None
        found["tool_of_nobody" if kind == KINDS[0] else "tool_of_peers"] = entry
    return found


def _power_of(user: User, probes: list[Probe]) -> dict[str, Any]:
    peers = next((probe.tool for probe in probes if probe.tool), None)
    return {
        "tenant": user.tenant,
        "user": user.name,
        "calls": user.calls,
        "peers_tool": peers,
        **_power(probes),
        "probes": [
            {
                "kind": "tool_of_peers" if probe.tool else "tool_of_nobody",
                "after_calls": probe.after,
                "risk": probe.risk,
                "reasons": list(probe.reasons),
            }
            for probe in probes
        ],
    }


def _print_power(probes: list[Probe], left: int, detection: Detection) -> None:
    from ..detection import KINDS

    if not probes:
        say("\nno tool is known of anybody yet: there is nobody to try new tools with")
        return
    users = len({probe.user for probe in probes})
    calls = statistics.median(user.calls for user in {probe.user for probe in probes})
    rows = []
    for kind in KINDS:
        of_kind = [probe for probe in probes if probe.kind == kind]
        if not of_kind:
            rows.append([f"a tool {_WORDS[kind]}", "none to try", "", "", ""])
            continue
        listed, acted = _seen(of_kind, 1 / 3), _seen(of_kind, 0.5)
        rows.append(
            [
                f"a tool {_WORDS[kind]}",
                f"{listed.value:.0%} ({_range(listed, 0)})",
                f"{acted.value:.0%} ({_range(acted, 0)})",
                f"{statistics.median(probe.risk for probe in of_kind):.2f}",
                f"{len(of_kind):,}",
            ]
        )
    print_table(
        f"\na new tool in the ordinary work of {counted(users, 'user')} of {len(detection.users):,} "
        f"(half of them with {calls:,.0f} calls or more)",
        ["called", ">risk 1/3 or more", ">0.5 or more", ">median risk", ">users"],
        rows,
    )
    if left:
        say(f"  {counted(left, 'user')} left out: it took too long")


def _print_user(user: User, probes: list[Probe]) -> None:
    from ..detection import KINDS

    say(f"\n{user.name}, {counted(user.calls, 'call')}", "bold")
    if not probes:
        say("  no tool is known yet: only calls that ran, and are not held as new, are learned from")
    for kind in KINDS:
        of_kind = [probe for probe in probes if probe.kind == kind]
        if not of_kind:
            if probes:
                say(f"  others of the peer group use no tool that {user.name} does not know")
            continue
        named = of_kind[0].tool
        what = f"{named}, which {_WORDS[kind][5:]}," if named else f"a tool {_WORDS[kind]}"
        middle = sorted(of_kind, key=lambda probe: probe.risk)[len(of_kind) // 2]
        say(
            f"  {what} would be seen with probability {_seen(of_kind, 1 / 3).value:.2f}, and "
            f"reach 0.5 with {_seen(of_kind, 0.5).value:.2f}: risk {min(p.risk for p in of_kind):.2f} to "
            f"{max(p.risk for p in of_kind):.2f}, mostly {middle.risk:.2f}"
        )
        for reason in middle.reasons[:2]:
            say(f"    {reason}", "dim")


def _percent(share: float) -> str:
    return f"{share * 100:.3g} %"


def _range(share: Share, digits: int | None = None) -> str:
    low, high = (end * 100 for end in share.interval())
    if digits is None:
        return f"{low:.2g} to {high:.2g} %"
    return f"{low:.{digits}f} to {high:.{digits}f} %"
