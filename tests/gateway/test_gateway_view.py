# SPDX-License-Identifier: Apache-2.0
"""What the plugin can see of the gateway that runs it: the gateway's own plugin layer, in this process."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cpex.framework import OnError, PluginMode
from cpex_tool_firewall import gateway_view, runtime
from cpex_tool_firewall.gateway_view import Run, View, view
from cpex_tool_firewall.placement import Placement, judge
from cpex_tool_firewall.plugin import ToolFirewallPlugin
from gateway_lab import GatewayOptions, plugin_document
from gateway_lab.firewall import NAME, firewall_plugin
from gateway_lab.options import environment

TEAM_TOOL = "team::lab-delete-records"
OTHER_TOOL = "team::lab-db-query"


def run(mode: str = "sequential", context: str = "", **more: Any) -> Run:
    return Run(**{"plugin": NAME, "context": context, "mode": mode, "priority": 900} | more)


class Gateway:
    """The gateway's plugin layer in this process, without the rest of the gateway."""

    def __init__(self, layer: Any, factory: Any) -> None:
        self.layer = layer
        self.factory = factory
        self.bindings: dict[str, dict[str, Any]] = {}
        factory.get_config_from_db = self._bindings_of

    async def _bindings_of(self, context: str) -> list[Any] | None:
        from mcpgateway.plugins.gateway_plugin_manager import PluginConfigOverride

        fields = self.bindings.get(context)
        return None if fields is None else [PluginConfigOverride(name=NAME, **fields)]

    async def bind(self, context: str, **fields: Any) -> None:
        """What POST /v1/tools/plugin_bindings/ does with the managers."""
        self.bindings[context] = fields
        await self.factory.reload_tenant(context)

    async def put(self, mode: str) -> None:
        """What PUT /admin/plugins/{name} does."""
        await self.layer.publish_plugin_mode_change(NAME, mode)
        await self.layer.invalidate_all_plugin_managers()

    def look(self) -> View:
        found = view()
        assert found is not None
        return found


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """mcpgateway.plugins, which cannot be imported without the gateway's secrets."""
    folder = tmp_path_factory.mktemp("layer")
    wanted = environment(GatewayOptions(), folder=folder, config=folder / "none", port=4444)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in wanted.items():
            patch.setenv(name, value)
        import mcpgateway.plugins
        import mcpgateway.plugins.gateway_plugin_manager
    return mcpgateway.plugins


@pytest.fixture
async def gateway(layer: Any, tmp_path: Path) -> AsyncIterator[Gateway]:
    from mcpgateway.plugins import _state

    others = [
        {
            "name": name,
            "kind": "spy_plugin.SpyPlugin",
            "hooks": ["tool_pre_invoke"],
            "mode": "sequential",
            "priority": priority,
            "config": {"notes": str(tmp_path / "notes")},
        }
        for name, priority in (("Early", 10), ("Late", 500))
    ]
    path = tmp_path / "plugins.yaml"
    ours = firewall_plugin(state=str(tmp_path / "state"))
    path.write_text(yaml.safe_dump(plugin_document([*others, ours])), encoding="utf-8")
    layer.init_plugin_manager_factory(str(path), 30, {})
    layer.enable_plugins(True)
    yield Gateway(layer, layer.get_plugin_manager_factory())
    await layer.shutdown_plugin_manager_factory()
    layer.enable_plugins(False)
    _state.clear_local_mode_overrides()
    runtime.shut_down()


async def test_the_gateway_as_configured_has_no_problem(gateway: Gateway) -> None:
    assert gateway.look().runs == (run(),), "before any context was made"
    for context in (None, TEAM_TOOL, OTHER_TOOL):
        await gateway.factory.get_manager(context)
    found = gateway.look()
    assert found == View(True, (run(),), (run(),))
    assert judge(found.runs, found.configured, lambda _: True).problems == ()


@pytest.mark.parametrize(
    ("mode", "expected", "number"),
    [
        ("permissive", "transform", 1),
        ("disabled", "disabled", 1),
        ("audit", "audit", 1),
        ("fire_and_forget", "fire_and_forget", 1),
        ("enforce_ignore_error", "sequential", 1),
        ("concurrent", "concurrent", 0),
        ("enforce", "sequential", 0),
    ],
)
@pytest.mark.parametrize("used", [True, False])
async def test_an_overridden_mode_is_seen_and_its_end_too(
    gateway: Gateway, mode: str, expected: str, number: int, used: bool
) -> None:
    if used:
        for context in (None, TEAM_TOOL):
            await gateway.factory.get_manager(context)
    await gateway.put(mode)
    found = gateway.look()
    judged = judge(found.runs, found.configured, lambda _: True)
    assert judged.plugin_mode == expected
    assert len(judged.problems) == number, judged.problems
    await gateway.put("enforce")
    found = gateway.look()
    assert judge(found.runs, found.configured, lambda _: True) == Placement("sequential", 900)


async def test_a_binding_is_seen_for_its_tool_only(gateway: Gateway) -> None:
    for context in (None, OTHER_TOOL):
        await gateway.factory.get_manager(context)
    await gateway.bind(TEAM_TOOL, mode=PluginMode.TRANSFORM, priority=20, config={"mode": "block"})
    found = gateway.look()
    bound = run("transform", TEAM_TOOL, priority=20, firewall_mode="block")
    assert found.runs == (run(), bound)
    (said,) = judge(found.runs, found.configured, lambda one: one.firewall_mode == "block").problems
    assert "for lab-delete-records: block mode stops nothing there" in said
    del gateway.bindings[TEAM_TOOL]
    await gateway.factory.reload_tenant(TEAM_TOOL)
    assert gateway.look().runs == (run(),)


async def test_a_priority_before_other_plugins_is_seen(gateway: Gateway) -> None:
    await gateway.bind(TEAM_TOOL, priority=20)
    (bound,) = (one for one in gateway.look().runs if one.tool)
    assert bound.later == ("Late",)
    await gateway.bind(TEAM_TOOL, priority=5)
    (bound,) = (one for one in gateway.look().runs if one.tool)
    assert bound.later == ("Early", "Late")


async def test_what_a_binding_did_is_forgotten_when_its_tool_is_not_in_use(gateway: Gateway) -> None:
    """Without Redis a worker hears of the end of a binding only when the tool is used again."""
    await gateway.factory.get_manager(None)
    await gateway.bind(TEAM_TOOL, mode=PluginMode.DISABLED)
    assert len(gateway.look().runs) == 2
    gateway.factory._managers[TEAM_TOOL].created_at -= gateway_view._IN_USE_SECONDS
    assert gateway.look().runs == (run(),)


async def test_a_mode_for_all_is_not_forgotten_however_long_nothing_is_used(gateway: Gateway) -> None:
    for context in (None, TEAM_TOOL):
        await gateway.factory.get_manager(context)
    await gateway.put("disabled")
    for cached in gateway.factory._managers.values():
        cached.created_at -= 10 * gateway_view._IN_USE_SECONDS
    assert {one.mode for one in gateway.look().runs} == {"disabled"}


async def test_the_switch_for_all_plugins_is_seen(gateway: Gateway) -> None:
    await gateway.factory.get_manager(None)
    gateway.layer.enable_plugins(False)
    assert not gateway.look().enabled
    gateway.layer.enable_plugins(True)
    assert gateway.look().enabled


async def test_a_context_without_our_instance_is_seen(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without PLUGINS_FAIL_ON_PLUGIN_ERROR the gateway goes on without a plugin that cannot be made."""
    await gateway.factory.get_manager(None)

    def fails(self: Any, config: Any) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(ToolFirewallPlugin, "__init__", fails)
    await gateway.factory.get_manager(TEAM_TOOL)
    found = gateway.look()
    assert [one.loaded for one in found.runs] == [True, False]


async def test_a_plugin_disabled_after_an_error_is_seen(gateway: Gateway) -> None:
    await gateway.bind(TEAM_TOOL, on_error=OnError.DISABLE)
    manager = await gateway.factory.get_manager(TEAM_TOOL)
    (bound,) = (one for one in gateway.look().runs if one.tool)
    assert (bound.mode, bound.on_error) == ("sequential", "disable")
    manager.executor._runtime_disabled.add(NAME)
    (bound,) = (one for one in gateway.look().runs if one.tool)
    assert bound.mode == "disabled"


async def test_a_gateway_with_other_insides_gives_no_view(gateway: Gateway) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(gateway.factory, "_managers")
        assert view() is None
    assert view() is not None


async def test_looking_at_many_contexts_is_quick(gateway: Gateway) -> None:
    """The journal thread does this every 5 s and holds the GIL meanwhile."""
    await gateway.put("permissive")  # now each context has a configuration of its own
    await asyncio.gather(*(gateway.factory.get_manager(f"team::tool-{n}") for n in range(200)))
    begin = time.perf_counter()
    found = gateway.look()
    assert time.perf_counter() - begin < 0.1
    assert len(found.runs) >= 200
