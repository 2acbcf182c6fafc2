# SPDX-License-Identifier: Apache-2.0
"""Whether the gateway runs the plugin in a way in which it can do its work.

Administrators can change that at run time: a mode that cannot stop calls, `disabled`, a tool binding with a
mode or priority of its own, the switch for all plugins. The gateway then still lists the plugin, and says
nothing. So the plugin looks for itself, at each heartbeat, and raises the alarm `override`.

Two sources: the gateway's own plugin managers (gateway_view.py), and our instances, which know the
configuration they were made with. The second is enough where the first cannot be read, and knows less.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from ._native import Engine
from .alarms import Alarms
from .config import Settings
from .gateway_view import DISABLED, SEQUENTIAL, Run, View, view
from .names import printable
from .response import MODES

CAUSE: Final = "override"

_BLOCK: Final = "block"
# From the mode in which the plugin does nothing to the one it is made for.
_WEAKEST_FIRST: Final = (DISABLED, "fire_and_forget", "audit", "transform", "concurrent", SEQUENTIAL)
_CAN_STOP: Final = (SEQUENTIAL, "concurrent")
# The gateway hands these a copy of what hooks share, so the post hook does not know which call has ended.
_UNPAIRED: Final = ("fire_and_forget", "audit")
# While it makes a context anew there is no instance of it for a moment.
_NO_INSTANCE_SECONDS: Final = 10.0
_NAMED: Final = 3


class Placed(Protocol):
    """What a placement asks of a plugin instance."""

    in_use: bool  # the gateway has not shut it down

    @property
    def config(self) -> Any:
        """cpex's PluginConfig that this instance was made with."""


@dataclass(frozen=True, slots=True)
class Placement:
    """How the plugin is run: the weakest mode in force and the lowest priority number, and what is wrong."""

    plugin_mode: str = ""  # "" when unknown
    plugin_priority: int = 0
    problems: tuple[str, ...] = ()

    def tell(self, alarms: Alarms) -> None:
        """Raises or ends the alarm."""
        if self.problems:
            alarms.report(CAUSE, ". ".join(self.problems))
        else:
            alarms.clear(CAUSE)


class Lookout:
    """Looks again and again, because the absence of instances counts only when it lasts."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last_instance: float | None = None

    def look(
        self,
        instances: Iterable[Placed],
        may_block: Callable[[Run], bool],
        gateway: Callable[[], View | None] = view,
    ) -> Placement:
        """How the plugin is run now.

        may_block: whether the firewall's own mode is block for some call of such a run.
        """
        now = self._clock()
        found = gateway()
        living = [_run_of(instance.config) for instance in instances if instance.in_use]
        if living:
            self._last_instance = now
        if found is not None and found.runs:
            return judge(found.runs, found.configured, may_block, enabled=found.enabled)
        if living:
            return judge(tuple(dict.fromkeys(living)), (), may_block)
        if self._last_instance is not None and now - self._last_instance > _NO_INSTANCE_SECONDS:
            return Placement(
                DISABLED,
                0,
                (
                    "the gateway has shut the plugin down and not started it again: calls are not screened. "
                    "Look for a mode `disabled` at GET /admin/plugins",
                ),
            )
        return Placement()


def judge(
    runs: Sequence[Run], configured: Sequence[Run], may_block: Callable[[Run], bool], *, enabled: bool = True
) -> Placement:
    """What is wrong with these runs, of which there must be one at least.

    configured: what the gateway's configuration file asks for, as far as known. A run that is weaker is a
    problem in any mode; one that is as weak as configured only where calls are to be stopped.
    """
    mode = min((run.mode if run.loaded else DISABLED for run in runs), key=_strength)
    priority = min(run.priority for run in runs)
    problems = []
    if not enabled:
        mode = DISABLED
        problems.append(
            'all plugins are switched off: calls are not screened. PUT /admin/plugins {"enabled": true} '
            "switches them on, in each worker where the gateway has no Redis"
        )
    problems += [
        *_not_run(runs),
        *_cannot_stop(runs, configured, may_block),
        *_open_on_error(runs, configured, may_block),
    ]
    problems += _not_last(runs)
    return Placement(mode, priority, tuple(problems))


def may_block(engine: Engine, settings: Settings, run: Run, now: float) -> bool:
    """True when the firewall's mode is block for some call of such a run."""
    initial = run.firewall_mode if run.firewall_mode in MODES else settings.mode
    if engine.mode_in_force(engine.policy(mode=initial), tenant=run.tenant, now=now) == _BLOCK:
        return True
    return any(
        entry["mode"] == _BLOCK and (not run.tenant or entry["scope"]["tenant"] in ("", run.tenant))
        for entry in engine.modes()
    )


def _not_run(runs: Sequence[Run]) -> list[str]:
    problems = []
    if absent := [run for run in runs if run.loaded and run.mode == DISABLED]:
        problems.append(
            f"the gateway runs the plugin as `disabled`{_where(absent, runs)}: these calls are not screened. "
            f"{_remedy(absent[0])}"
        )
    if failed := [run for run in runs if not run.loaded]:
        problems.append(
            f"the plugin could not be loaded{_where(failed, runs)}: these calls are not screened, unless "
            "PLUGINS_FAIL_ON_PLUGIN_ERROR is true. See the gateway's log for the reason"
        )
    return problems


def _cannot_stop(
    runs: Sequence[Run], configured: Sequence[Run], may_block: Callable[[Run], bool]
) -> list[str]:
    weak = [run for run in runs if run.mode not in _CAN_STOP and run.mode != DISABLED]
    asked = min((_strength(run.mode) for run in configured), default=0)
    problems = []
    for mode in dict.fromkeys(run.mode for run in weak):
        these = [run for run in weak if run.mode == mode]
        blocking = any(may_block(run) for run in these)
        if not blocking and _strength(mode) >= asked and mode not in _UNPAIRED:
            continue
        effect = "block mode stops nothing there" if blocking else "block mode would stop nothing there"
        if mode in _UNPAIRED:
            effect += ", and how calls end is not seen"
        problems.append(
            f"the gateway runs the plugin as `{mode}`{_where(these, runs)}: {effect}. {_remedy(these[0])}"
        )
    return problems


def _open_on_error(
    runs: Sequence[Run], configured: Sequence[Run], may_block: Callable[[Run], bool]
) -> list[str]:
    asked = {run.on_error for run in configured}
    wrong = [
        run
        for run in runs
        if run.on_error != "fail" and run.mode in _CAN_STOP and (run.on_error not in asked or may_block(run))
    ]
    if not wrong:
        return []
    return [
        f"with on_error `{wrong[0].on_error}`{_where(wrong, runs)} calls pass unscreened when the plugin "
        f"fails or takes too long. {_remedy(wrong[0])}"
    ]


def _not_last(runs: Sequence[Run]) -> list[str]:
    early = [run for run in runs if run.later]
    if not early:
        return []
    names = ", ".join(dict.fromkeys(name for run in early for name in run.later))
    return [
        f"{names} may stop calls after this plugin{_where(early, runs)} (priority {early[0].priority}), "
        "which then counts calls that never ran. Give this plugin the highest priority number, 900"
    ]


def _remedy(run: Run) -> str:
    if run.tool:
        return "Change the tool binding, or the plugin's mode"
    return f'PUT /admin/plugins/{run.plugin} {{"mode": "enforce"}} ends it'


def _where(these: Sequence[Run], everywhere: Sequence[Run]) -> str:
    """Which tools it concerns; nothing when it is so everywhere."""
    if len(these) == len(everywhere):
        return ""
    tools = sorted({printable(run.tool) for run in these if run.tool})
    named = tools[:_NAMED]
    if len(tools) > _NAMED:
        named.append(f"{len(tools) - _NAMED} more")
    if any(not run.tool for run in these):
        named.insert(0, "all tools without a binding of their own")
    return f" for {', '.join(named)}"


def _strength(mode: str) -> int:
    return _WEAKEST_FIRST.index(mode) if mode in _WEAKEST_FIRST else 0


def _run_of(config: Any) -> Run:
    return Run(
        plugin=str(config.name),
        context="",
        mode=str(config.mode.value),
        priority=int(config.priority),
        on_error=str(config.on_error.value),
        firewall_mode=str((config.config or {}).get("mode", "learning")),
    )
