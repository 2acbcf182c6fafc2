# SPDX-License-Identifier: Apache-2.0
"""Traffic with arguments, costs and failures, the same for the same seed; and a site that sees it live."""

import math
import random
from collections.abc import Iterable, Iterator
from typing import Any

from cli_support import DAY, HOUR, MONDAY_NOON, Site
from cpex_tool_firewall._native import decode_record
from cpex_tool_firewall.engines import build_engine
from cpex_tool_firewall.journal.interface import Pack, records_since

Event = dict[str, Any]

_TOOLS = ("db_query", "export", "send_mail", "search", "read_file", "transfer")
_COSTS = {"db_query": 0.02, "export": 0.4, "send_mail": 0.01, "transfer": 0.1}


def stream(
    days: int = 14,
    *,
    users: int = 6,
    seed: int = 5,
    start: float = MONDAY_NOON - 14 * DAY,
    duration: float = 0.0,
    tenant: str = "t1",
) -> list[Event]:
    """Events as `import` and `replay` read them, oldest first; about 25 calls of a user on a working day.

    Now and then somebody uses a new tool, sends something to a stranger, pays far more or repeats a call.
    """
    dice = random.Random(seed)
    events: list[Event] = []
    for day in range(days):
        for number in range(users):
            user = f"user{number}@example.com"
            usual = [_TOOLS[(number + step) % len(_TOOLS)] for step in range(3)]
            for session in range(2):
                now = start + day * DAY - 3 * HOUR + session * 4 * HOUR + dice.uniform(0, 1800) + number
                for _ in range(dice.randint(8, 14)):
                    odd = dice.random() < 0.01
                    tool = dice.choice(_TOOLS) if odd else dice.choice(usual)
                    event = {
                        "ts": round(now, 3),
                        "tenant": tenant,
                        "user": user,
                        "agent": "",
                        "session": f"{user}/{day}/{session}",
                        "server": "",
                        "tool": tool,
                        "args": _arguments(dice, tool, number, odd=odd),
                        "ok": dice.random() > 0.05,
                        "cost": _cost(dice, tool, odd=odd),
                        "duration": duration,
                    }
                    events.append(event)
                    if odd and dice.random() < 0.3:  # over and over
                        events.extend({**event, "ts": event["ts"] + 2 * n, "ok": False} for n in range(1, 9))
                    now += dice.uniform(10, 400)
    events.sort(key=lambda event: event["ts"])
    for number, event in enumerate(events):
        event["event_id"] = f"e{number}"
    return events


def _arguments(dice: random.Random, tool: str, number: int, *, odd: bool) -> dict[str, Any]:
    stranger = odd and dice.random() < 0.7
    if tool == "send_mail":
        to = f"x{dice.randint(0, 99)}@else.where" if stranger else f"mate{dice.randint(0, 4)}@example.com"
        return {"to": [to], "body": "dear all, " * dice.randint(1, 9), "urgent": dice.random() < 0.2}
    if tool == "transfer":
        return {"account": f"DE{dice.randint(10**9, 10**10 - 1) if stranger else 1234567890 + number}"}
    if tool == "read_file":
        return {"path": f"/srv/{'etc' if stranger else 'data'}/{number}/{dice.randint(0, 30)}.txt"}
    if tool == "export":
        return {
            "url": f"https://{'evil' if stranger else 'store'}.example/{number}",
            "rows": dice.randint(1, 9),
        }
    return {"q": f"name{dice.randint(0, 40)}", "limit": dice.choice([10, 100]), "deep": {"a": None, "b": 1.5}}


def _cost(dice: random.Random, tool: str, *, odd: bool) -> float | None:
    usual = _COSTS.get(tool)
    return None if usual is None else usual * math.exp(dice.gauss(0, 0.4)) * (50 if odd else 1)


def live(
    site: Site, events: Iterable[Event], *, token: str = "", group: str = "", agent: str | None = None
) -> None:
    """The events as a worker of the site sees them, into its journal. token: what tokens begin with; each
    user has one for every ten days. agent: as the group, unless it is given.
    """
    engine = build_engine(site.settings, site.state.key, worker=4712, journaling=True)
    policy = engine.policy()
    ends: list[tuple[float, int, Event]] = []

    def finish(until: float) -> None:
        while ends and ends[0][0] <= until:
            at, ticket, event = ends.pop(0)
            cost = math.nan if event["cost"] is None else event["cost"]
            engine.observe(ticket, "ok" if event["ok"] else "tool_error", at, cost)

    for number, event in enumerate(events):
        finish(event["ts"])
        caller = engine.caller(
            event["tenant"],
            event["user"],
            session=event["session"],
            token=token_of(event, token),
            group=group,
            agent=group if agent is None else agent,
        )
        verdict = engine.check(policy, caller, event["server"], event["tool"], event["args"], event["ts"])
        ends.append((event["ts"] + event["duration"], verdict.ticket, event))
        ends.sort(key=lambda end: end[0])
        if number % 500 == 0:
            _store(site, engine)
    finish(math.inf)
    _store(site, engine)


def token_of(event: Event, begin: str) -> str:
    """The token that live() gives an event."""
    return begin and f"{begin}/{event['user']}/{int(event['ts'] // (10 * DAY))}"


def _store(site: Site, engine: Any) -> None:
    site.journal.append([Pack(*one) for one in engine.drain(1 << 20)])


def evaluations(site: Site) -> Iterator[tuple[float, float]]:
    """(risk before, risk when it had ended) of every call in the journal, in the order of the calls."""
    found: dict[tuple[int, int], list[float]] = {}
    for record in records_since(site.journal):
        fields = decode_record(record)
        key = (fields["worker"], fields["seq"])
        if fields["kind"] == "call":
            found[key] = [fields["risk"], fields["risk"]]
        elif fields["kind"] == "outcome":
            found[key][1] = fields["risk"]
    yield from ((before, after) for before, after in found.values())
