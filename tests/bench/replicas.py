# SPDX-License-Identifier: Apache-2.0
"""Several engines that share one journal, in one process and in simulated time: what a gateway with several
workers does to the same calls, the same in every run.

Each worker's journal thread makes a turn every TURN seconds, at a phase of its own: it stores what its engine
has recorded, which takes WRITE seconds, and feeds its engine what was stored by then. So a call reaches the
other workers 5 to 45 ms later, as it does between processes.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from cpex_tool_firewall import _native

TURN: Final = 0.02
WRITE: Final = 0.004
_LATEST: Final = 512  # records taken from an engine at once

# What happens first when several things are due at the same time.
_STORE, _READ, _END = range(3)


class Call(NamedTuple):
    """One call of a stream, and how it ends."""

    at: float  # s since the epoch: when it is made
    tenant: str
    user: str
    group: str
    session: str
    tool: str
    mode: str = "warn"
    threshold: float = 0.5
    ends: float | None = None  # s since the epoch; None: the post hook is never called
    inspectable: bool = True
    off: float = 0.0  # s the clock was wrong when it was made, and
    ends_off: float = 0.0  # when it ended


class Answer(NamedTuple):
    """What an engine said to a call."""

    risk: float
    decision: str
    blocked: bool


Spread = Callable[[int, Call], int]
"""Number of a call in the stream, and the call, to the number of the worker that gets it."""


class Worker:
    """One engine, and how far it has read."""

    def __init__(self, make: Callable[..., _native.Engine], number: int, phase: float, turn: float) -> None:
        self.engine = make(worker=number + 1, journaling=True)
        self.read = 0  # packs
        self.planned = {_STORE: False, _READ: False}
        self._phase = phase
        self._turn = turn
        self._callers: dict[tuple[str, ...], _native.Caller] = {}
        self._policies: dict[tuple[str, float], _native.Policy] = {}

    def next_turn(self, now: float) -> float:
        """When this worker's thread wakes after `now`."""
        return (now - self._phase) // self._turn * self._turn + self._turn + self._phase

    def check(self, call: Call) -> _native.Verdict:
        who = (call.tenant, call.user, call.group, call.session)
        caller = self._callers.get(who)
        if caller is None:
            caller = self.engine.caller(call.tenant, call.user, group=call.group, session=call.session)
            self._callers[who] = caller
        how = (call.mode, call.threshold)
        policy = self._policies.get(how)
        if policy is None:
            policy = self._policies[how] = self.engine.policy(mode=call.mode, threshold=call.threshold)
        server, _, tool = call.tool.rpartition("/")
        arguments = {} if call.inspectable else {"x": object()}
        return self.engine.check(policy, caller, server, tool, arguments, call.at + call.off)


class Replicas:
    """`count` engines made by `make(worker=, journaling=)`, and the journal between them."""

    def __init__(
        self,
        make: Callable[..., _native.Engine],
        count: int,
        spread: Spread | None = None,
        *,
        turn: float = TURN,
        write: float = WRITE,
    ) -> None:
        self.workers = [Worker(make, number, number * turn / count, turn) for number in range(count)]
        self._spread: Spread = spread or (lambda number, call: number % count)
        self._write = write
        self._journal: list[tuple[float, bytes]] = []  # when it can be read, and a pack
        self._due: list[tuple[float, int, int, int, tuple[int, float] | None]] = []
        self._order = itertools.count()

    def run(self, calls: Iterable[Call]) -> Iterator[Answer]:
        """The answers to the calls, which come in the order in which they are made."""
        for number, call in enumerate(calls):
            self._until(call.at)
            worker = self._spread(number, call)
            verdict = self.workers[worker].check(call)
            self._plan(_STORE, worker, call.at)
            if verdict.ticket and call.ends is not None:
                end = (verdict.ticket, call.ends + call.ends_off)
                heapq.heappush(self._due, (call.ends, _END, next(self._order), worker, end))
            yield Answer(verdict.risk, verdict.decision, verdict.blocked)

    def finish(self) -> None:
        """Lets everything that was made reach everybody."""
        self._until(float("inf"))

    def _until(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            at, what, _, worker, end = heapq.heappop(self._due)
            if what == _END:
                assert end is not None
                self.workers[worker].engine.observe(end[0], "ok", end[1])
                self._plan(_STORE, worker, at)
            elif what == _STORE:
                self._store(worker, at)
            else:
                self._read(worker, at)

    def _plan(self, what: int, worker: int, after: float) -> None:
        one = self.workers[worker]
        if not one.planned[what]:
            one.planned[what] = True
            heapq.heappush(self._due, (one.next_turn(after), what, next(self._order), worker, None))

    def _store(self, worker: int, now: float) -> None:
        self.workers[worker].planned[_STORE] = False
        readable = max(now + self._write, self._journal[-1][0] if self._journal else 0.0)
        while packs := self.workers[worker].engine.drain(_LATEST):
            self._journal += [(readable, body) for _, _, body in packs]
        for other in range(len(self.workers)):
            self._plan(_READ, other, readable)

    def _read(self, worker: int, now: float) -> None:
        one = self.workers[worker]
        one.planned[_READ] = False
        while one.read < len(self._journal):
            readable, body = self._journal[one.read]
            if readable > now:
                self._plan(_READ, worker, readable)
                return
            one.engine.apply((body,))
            one.read += 1


@dataclass
class Agreement:
    """Two lists of answers to the same calls, compared."""

    calls: int = 0
    differing: list[int] = field(default_factory=list)  # numbers of the calls with another verdict
    risks: list[float] = field(default_factory=list)  # differences, absolute

    @property
    def same(self) -> float:
        """Share of the calls with the same verdict."""
        return 1 - len(self.differing) / self.calls if self.calls else 1.0

    def risk(self, share: float) -> float:
        """Difference of risk that `share` of the calls do not exceed."""
        return sorted(self.risks)[min(int(share * self.calls), self.calls - 1)]


def agreement(one: Sequence[Answer], other: Sequence[Answer]) -> Agreement:
    found = Agreement(calls=len(one))
    for number, (mine, theirs) in enumerate(zip(one, other, strict=True)):
        found.risks.append(abs(mine.risk - theirs.risk))
        if (mine.decision, mine.blocked) != (theirs.decision, theirs.blocked):
            found.differing.append(number)
    return found


def changes(one: Sequence[Answer], other: Sequence[Answer], numbers: Iterable[int]) -> Counter[str]:
    """What the differing verdicts were: "allow -> audit" and how often."""
    return Counter(f"{one[number].decision} -> {other[number].decision}" for number in numbers)
