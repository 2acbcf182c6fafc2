# SPDX-License-Identifier: Apache-2.0
"""How the gateway in this process runs the plugin, as far as it lets one see.

The gateway keeps one plugin manager per context ("<team>::<tool>", or one for tools without a team), each
with the configuration it really runs: the YAML file, plus the tool binding, plus what
PUT /admin/plugins/{name} set. So its managers tell what an instance of ours cannot: that there is none,
because the mode is `disabled`; and which plugins come after ours.

Only configurations are read, from whatever thread asks. The gateway is never imported here: where it is not
in the process (a plugin server, a test) there is no view. Parts of what is read are private to the gateway
(versions 1.0.7 to 1.1.0 have them); where they look different there is no view either.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

KIND: Final = "cpex_tool_firewall.plugin.ToolFirewallPlugin"
"""What a plugin entry's `kind` must be."""

DISABLED: Final = "disabled"
SEQUENTIAL: Final = "sequential"

_GATEWAY: Final = "mcpgateway.plugins"
_BINDING_MARK: Final = "::"  # in the ids of contexts that a tool binding can change
_HOOK: Final = "tool_pre_invoke"
# The gateway makes a context anew 30 s after it made it, at its next use. So one that is older is not in use,
# and a binding that it still shows may be gone.
_IN_USE_SECONDS: Final = 600.0
_TRIES: Final = 3


@dataclass(frozen=True, slots=True)
class Run:
    """One way in which the plugin is run.

    mode and on_error in cpex's words. firewall_mode: what the entry's own settings start with. later: plugins
    that can still stop a call after this one. loaded: False when there is no instance and should be one.
    """

    plugin: str  # its name in the gateway
    context: str  # the gateway's id of it; "" for all that have no binding of their own
    mode: str
    priority: int
    on_error: str = "fail"
    firewall_mode: str = "learning"
    later: tuple[str, ...] = ()
    loaded: bool = True

    @property
    def tenant(self) -> str:
        """The team the context is of, "" for all."""
        return self.context.partition(_BINDING_MARK)[0]

    @property
    def tool(self) -> str:
        """The tool the context is of, by the gateway's name for it; "" for all without a binding."""
        return self.context.partition(_BINDING_MARK)[2]


@dataclass(frozen=True, slots=True)
class View:
    """The gateway's plugins at one moment."""

    enabled: bool  # the switch for all plugins
    configured: tuple[Run, ...]  # our entries in the file the gateway started with
    runs: tuple[Run, ...]  # our entries in every context in use; `configured`, overridden, when there is none


def view() -> View | None:
    """What can be seen now; None where no gateway is in this process or it cannot be read."""
    gateway = sys.modules.get(_GATEWAY)
    if gateway is None:
        return None
    for _ in range(_TRIES):
        try:
            return _read(gateway)
        except (AttributeError, TypeError, ValueError, KeyError):  # another release, with other insides
            return None
        except RuntimeError:  # a dict of the gateway changed while it was read
            continue
    return None


def _read(gateway: Any) -> View | None:
    factory = gateway.get_plugin_manager_factory()
    if factory is None:
        return None
    now = time.monotonic()
    base = factory._base_config.plugins or []
    configured = _runs("", base)
    overridden = gateway._state.active_local_mode_overrides(now)  # the public function also removes old ones
    expected = [_with_mode(run, overridden.get(run.plugin)) for run in configured]
    bound: list[Run] = []
    others: list[Run] = []
    for context, cached in list(factory._managers.items()):
        runs = _in_force(_runs_of_context(context, cached.manager, factory), cached.manager)
        if _BINDING_MARK not in context:
            others += runs
        elif now - cached.created_at <= _IN_USE_SECONDS:
            bound += runs
        else:
            bound += [run for run in runs if any(_alike(run, other) for other in expected)]
    enabled = gateway.are_plugins_enabled() and not _shared_switch_is_off(gateway)
    return View(enabled, tuple(configured), tuple(dict.fromkeys([*(others or expected), *bound])))


def _runs_of_context(context: str, manager: Any, factory: Any) -> list[Run]:
    """Our entries in a context. One without a binding and without an override shares the gateway's own
    configuration object, and need not be told apart.
    """
    own = _BINDING_MARK in context and manager.config is not factory._base_config
    return _runs(context if own else "", manager.config.plugins or [])


def _in_force(runs: Iterable[Run], manager: Any) -> list[Run]:
    """`runs` with what became of them: not loaded, or disabled after an error."""
    tripped = getattr(manager.executor, "_runtime_disabled", ())
    return [
        replace(
            run,
            mode=DISABLED if run.plugin in tripped else run.mode,
            loaded=run.mode == DISABLED or manager.get_plugin(run.plugin) is not None,
        )
        for run in runs
    ]


def _runs(context: str, plugins: Sequence[Any]) -> list[Run]:
    """Our entries among the plugins of a configuration."""
    return [
        Run(
            plugin=str(entry.name),
            context=context,
            mode=str(entry.mode.value),
            priority=int(entry.priority),
            on_error=str(entry.on_error.value),
            firewall_mode=str((entry.config or {}).get("mode", "learning")),
            later=_later(entry, plugins),
        )
        for entry in plugins
        if entry.kind == KIND
    ]


def _later(ours: Any, plugins: Sequence[Any]) -> tuple[str, ...]:
    """The sequential plugins that come after ours, which must be sequential itself.

    Concurrent ones come after all sequential ones whatever their number: nothing can be done about those.
    """
    if ours.mode.value != SEQUENTIAL:
        return ()
    rivals = [entry for entry in plugins if entry.mode.value == SEQUENTIAL and _HOOK in entry.hooks]
    ordered = sorted(rivals, key=lambda entry: int(entry.priority))  # stable, as the framework's
    names = [str(entry.name) for entry in ordered]
    return tuple(names[names.index(ours.name) + 1 :]) if ours.name in names else ()


def _with_mode(run: Run, override: str | None) -> Run:
    """`run` with what PUT /admin/plugins/{name} set in this process; old names of modes are translated."""
    if override is None:
        return run
    mode = {"enforce": SEQUENTIAL, "enforce_ignore_error": SEQUENTIAL, "permissive": "transform"}
    on_error = "ignore" if override == "enforce_ignore_error" else run.on_error
    return replace(run, mode=mode.get(override, override), on_error=on_error)


def _alike(run: Run, other: Run) -> bool:
    return (run.mode, run.priority, run.on_error) == (other.mode, other.priority, other.on_error)


def _shared_switch_is_off(gateway: Any) -> bool:
    """True when Redis last said that the switch for all plugins is off; the flag may not know it yet."""
    cached = getattr(gateway, "_shared_enabled_cache", None)
    return isinstance(cached, tuple) and bool(cached) and cached[0] is False
