# SPDX-License-Identifier: Apache-2.0
"""A burst of one user that a load balancer spreads over four workers: at which call is it noticed?

python tests/bench/bench_burst.py [--rounds 10] [--full] [--check]

25 calls, one after the other over the workers, in 30 s (--full), 5 s, 1 s, and as fast as they come; 100 ms
after them one more. On one worker the risk is at the threshold from number 21 on (more than 20 calls in
60 s), or earlier. On four it can be later by the calls that were made in other workers within the journal's
delay.

--check: exit code 1 when the slowest of these bursts is noticed more than one call later on four workers.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from fleet import Fleet

WORKERS = 4
CALLS = 25
AFTER = 0.1  # s


def first_over(fleet: Fleet, workers: int, user: str, seconds: float) -> int:
    """The number of the first call, from 1, that is stopped in block mode for a burst; 0 for none."""
    begin = time.time() + 0.2
    at = [begin + number * seconds / CALLS for number in range(CALLS)]
    at.append(at[-1] + AFTER)
    for worker in range(workers):
        mine = at[worker::workers]
        fleet.ask(worker, "hooks", [(user, "read_mail")] * len(mine), mine)
    told = [fleet.answer(worker) for worker in range(workers)]
    answers = [told[number % workers][number // workers] for number in range(len(at))]
    return next((number for number, answer in enumerate(answers, 1) if over(answer)), 0)


def over(answer: dict[str, Any]) -> bool:
    """Whether the risk is at the threshold, for a burst."""
    return answer["risk_score"] >= 0.5 and "burst" in answer.get("detection_types", ())


def settle(fleet: Fleet) -> None:
    """Everybody knows everything."""
    cursor = max(fleet.each("stored"))
    fleet.each("reach", cursor)


def measure(workers: int, seconds: float, rounds: int) -> list[int]:
    found = []
    with tempfile.TemporaryDirectory() as folder, Fleet({"state": f"{folder}/state"}, workers) as fleet:
        for number in range(rounds):
            found.append(first_over(fleet, workers, f"user{number}@example.com", seconds))
            settle(fleet)
    return found


def say(workers: int, seconds: float, found: Sequence[int]) -> None:
    what = f"in {seconds:g} s" if seconds else "as fast as they come"
    missed = found.count(0)
    seen = sorted(number for number in found if number)
    middle = seen[len(seen) // 2] if seen else 0
    print(
        f"  {workers} worker{'s' * (workers > 1)}, {CALLS} calls {what:20}: number {middle} in the median, "
        f"{max(seen, default=0)} at the latest, never {missed} of {len(found)} times"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--full", action="store_true", help="the burst of 30 s too")
    parser.add_argument("--check", action="store_true", help="exit code 1 when a target is missed")
    options = parser.parse_args()
    print(f"the first call at the threshold (load average {os.getloadavg()[0]:.2f})")
    spans = [30.0, 5.0, 1.0, 0.0] if options.full else [5.0, 1.0, 0.0]
    met = True
    for seconds in spans:
        rounds = 2 if seconds > 5 else options.rounds
        one, four = (measure(workers, seconds, rounds) for workers in (1, WORKERS))
        say(1, seconds, one)
        say(WORKERS, seconds, four)
        if seconds == spans[0]:
            met = all(0 < number <= max(one) + 1 for number in four)
    return 1 if options.check and not met else 0


if __name__ == "__main__":
    sys.exit(main())
