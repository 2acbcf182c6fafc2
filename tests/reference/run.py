# SPDX-License-Identifier: Apache-2.0
"""Scores a stream of events with the reference: python -m reference.run EVENTS.jsonl.gz SCORES.jsonl.gz

The agent is the peer group, every call ends after its duration, as `tool-firewall replay` plays it.
"""

import gzip
import heapq
import json
import math
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .model import Call, Model, Settings


def scores(events: Iterable[dict[str, Any]], model: Model) -> Iterator[dict[str, Any]]:
    waiting: deque[dict[str, Any]] = deque()  # scores in the order of the events; without a risk: not ended
    ends: list[tuple[float, int, int, bool, float | None, dict[str, Any]]] = []  # a heap, by time and number

    def end(until: float) -> None:
        while ends and ends[0][0] <= until:
            at, _, ticket, ok, cost, score = heapq.heappop(ends)
            after = model.observe(ticket, at, ok, cost)
            # A call that took more than five minutes was taken for done before.
            score["risk"] = score["risk_pre"] if after is None else after.risk

    for number, event in enumerate(events):
        end(event["ts"])
        call = Call(
            event["tenant"],
            event["user"],
            event["agent"],
            event["session"],
            event["tool"],
            arguments=event.get("args", {}),
            agent=event["agent"],
        )
        verdict = model.check(call, event["ts"])
        score = {"event_id": event["event_id"], "risk_pre": verdict.risk}
        waiting.append(score)
        at = event["ts"] + (event.get("duration") or 0.0)
        heapq.heappush(ends, (at, number, verdict.ticket, event.get("ok", True), event.get("cost"), score))
        while waiting and "risk" in waiting[0]:
            yield waiting.popleft()
    end(math.inf)
    yield from waiting


def main(source: Path, target: Path) -> None:
    with gzip.open(source, "rt", encoding="utf-8") as lines, gzip.open(target, "wt", encoding="utf-8") as out:
        for one in scores(map(json.loads, lines), Model(Settings())):
            out.write(json.dumps(one) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
