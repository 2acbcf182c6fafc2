# SPDX-License-Identifier: Apache-2.0
"""A process beside the test: a gateway worker as far as the state folder can tell.

python runtime_worker.py STATE COMMAND

  calls USER TOOL N     make N calls, one an hour, the last one now; then end as a process should
  follow SECONDS        print the mode in force and the number of calls known, whenever they change
  killed USER TOOL N    as calls, then wait for "go" on standard input and be killed by itself, SIGKILL
"""

import asyncio
import os
import signal
import sys
import time
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


def instance(state: str) -> ToolFirewallPlugin:
    return ToolFirewallPlugin(
        PluginConfig(
            name="ToolFirewall",
            kind="cpex_tool_firewall.plugin.ToolFirewallPlugin",
            hooks=["tool_pre_invoke", "tool_post_invoke"],
            config={"state": state},
        )
    )


async def calls(made: ToolFirewallPlugin, user: str, tool: str, count: int) -> None:
    now = time.time() - 3600 * count
    for _ in range(count):
        now += 3600
        plugin_module.time = lambda now=now: now  # type: ignore[misc]
        context = PluginContext(global_context=GlobalContext(request_id="r", user=user, tenant_id="team"))
        await made.tool_pre_invoke(ToolPreInvokePayload(name=tool, args={}), context)
        await made.tool_post_invoke(ToolPostInvokePayload(name=tool, result={"isError": False}), context)


def follow(made: ToolFirewallPlugin, seconds: float) -> None:
    last: Any = None
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        (found,) = runtime.running()
        mode = found.engine.mode_in_force(found.engine.policy(), now=time.time())
        seen = (mode, found.engine.summary()["calls"])
        if seen != last:
            print(*seen, flush=True)
            last = seen
        time.sleep(0.005)


def main(state: str, command: str, *arguments: str) -> None:
    made = instance(state)
    if command == "follow":
        follow(made, float(arguments[0]))
        return
    user, tool, count = arguments
    asyncio.run(calls(made, user, tool, int(count)))
    if command == "killed":
        print("done", flush=True)
        sys.stdin.readline()
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(*sys.argv[1:])
