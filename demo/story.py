# SPDX-License-Identifier: Apache-2.0
"""The story: who does what in the gateway, what is expected of the firewall, and what it did."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateway_lab import Answer, Lab
from gateway_lab.firewall import Firewall, ScoredCall
from gateway_lab.history import Habit, hours_around

THRESHOLD: Final = 0.5
NOTICED: Final = 3.0  # times the risk of the same call at a usual hour
BURST_LIMIT: Final = 20
BURST_CALLS: Final = 25
BURST_SECONDS: Final = 30.0
NOTABLE: Final = 1 / 3
LOOP_CALLS: Final = 8
LOOP_FOUND: Final = 6

QUERY: Final = {"sql": "select name, city from customers"}
NOVEL: Final = {"table": "customers", "where": "1 = 1"}


@dataclass(frozen=True)
class StepResult:
    """One line of the summary. risk is None and signals empty where a step is no tool call."""

    step: str
    transport: str
    expected: str
    got: str
    risk: float | None
    signals: tuple[str, ...]
    ok: bool


@dataclass(frozen=True)
class Step:
    """title: what happens, as shown while it runs. play: does it and says what came of it."""

    title: str
    expected: str
    play: Callable[["Story"], tuple[str, ScoredCall | None, bool]]


class Story:
    """The story on one transport, in a lab of its own."""

    def __init__(self, lab: Lab, firewall: Firewall, transport: str) -> None:
        self.lab = lab
        self.firewall = firewall
        self.transport = transport
        self.usual_risk = 1.0  # of alice's ordinary query, once she made it

    def learn(self) -> None:
        """Gives alice, dave and bob two weeks of history; bob's leaves this hour and those around it out."""
        now = time.time()
        present = hours_around(now, before=5, after=3)
        absent = hours_around(now + 12 * 3600, before=4, after=4)
        hours = {"alice": present, "dave": present, "bob": absent}
        self.firewall.learn([Habit(self.lab.email(user), when) for user, when in hours.items()], until=now)

    def play(self, step: Step) -> StepResult:
        """Plays one of STEPS; they are to be played in order."""
        got, scored, ok = step.play(self)
        return StepResult(
            step=step.title,
            transport=self.transport,
            expected=step.expected,
            got=got,
            risk=None if scored is None else round(scored.risk, 3),
            signals=() if scored is None else scored.signals,
            ok=ok,
        )

    def call(self, user: str, tool: str, arguments: dict[str, str]) -> tuple[Answer, ScoredCall, int]:
        """What the agent got, what was recorded, and how many calls the upstream received."""
        self.lab.upstream_calls()
        answer = self.lab.call(user, tool, arguments, transport=self.transport)
        return answer, self.firewall.call(), len(self.lab.upstream_calls())


def _known_tool(story: Story) -> tuple[str, ScoredCall, bool]:
    answer, scored, received = story.call("alice", "db_query", QUERY)
    story.usual_risk = scored.risk
    ok = answer.ok and received == 1 and scored.decision == "allow" and scored.risk < THRESHOLD
    return _ran(answer), scored, ok


def _novel_tool(story: Story) -> tuple[str, ScoredCall, bool]:
    answer, scored, received = story.call("alice", "delete_records", NOVEL)
    warned = any("delete_records" in line and "WARNING" in line for line in _firewall_log(story))
    ok = answer.ok and received == 1 and warned and scored.risk >= THRESHOLD and "novelty" in scored.signals
    return f"{_ran(answer)}, {'with' if warned else 'WITHOUT'} a warning in the log", scored, ok


def _novel_tool_blocked(story: Story) -> tuple[str, ScoredCall, bool]:
    answer, scored, received = story.call("alice", "delete_records", NOVEL)
    readable = "tool firewall" in answer.text and "incident" in answer.text
    ok = not answer.ok and received == 0 and scored.blocked and readable
    return _stopped(answer, received), scored, ok


def _burst(story: Story) -> tuple[str, ScoredCall, bool]:
    started = time.monotonic()
    answers = [
        story.lab.call("dave", "db_query", QUERY, transport=story.transport) for _ in range(BURST_CALLS)
    ]
    seconds = time.monotonic() - started
    scored = story.firewall.calls(BURST_CALLS)
    first = next((number for number, call in enumerate(scored, 1) if call.blocked), 0)
    over = scored[BURST_LIMIT:]
    ok = (
        seconds < BURST_SECONDS
        and 0 < first <= BURST_LIMIT + 1
        and all(call.blocked and call.signals[0] == "burst" and call.risk >= THRESHOLD for call in over)
        and all(not answer.ok for answer in answers[BURST_LIMIT:])
    )
    return f"{BURST_CALLS} calls in {seconds:.1f} s, stopped from call {first} on", scored[-1], ok


def _odd_hour(story: Story) -> tuple[str, ScoredCall, bool]:
    answer, scored, _ = story.call("bob", "db_query", QUERY)
    times = scored.risk / story.usual_risk
    ok = answer.ok and "off_hours" in scored.signals and times >= NOTICED
    return f"{_ran(answer)}, risk {times:.1f} times alice's", scored, ok


def _warned_again(story: Story) -> tuple[str, ScoredCall, bool]:
    answer, scored, received = story.call("alice", "delete_records", NOVEL)
    ok = answer.ok and received == 1 and not scored.blocked and scored.risk >= THRESHOLD
    return _ran(answer), scored, ok


def _loop(story: Story) -> tuple[str, ScoredCall, bool]:
    calls = []
    for _ in range(LOOP_CALLS):
        story.lab.call("bob", "boom", {"message": "again"}, transport=story.transport)
        calls.append(story.firewall.call())
    first = next((number for number, call in enumerate(calls, 1) if "retry_loop" in call.signals), 0)
    ok = 0 < first <= LOOP_FOUND and calls[-1].risk >= NOTABLE
    return f"retry_loop from call {first} on", calls[-1], ok


def _feed(story: Story) -> tuple[str, None, bool]:
    done = story.firewall.command("feed", "--json")
    rows = json.loads(done.stdout) if done.returncode == 0 else []
    signals = sorted({row["signal"] for row in rows})
    ok = bool(rows) and all(row["explanation"] and row["suggested_action"] for row in rows)
    return f"{len(rows)} findings: {', '.join(signals)}", None, ok


def _accepted(story: Story) -> tuple[str, ScoredCall, bool]:
    user = story.lab.email("alice")
    news = json.loads(story.firewall.command("news", "--user", user, "--json").stdout)
    items = [item["id"] for item in news if item["kind"] == "tool" and item["tool"] == "delete_records"]
    done = story.firewall.command("accept", *items, "--user", user, "--why", "her new role")
    answer, scored, received = story.call("alice", "delete_records", NOVEL)
    ok = bool(items) and done.returncode == 0 and answer.ok and received == 1 and scored.risk < THRESHOLD
    return _ran(answer), scored, ok


def _mode(mode: str) -> Callable[[Story], tuple[str, None, bool]]:
    def change(story: Story) -> tuple[str, None, bool]:
        done = story.firewall.command("mode", mode)
        followed = [worker.body["mode"] for worker in story.firewall.workers()]
        ok = done.returncode == 0 and bool(followed) and set(followed) == {mode}
        words = (done.stdout + done.stderr).strip().splitlines()
        return words[-1].strip() if words else f"exit code {done.returncode}", None, ok

    return change


STEPS: Final = (
    Step("alice calls db_query, as every day", f"runs, risk under {THRESHOLD}", _known_tool),
    Step(
        "alice calls delete_records for the first time",
        f"runs with a warning, risk {THRESHOLD} or more",
        _novel_tool,
    ),
    Step("tool-firewall mode block", "every worker follows", _mode("block")),
    Step(
        "alice calls delete_records again",
        "stopped; she reads why; the upstream is not called",
        _novel_tool_blocked,
    ),
    Step(
        f"dave calls db_query {BURST_CALLS} times in {BURST_SECONDS:g} s (limit {BURST_LIMIT} per 60 s)",
        f"burst: stopped at call {BURST_LIMIT + 1} at the latest",
        _burst,
    ),
    Step(
        "bob calls db_query at an hour he never works",
        f"runs; off_hours, risk {NOTICED:g} times alice's",
        _odd_hour,
    ),
    Step("tool-firewall mode warn", "every worker follows", _mode("warn")),
    Step("alice calls delete_records once more", "runs with a warning: still new", _warned_again),
    Step(
        f"bob's agent makes the same failing call {LOOP_CALLS} times",
        f"retry_loop, by call {LOOP_FOUND} at the latest",
        _loop,
    ),
    Step("tool-firewall feed", "one row for each incident, with what to do", _feed),
    Step(
        "tool-firewall accept, and alice calls delete_records",
        f"runs, risk under {THRESHOLD}: accepted",
        _accepted,
    ),
)


def _ran(answer: Answer) -> str:
    return "ran" if answer.ok else f"FAILED: {answer.text[:80]}"


def _stopped(answer: Answer, received: int) -> str:
    if answer.ok:
        return "ran"
    upstream = "upstream not called" if received == 0 else "UPSTREAM CALLED"
    return f"{upstream}; she reads: “{_description(answer)}”"


def _description(answer: Answer) -> str:
    """What the firewall says, without what the transport puts around it."""
    if isinstance(answer.body, dict) and answer.body.get("data"):
        return str(answer.body["data"]["description"])
    return answer.text.partition("(")[2].rstrip(")") or answer.text


def _firewall_log(story: Story) -> list[str]:
    return [line for line in story.lab.gateway_log().splitlines() if "cpex_tool_firewall" in line]
