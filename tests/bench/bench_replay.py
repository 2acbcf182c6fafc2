# SPDX-License-Identifier: Apache-2.0
"""How many events a second `tool-firewall replay` scores, from a gzip file, on one core.

python tests/bench/bench_replay.py [--events 200000] [--rounds 5] [--check]

The events are made up: 75 users in 12 roles, 30 tools, about 200 bytes of JSON each, three weeks. The engine
runs in this process; reading, parsing, scoring, writing and compressing are all inside the clock.
--check: exit code 1 when the median to a gzip file is under 150,000 a second.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import statistics
import sys
import tempfile
from pathlib import Path

from cpex_tool_firewall._native import Engine, Replay

TARGET_PER_SECOND = 150_000
START = 1_772_409_600.0  # a Monday
WORDS = ("river", "stone", "light", "garden", "window", "paper", "simple", "orange", "music", "number")


def write_events(path: Path, count: int) -> None:
    chance = random.Random(11)
    users = [(f"user{i}@example.com", f"role-{i % 12}") for i in range(75)]
    tools = [f"tool_{i:02d}" for i in range(30)]
    span = 21 * 86_400 / count
    with gzip.open(path, "wt", compresslevel=6) as out:
        for i in range(count):
            user, role = chance.choice(users)
            now = START + i * span
            first = hash_free(role)
            event = {
                "event_id": f"e{i:07d}",
                "ts": round(now, 3),
                "tenant": "acme",
                "user": user,
                "agent": role,
                "session": f"{user}-{int(now // 3600)}",
                "tool": tools[(first + chance.randrange(6)) % len(tools)],
                "args": {"query": " ".join(chance.choices(WORDS, k=5)), "limit": chance.randrange(100)},
                "ok": chance.random() > 0.03,
                "cost": round(chance.random() / 100, 6),
                "duration": round(chance.random(), 3),
            }
            out.write(json.dumps(event, separators=(",", ":")) + "\n")


def hash_free(role: str) -> int:
    """A number for a role that is the same in every run."""
    return sum(role.encode())


def main() -> int:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--events", type=int, default=200_000)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--check", action="store_true")
    chosen = options.parse_args()
    medians = {}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "events.jsonl.gz")
        write_events(source, chosen.events)
        rates: dict[str, list[float]] = {"scores.jsonl.gz": [], "scores.jsonl": []}
        for _ in range(chosen.rounds):
            for target, found in rates.items():
                engine = Engine(b"b" * 32)
                result = Replay(engine, engine.policy(), str(source), str(Path(folder, target))).run()
                found.append(result["events"] / result["seconds"])
        for target, found in rates.items():
            medians[target] = statistics.median(found)
            kind = "gzip" if target.endswith(".gz") else "plain"
            print(
                f"replay, {chosen.events:,} events, gzip to {kind}: "
                f"median {medians[target]:,.0f} events/s (min {min(found):,.0f}, max {max(found):,.0f})"
            )
    return 1 if chosen.check and medians["scores.jsonl.gz"] < TARGET_PER_SECOND else 0


if __name__ == "__main__":
    sys.exit(main())
