# SPDX-License-Identifier: Apache-2.0
"""The plugin under test: instances as the gateway makes them, the calls it hands to their hooks, and time."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from cpex.framework import (
    GlobalContext,
    PluginConfig,
    PluginContext,
    ToolHookType,
    ToolPostInvokePayload,
    ToolPreInvokePayload,
)
from cpex.framework.hooks.policies import HookPayloadPolicy
from cpex.framework.manager import TenantPluginManager
from cpex_tool_firewall import plugin as plugin_module
from cpex_tool_firewall import runtime
from cpex_tool_firewall.alarms import Alarms
from cpex_tool_firewall.journal.sqlite import SqliteJournal
from cpex_tool_firewall.plugin import ToolFirewallPlugin
from cpex_tool_firewall.runtime import Runtime
from cpex_tool_firewall.state import open_state

KIND = "cpex_tool_firewall.plugin.ToolFirewallPlugin"
HOOKS = ["tool_pre_invoke", "tool_post_invoke"]
FINE: dict[str, Any] = {"content": [{"type": "text", "text": "done"}], "isError": False}
HOUR = 3600.0

# What the gateway lets plugins change; its presence is what makes cpex isolate payloads (CopyOnWriteDict).
POLICIES = {
    "tool_pre_invoke": HookPayloadPolicy(writable_fields=frozenset({"name", "args", "headers"})),
    "tool_post_invoke": HookPayloadPolicy(writable_fields=frozenset({"result"})),
}


def about(user: Any = "alice@example.com", tenant: str | None = "team", **metadata: Any) -> GlobalContext:
    return GlobalContext(request_id="request", user=user, tenant_id=tenant, metadata=metadata)


def tool_metadata(name: Any, gateway: Any = "server-1") -> SimpleNamespace:
    """As far as a hook looks, what the gateway puts into metadata["tool"]."""
    return SimpleNamespace(original_name=name, gateway_id=gateway)


class Firewall:
    """Makes instances on one state folder, and moves the time they see."""

    def __init__(self, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        runtime.shut_down()
        self.state = state
        self.now = 1_790_000_000.0
        monkeypatch.setattr(runtime, "alarms", Alarms())
        monkeypatch.setattr(runtime, "events", Counter())
        monkeypatch.setattr(plugin_module, "_last_said", {})
        monkeypatch.setattr(plugin_module, "time", self.clock)

    def clock(self) -> float:
        return self.now

    def config(self, name: str = "ToolFirewall", **settings: Any) -> PluginConfig:
        return PluginConfig(name=name, kind=KIND, hooks=HOOKS, config={"state": str(self.state)} | settings)

    def instance(self, **settings: Any) -> ToolFirewallPlugin:
        return ToolFirewallPlugin(self.config(**settings))

    @property
    def runtime(self) -> Runtime:
        (found,) = runtime.running()
        return found

    def journal(self) -> SqliteJournal:
        """A second opening of the journal, as the command line has it. close() it."""
        return SqliteJournal(self.state, open_state(str(self.state)).key)

    def restart(self) -> None:
        """As if the process had ended: everything in memory is gone."""
        runtime.shut_down()

    def stop(self) -> None:
        runtime.shut_down()

    async def history(
        self, instance: ToolFirewallPlugin, *tools: str, calls: int = 100, user: str = "alice@example.com"
    ) -> None:
        """Gives a user a past of ordinary calls: one tool after the other, eight an hour, day and night."""
        for number in range(calls):
            await call(instance, tools[number % len(tools)], user=user)
            self.now += HOUR / 8
        await asyncio.sleep(0)


async def call(
    instance: ToolFirewallPlugin,
    tool: str,
    *,
    user: Any = "alice@example.com",
    tenant: str | None = "team",
    args: Mapping[Any, Any] | None = None,
    result: Any = FINE,
) -> Any:
    """A whole call: the pre hook, and the post hook unless it was stopped. Returns the result of the pre
    hook.
    """
    context = PluginContext(global_context=about(user, tenant))
    # model_construct, because the gateway's JSON may hold what pydantic would refuse from a test.
    payload = ToolPreInvokePayload.model_construct(name=tool, args=args, headers=None)
    answer = await instance.tool_pre_invoke(payload, context)
    if answer.continue_processing:
        await instance.tool_post_invoke(ToolPostInvokePayload(name=tool, result=result), context)
    return answer


def said(answer: Any, name: str = "ToolFirewall") -> dict[str, Any]:
    """The firewall's metadata of an answer."""
    found: dict[str, Any] = answer.metadata[name]
    return found


@contextlib.asynccontextmanager
async def manager(
    firewall: Firewall, *others: Mapping[str, Any], **settings: Any
) -> AsyncIterator[TenantPluginManager]:
    """The gateway's plugin manager for one team and tool, with the firewall and other plugins in it."""
    entry = firewall.config(**settings)
    document = {
        "plugins": [
            *others,
            {"name": entry.name, "kind": KIND, "hooks": HOOKS, "priority": 900, "config": entry.config},
        ],
        "plugin_dirs": [],
    }
    firewall.state.parent.mkdir(parents=True, exist_ok=True)
    path = firewall.state.parent / "plugins.yaml"
    path.write_text(yaml.safe_dump(document))
    made = TenantPluginManager(str(path), hook_policies=POLICIES)
    await made.initialize()
    try:
        yield made
    finally:
        await made.shutdown()


async def before(made: TenantPluginManager, tool: str, args: Any, context: GlobalContext) -> Any:
    """The pre hooks as the gateway calls them. Raises PluginViolationError when one stops the call."""
    result, contexts = await made.invoke_hook(
        ToolHookType.TOOL_PRE_INVOKE,
        payload=ToolPreInvokePayload(name=tool, args=args),
        global_context=context,
        violations_as_exceptions=True,
    )
    return result, contexts


async def after(
    made: TenantPluginManager, tool: str, result: Any, context: GlobalContext, contexts: Any
) -> Any:
    """The post hooks as the gateway calls them."""
    answer, _ = await made.invoke_hook(
        ToolHookType.TOOL_POST_INVOKE,
        payload=ToolPostInvokePayload(name=tool, result=result),
        global_context=context,
        local_contexts=contexts,
        violations_as_exceptions=True,
    )
    return answer


def wait_for(condition: Any, seconds: float = 5.0) -> float:
    """Waits until `condition()` holds; returns how long that took. Fails the test when it never does."""
    begin = time.monotonic()
    while not condition():
        if time.monotonic() - begin > seconds:
            pytest.fail(f"not within {seconds} s")
        time.sleep(0.005)
    return time.monotonic() - begin
