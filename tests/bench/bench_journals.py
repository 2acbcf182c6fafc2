# SPDX-License-Identifier: Apache-2.0
"""What the pre hook costs with each journal: one process, one loop, interleaved.

python tests/bench/bench_journals.py [--rounds 40] [--check]

Two instances of the plugin, one on SQLite and one on a redis-server of its own; the cases of bench_hook.py.
--check: exit code 1 when the median with Redis is more than 1.1 of that with SQLite.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import random
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench_hook import WARM_UP_BATCHES, Case, EngineTime, calls, settle
from cpex_tool_firewall import runtime
from fleet import instance, redis_server

MOST = 1.1
STEPS = {"hot": 90.0, "distinct": 90.0 / 500}


def plugin_on(settings: dict[str, Any]) -> Any:
    """An instance with a runtime of its own: without a base, its journal is that of its settings."""
    runtime._process.base = None
    return instance(settings)


async def measure(rounds: int, folder: Path) -> list[Case]:
    with redis_server(folder) as address:
        hooks = {
            "sqlite": plugin_on({"state": str(folder / "sqlite")}),
            "redis": plugin_on({"state": str(folder / "redis"), "journal": "redis", "redis_url": address}),
        }
        cases = [
            Case(name, load, hook.tool_pre_invoke, calls(load), STEPS[load])
            for name, hook in hooks.items()
            for load in STEPS
        ]
        clock = EngineTime()
        for case in cases:
            for _ in range(WARM_UP_BATCHES):
                await batch(clock, hooks[case.name], case)
        gc.collect()
        gc.freeze()
        chance = random.Random(1)
        for _ in range(rounds):
            chance.shuffle(cases)
            for case in cases:
                case.means.append(await batch(clock, hooks[case.name], case))
                clock.run(case)
                case.singles += await case.one_by_one(hooks[case.name].tool_post_invoke)
                clock.stop()
                await settle(hooks[case.name], case)
        runtime.shut_down()
    return cases


async def batch(clock: EngineTime, hook: Any, case: Case) -> float:
    clock.run(case)
    found = await case.batch()
    clock.stop()
    await settle(hook, case)
    return found


def report(cases: list[Case]) -> bool:
    found = {(case.name, case.load): case for case in cases}
    met = True
    print(f"load average {os.getloadavg()[0]:.2f}\nload       journal    p50 us  p99 us  batch us")
    for load in STEPS:
        medians = {}
        for name in ("sqlite", "redis"):
            case = found[name, load]
            singles = sorted(case.singles)
            medians[name] = statistics.median(case.means)
            print(
                f"{load:10} {name:8} {statistics.median(singles) / 1e3:8.2f} "
                f"{singles[len(singles) * 99 // 100] / 1e3:7.2f} {medians[name]:9.2f}"
            )
        single = [statistics.median(found[name, load].singles) for name in ("redis", "sqlite")]
        ratio = single[0] / single[1]
        print(f"{load:10} redis / sqlite: {ratio:.3f} (batch {medians['redis'] / medians['sqlite']:.3f})")
        met &= ratio <= MOST
    return met


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--check", action="store_true", help="exit code 1 when a target is missed")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        met = report(asyncio.run(measure(options.rounds, Path(folder))))
    return 1 if options.check and not met else 0


if __name__ == "__main__":
    sys.exit(main())
