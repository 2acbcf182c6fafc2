# SPDX-License-Identifier: Apache-2.0
"""Scores a stream of events with the reference: python -m reference.run EVENTS.jsonl.gz SCORES.jsonl.gz

The agent is the peer group, every call ends at once, as `tool-firewall replay` plays it.
"""

import gzip
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .model import Call, Model, Settings


def scores(events: Iterable[dict[str, Any]], model: Model) -> Iterator[dict[str, Any]]:
    for event in events:
        call = Call(
            event["tenant"],
            event["user"],
            event["agent"],
            event["session"],
            event["tool"],
            arguments=event.get("args", {}),
        )
        verdict = model.check(call, event["ts"])
        after = model.observe(verdict.ticket, event["ts"], event.get("ok", True), event.get("cost"))
        assert after is not None
        yield {"event_id": event["event_id"], "risk": after.risk, "risk_pre": verdict.risk}


def main(source: Path, target: Path) -> None:
    with gzip.open(source, "rt", encoding="utf-8") as lines, gzip.open(target, "wt", encoding="utf-8") as out:
        for one in scores(map(json.loads, lines), Model(Settings())):
            out.write(json.dumps(one) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
