# SPDX-License-Identifier: Apache-2.0
"""What the pre hook costs, called directly, beside the Rust rate limiter of cpex: one process, one loop,
interleaved.

python tests/bench/bench_hook.py [--rounds 40] [--json FILE] [--check]

Cases: `hot` is one user with one payload; `distinct` is 500 users with payloads of their own. Arguments are
about 200 bytes of JSON. Everything is on: behaviour, metadata, journal (SQLite in a temporary folder) and its
thread. After every batch, outside the clock, the post hook is called for each call and the journal is given
time to catch up.

The engine's time moves on between calls so that nobody is in a burst: that is the ordinary call. `flood` is
the same with time standing still, where every call is a finding; it has no target.

--check: exit code 1 when a median is over its target (2 us hot, 5 us distinct). Needs: pip install
cpex-rate-limiter
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import logging
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cpex.framework import (
    GlobalContext,
    PluginConfig,
    PluginContext,
    ToolPostInvokePayload,
    ToolPreInvokePayload,
)
from cpex_tool_firewall import plugin as plugin_module
from cpex_tool_firewall import runtime
from cpex_tool_firewall.plugin import ToolFirewallPlugin

BATCH = 500
USERS = 500
WARM_UP_BATCHES = 8
TARGETS_US = {("firewall", "hot"): 2.0, ("firewall", "distinct"): 5.0}
WORDS = (
    "river",
    "stone",
    "light",
    "garden",
    "window",
    "paper",
    "simple",
    "orange",
    "music",
    "number",
    "table",
)
FINE = ToolPostInvokePayload(name="search", result={"content": [], "isError": False})


def arguments(seed: int) -> dict[str, Any]:
    """Clean arguments of about 200 bytes of JSON."""
    chance = random.Random(seed)

    def sentence(words: int) -> str:
        return " ".join(chance.choice(WORDS) for _ in range(words))

    return {
        "query": sentence(9),
        "limit": chance.randint(1, 99),
        "options": {"sort": "asc", "deep": True},
        "note": sentence(11),
    }


@dataclass
class Case:
    """One hook with its calls, and what was measured of it."""

    name: str
    load: str
    hook: Callable[..., Any]
    calls: list[tuple[ToolPreInvokePayload, PluginContext]]
    step: (
        float | None
    )  # seconds of the engine's time between two calls; None: the hook has a clock of its own
    extra: tuple[Any, ...] = ()
    means: list[float] = field(default_factory=list)
    singles: list[int] = field(default_factory=list)
    notable: int = 0

    def rename(self, number: int) -> None:
        """A flood is always somebody else: who floods every day is known for it, and no finding any more."""
        if self.name == "flood":
            for _, context in self.calls:
                context.global_context.user = f"flooder{number}@example.com"

    async def batch(self) -> float:
        """Mean of a batch, in us: what a caller pays, without a clock between the calls."""
        hook, extra = self.hook, self.extra
        begin = time.perf_counter()
        for payload, context in self.calls:
            await hook(payload, context, *extra)
        return (time.perf_counter() - begin) / len(self.calls) * 1e6

    async def one_by_one(self, after: Callable[..., Any]) -> list[int]:
        """Every call by itself, in ns, less the reading of the clock. `after` ends each, unmeasured."""
        hook, extra, now, found = self.hook, self.extra, time.perf_counter_ns, []
        reading = statistics.median(-now() + now() for _ in range(1001))
        for payload, context in self.calls:
            begin = now()
            result = await hook(payload, context, *extra)
            found.append(now() - begin - int(reading))
            await after(FINE, context)
            self.notable += bool((result.metadata or {}).get("ToolFirewall", {}).get("notable"))
        return found


def calls(load: str) -> list[tuple[ToolPreInvokePayload, PluginContext]]:
    """A batch: one call over and over, or 500 users in turn with contexts and payloads of their own."""
    users = range(USERS) if load == "distinct" else (0,)
    made = []
    for user in users:
        about = GlobalContext(
            request_id=f"r{user}", user=f"user{user}@example.com", tenant_id="team", server_id="s"
        )
        payload = ToolPreInvokePayload(name=f"tool_{user % 7}", args=arguments(user))
        made.append((payload, PluginContext(global_context=about)))
    return made * (BATCH // len(made))


def firewall(folder: Path) -> ToolFirewallPlugin:
    return ToolFirewallPlugin(
        PluginConfig(
            name="ToolFirewall",
            kind="cpex_tool_firewall.plugin.ToolFirewallPlugin",
            hooks=["tool_pre_invoke", "tool_post_invoke"],
            config={"state": str(folder / "state")},
        )
    )


async def rate_limiter() -> Any:
    try:
        from cpex_rate_limiter.rate_limiter import RateLimiterPlugin
    except ImportError:
        return None
    limits = {"by_user": "1000000/m", "by_tenant": "1000000/m"}
    kind = "cpex_rate_limiter.rate_limiter.RateLimiterPlugin"
    made = RateLimiterPlugin(PluginConfig(name="rate", kind=kind, hooks=["tool_pre_invoke"], config=limits))
    await made.initialize()
    return made


class EngineTime:
    """The time the firewall's hooks see. It only moves forward, at the step of whatever case is running."""

    def __init__(self) -> None:
        self._at = time.time()

    def run(self, case: Case) -> None:
        """Gives the hooks a clock as cheap as time.time()."""
        if case.step is not None:
            plugin_module.time = itertools.count(self._at, case.step).__next__  # type: ignore[attr-defined]

    def stop(self) -> None:
        """Lets the time stand, a minute after the last call."""
        self._at = plugin_module.time() + 60
        plugin_module.time = lambda: self._at  # type: ignore[attr-defined]


async def settle(hook: ToolFirewallPlugin, case: Case) -> None:
    """After a batch: the calls end, and the journal catches up, so that no batch pays for the one before."""
    for _, context in case.calls:
        await hook.tool_post_invoke(FINE, context)
        context.global_context.state.clear()
    for found in runtime.running():
        while found.engine.counters()["records_queued"]:
            await asyncio.sleep(0.005)
    await asyncio.sleep(0.03)


async def measure(rounds: int) -> list[Case]:
    with tempfile.TemporaryDirectory() as folder:
        hook = firewall(Path(folder))
        cases = [
            # The steps leave each user 90 s between two calls: far from 20 in 60 s.
            Case("firewall", "hot", hook.tool_pre_invoke, calls("hot"), 90.0),
            Case("firewall", "distinct", hook.tool_pre_invoke, calls("distinct"), 90.0 / USERS),
        ]
        limiter = await rate_limiter()
        if limiter is not None:
            for load in ("hot", "distinct"):
                cases.append(Case("rate limiter", load, limiter.tool_pre_invoke, calls(load), None, (None,)))
        cases.append(Case("flood", "hot", hook.tool_pre_invoke, calls("hot"), 0.0))
        clock = EngineTime()
        for case in cases:
            for _ in range(WARM_UP_BATCHES):
                clock.run(case)
                await case.batch()
                clock.stop()
                await settle(hook, case)
        gc.collect()
        gc.freeze()
        order = list(cases)
        chance = random.Random(1)
        for number in range(rounds):
            chance.shuffle(order)
            for case in order:
                case.rename(number)
                clock.run(case)
                case.means.append(await case.batch())
                clock.stop()
                await settle(hook, case)
                clock.run(case)
                case.singles += await case.one_by_one(hook.tool_post_invoke)
                clock.stop()
                await settle(hook, case)
        runtime.shut_down()
    return cases


def report(cases: Sequence[Case]) -> list[dict[str, Any]]:
    rows = []
    medians = {(case.name, case.load): statistics.median(case.singles) / 1e3 for case in cases}
    print("hook           load         p50    p99  batch us of limiter  notable  target")
    for case in cases:
        singles = sorted(case.singles)
        median, batch = medians[case.name, case.load], statistics.median(case.means)
        beside = medians.get(("rate limiter", case.load))
        target = TARGETS_US.get((case.name, case.load))
        row = {
            "hook": case.name,
            "load": case.load,
            "batch_us": round(batch, 3),
            "p50_us": round(medians[case.name, case.load], 3),
            "p99_us": round(singles[len(singles) * 99 // 100] / 1e3, 3),
            "of_limiter": round(median / beside, 3) if beside else None,
            "notable": round(case.notable / len(singles), 4),
            "target_us": target,
            "ok": target is None or median <= target,
        }
        rows.append(row)
        verdict = "" if target is None else f"{target:g} {'ok' if row['ok'] else 'MISSED'}"
        ratio = f"{row['of_limiter']:.2f}" if beside else "-"
        print(
            f"{case.name:14} {case.load:9} {median:6.2f} {row['p99_us']:6.2f} {batch:9.2f} {ratio:>10} "
            f"{row['notable']:8.1%}  {verdict}"
        )
    if not any(case.name == "rate limiter" for case in cases):
        print("cpex-rate-limiter is not installed: nothing to compare with")
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--check", action="store_true", help="exit code 1 when a target is missed")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    rows = report(asyncio.run(measure(options.rounds)))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 1 if options.check and not all(row["ok"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
