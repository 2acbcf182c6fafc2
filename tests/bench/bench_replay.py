# SPDX-License-Identifier: Apache-2.0
"""How fast `tool-firewall replay` scores a gzip file: 200,000 made-up events of 500 users, one core.

python tests/bench/bench_replay.py [--events 200000] [--rounds 3] [--check]

The best round counts: the others only add what else the machine did. --check: exit code 1 when it is below
the target of 150,000 events a second.
"""

import argparse
import gzip
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

TARGET = 150_000  # events a second
USERS = 500
TOOLS = (
    "db_query",
    "report",
    "file_upload",
    "http_fetch",
    "search",
    "mail_send",
    "calendar_add",
    "ticket_open",
)
START = 1_772_409_600  # 2026-03-02, a Monday


def write_events(path: Path, count: int) -> None:
    """Two weeks of `count` events, oldest first: each user works with a few tools of their own."""
    chance = random.Random(7)
    habits = [chance.sample(TOOLS, 4) for _ in range(USERS)]
    step = 14 * 86_400 / count
    with gzip.open(path, "wt", encoding="utf-8", compresslevel=6) as file:
        for number in range(count):
            user = chance.randrange(USERS)
            event = {
                "event_id": f"e{number}",
                "ts": round(START + number * step, 3),
                "tenant": f"team-{user % 5}",
                "user": f"user{user}@example.com",
                "agent": "",
                "session": f"s{user}-{int(number * step) // 3600}",
                "tool": chance.choice(habits[user]),
                "args": {"query": f"select {chance.randrange(1000)}", "limit": 10, "note": "x" * 120},
                "ok": chance.random() > 0.02,
                "cost": 0.01,
                "duration": 0.2,
            }
            file.write(json.dumps(event) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    command = Path(sys.executable).with_name("tool-firewall")
    rates = []
    with tempfile.TemporaryDirectory() as name:
        events, scores = Path(name) / "events.jsonl.gz", Path(name) / "scores.jsonl.gz"
        write_events(events, options.events)
        for _ in range(options.rounds):
            arguments = [str(command), "replay", str(events), "--out", str(scores), "--json"]
            done = subprocess.run(arguments, check=True, capture_output=True, text=True)
            result = json.loads(done.stdout)
            rates.append(result["events"] / result["seconds"])
            print(
                f"replay: {result['events']:,} events in {result['seconds']:.2f} s, {rates[-1]:,.0f} a second"
            )
    print(f"replay: best {max(rates):,.0f} a second, target {TARGET:,}")
    return 1 if options.check and max(rates) < TARGET else 0


if __name__ == "__main__":
    sys.exit(main())
