# SPDX-License-Identifier: Apache-2.0
"""The two hooks: caller -> engine -> response. No scoring here.

Before a tool runs, tool_pre_invoke asks the engine for a verdict; after it ran, tool_post_invoke tells the
engine what became of the call. What joins the two is the verdict's ticket in
``context.global_context.state``: it survives a rebuild of the instance in between, and unlike request_id no
client can choose it.

Who fails open and who fails closed:

- A wrong first configuration, or a state that cannot be opened in block mode, raises: with
  PLUGINS_FAIL_ON_PLUGIN_ERROR=true the gateway then stops. In the other modes a state that cannot be opened
  makes this a pass-through with an alarm, in the log, the metrics and the metadata of every call; it heals by
  itself when the state can be opened again. The mode that counts here is that of the configuration, because
  the one in the journal cannot be read.
- A wrong binding for one tool keeps the first configuration, with an alarm.
- An error in a hook: without a verdict the call was not inspected, so it is stopped in block mode and let
  through in the others; with a verdict, the verdict holds. Either is counted, and logged by the type of the
  error alone, because its text may hold arguments.
- A journal that cannot be written: calls go on, unless `audit: strict` is set and block mode in force. A
  decision that it did not take in time holds all the same, and is recorded on standard error.
- A journal that cannot be read: calls are judged by what was known before, and their metadata says so.

docs/failures.md has all of it, by fault and mode.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from time import monotonic, time
from typing import Any, Final

from cpex.framework import (  # type: ignore[import-untyped]
    Plugin,
    PluginConfig,
    PluginContext,
    ToolPostInvokePayload,
    ToolPostInvokeResult,
    ToolPreInvokePayload,
    ToolPreInvokeResult,
)

from . import metrics, response, runtime, second_sink
from ._native import Aftermath, Policy, Verdict, screener
from .config import TOOL_OVERRIDES, ConfigError, Settings, load
from .cost import UNKNOWN, CostReader
from .freshness import TAIL_ALARM, TAIL_ALARM_TEXT, Freshness
from .names import printable
from .outcome import outcome_of
from .runtime import Runtime
from .state import StateError

HANDOVER: Final = "tool_firewall"
"""Key in global_context.state: the ticket of the call whose result is to come, 0 for none."""

COST_HANDOVER: Final = "tool_firewall_cost"
"""Key beside it: what the arguments say that the call costs; only where a setting points into them."""

_LEARNING: Final = "learning"
_BLOCK: Final = "block"
_STRICT: Final = "strict"
_QUIET_SECONDS: Final = 60.0
_UNRECORDED_ALARM_SECONDS: Final = 60.0
_BINDING_ALARM_SECONDS: Final = (
    120.0  # an instance with a wrong binding says so anew at each rebuild, after 30 s
)
_SAID: Final = {
    "warn": "unusual call",
    "shadow": "unusual call, block mode would have stopped it",
    _BLOCK: "stopped a call",
}

logger = logging.getLogger(__name__)

_last_said: dict[tuple[str, str], float] = {}


class ToolFirewallPlugin(Plugin):  # type: ignore[misc]
    """A cheap handle on the process's runtime, with the overrides of one tool. The gateway makes and drops
    many.
    """

    def __init__(self, config: PluginConfig) -> None:
        """Raises ConfigError when the first configuration of the process is wrong, StateError when the state
        cannot be opened in block mode.
        """
        super().__init__(config)
        self.in_use = True
        self._label = config.name
        self._settings = _settings(config)
        self._runtime: Runtime | None = None
        self._policy: Policy | None = None
        self._strict = self._settings.audit == _STRICT
        self._freshness = Freshness()
        self._templates: list[dict[str, Any]] = []
        self._degraded = False
        # None where nothing says what calls cost.
        self._costs = CostReader(self._settings, _cost_unreadable) if self._settings.has_costs else None
        # The functions the hooks call, bound once: None while there is no runtime.
        self._screen: Any = None
        self._observe: Any = None
        self._resolve: Any = None
        metrics.register(runtime.running, runtime.alarms, runtime.event_counts)
        if not self._attach() and self._settings.mode == _BLOCK:
            raise StateError(f"in block mode nothing runs unscreened: {self._trouble}")

    async def tool_pre_invoke(
        self, payload: ToolPreInvokePayload, context: PluginContext
    ) -> ToolPreInvokeResult:
        """Scores a call before it runs."""
        verdict = None
        now = time()
        try:
            if self._screen is None and not self._attach():
                return self._without_verdict(payload, context, now)
            if self._freshness.stale() is not self._degraded:
                self._say_degraded()
            if self._strict and self._freshness.unwritten() and self._blocks(payload, context, now):
                return self._stop_unrecorded(payload, context, now)
            about = context.global_context
            server, tool = "", payload.name
            if about.metadata:
                server, tool = _tool(about.metadata, tool)
            if self._costs is not None and self._costs.reads_arguments:
                about.state[COST_HANDOVER] = self._costs.of_arguments(payload.args)
            answer = self._screen(self._resolve(about), server, tool, payload.args, now, about.state)
            if answer.__class__ is not Verdict:
                return answer
            verdict = answer
            return await self._told(verdict, tool, context, now)
        except Exception as error:  # noqa: BLE001  no error may reach the agent; the rules above decide
            return self._after_error(error, verdict, payload, context, now)

    async def tool_post_invoke(
        self, payload: ToolPostInvokePayload, context: PluginContext
    ) -> ToolPostInvokeResult:
        """Tells the engine what became of a call. Never changes or withholds a result."""
        try:
            ticket = context.global_context.state.get(HANDOVER)
            if ticket:
                if self._observe is not None:
                    cost = UNKNOWN if self._costs is None else self._cost(payload, context)
                    after = self._observe(ticket, outcome_of(payload.result), time(), cost)
                    if after.__class__ is Aftermath:
                        _tell_after(after)
            elif ticket is None:
                runtime.events["post_without_pre"] += 1  # a gRPC tool has no pre hook
        except Exception as error:  # noqa: BLE001  the tool ran; its result is not withheld for our error
            _report("post", error)
        return response.post_result({})

    def _cost(self, payload: ToolPostInvokePayload, context: PluginContext) -> float:
        about = context.global_context
        tool = _tool(about.metadata, payload.name)[1] if about.metadata else payload.name
        said = about.state.get(COST_HANDOVER, UNKNOWN)
        return UNKNOWN if self._costs is None else self._costs.of(tool, payload.result, said)

    async def initialize(self) -> None:
        """Nothing to do: the runtime runs since the constructor."""

    async def shutdown(self) -> None:
        """Notes that the gateway gave this instance up. Nothing is freed: hooks of it may still run, and the
        runtime belongs to the process.
        """
        self.in_use = False

    def detach(self) -> None:
        """Forgets the runtime, because the process was forked or is ending. The next call acquires one."""
        self._runtime = self._policy = self._screen = self._observe = self._resolve = None

    def _attach(self) -> bool:
        """Gets the process's runtime. False, with an alarm, when the state cannot be opened."""
        try:
            found = runtime.acquire(self._settings)
        except StateError as error:
            self._trouble = str(error)
            runtime.alarms.report("state", f"{error}. Until then calls are not screened")
            return False
        runtime.alarms.clear("state")
        found.callers.look_for_gateway()
        found.instances.add(self)
        self._runtime = found
        self._policy = found.engine.policy(
            mode=self._settings.mode,
            threshold=self._settings.threshold,
            exempt_tools=self._settings.uninspectable_exempt_tools,
            own_threshold=self._settings.threshold != found.settings.threshold,
        )
        self._resolve, self._observe = found.callers.resolve, found.engine.observe
        self._freshness, self._degraded = found.freshness, False
        ordinary = {mode: response.ordinary_metadata(mode) for mode in response.MODES}
        notable = {mode: response.notable_template(mode) for mode in response.MODES}
        self._templates = [*ordinary.values(), *notable.values()]
        # Last: it tells the hooks that all is there.
        self._screen = screener(
            engine=found.engine,
            policy=self._policy,
            make_result=response.pre_result,
            label=self._label,
            handover=HANDOVER,
            ordinary=ordinary,
            notable=notable,
        )
        return True

    async def _told(
        self, verdict: Verdict, tool: str, context: PluginContext, now: float
    ) -> ToolPreInvokeResult:
        """The answer to a call that is warned about or stopped."""
        names = response.signals(verdict)
        metadata = response.notable_metadata(verdict, names) | {"degraded": self._degraded}
        if verdict.blocked and self._runtime is not None:
            # The refusal stands either way; this says whether its record is safe, should the machine fail
            # now.
            recorded = metadata["recorded"] = await self._runtime.recorded()
        else:
            recorded = not self._freshness.failing and not self._freshness.unwritten()
        if not recorded:
            self._record_elsewhere(
                context, tool, now, verdict.decision, verdict.mode, verdict.incident, names
            )
        logger.warning(
            "tool firewall %s: %s by %s, signals %s, risk %.3f, incident %s. %s",
            _SAID[verdict.mode],
            printable(tool),
            printable(self._user(context)),
            ",".join(names),
            verdict.risk,
            verdict.incident,
            printable(" ".join(reason.text for reason in verdict.reasons)),
        )
        if verdict.blocked:
            refusal = response.violation(names, verdict.incident, self._settings.burst_window_seconds)
            return response.stopped(self._label, metadata, refusal)
        return response.pre_result({self._label: metadata})

    def _after_error(
        self,
        error: Exception,
        verdict: Verdict | None,
        payload: ToolPreInvokePayload,
        context: PluginContext,
        now: float,
    ) -> ToolPreInvokeResult:
        """The answer when the hook failed: by the verdict if there is one, else by the mode."""
        _report("pre", error)
        if verdict is None:
            return self._without_verdict(payload, context, now, told=True)
        if verdict.blocked:
            return self._stop_internal(verdict.mode, verdict.incident)
        metadata = response.ordinary_metadata(verdict.mode) | {"risk_score": verdict.risk, "degraded": True}
        return ToolPreInvokeResult(metadata={self._label: metadata})

    def _without_verdict(
        self, payload: ToolPreInvokePayload, context: PluginContext, now: float, *, told: bool = False
    ) -> ToolPreInvokeResult:
        """The answer to a call that could not be inspected: closed in block mode, open in the others.

        told: it is a finding by itself, where findings are told.
        """
        context.global_context.state[HANDOVER] = 0
        mode = self._mode_in_force(payload, context, now)
        incident = f"tf-{secrets.token_hex(6)}"
        if mode == _BLOCK or (told and mode != _LEARNING):
            self._record_elsewhere(
                context, _name_of(payload, context), now, "uninspected", mode, incident, [response.INTERNAL]
            )
        if mode == _BLOCK:
            runtime.events["uninspected_stopped"] += 1
            return self._stop_internal(mode, incident)
        runtime.events["uninspected_allowed"] += 1
        return ToolPreInvokeResult(metadata={self._label: response.unscreened_metadata(mode)})

    def _stop_internal(self, mode: str, incident: str) -> ToolPreInvokeResult:
        logger.error("tool firewall stopped a call it could not inspect, incident %s", incident)
        metadata = response.unscreened_metadata(mode, stopped=True)
        refusal = response.violation([response.INTERNAL], incident, 0)
        return response.stopped(self._label, metadata, refusal)

    def _say_degraded(self) -> None:
        """The journal cannot be read any more, or again: says so in the metadata of the calls from now on."""
        self._degraded = self._freshness.stale()
        for template in self._templates:
            template["degraded"] = self._degraded
        if self._degraded:  # the journal thread would say it, unless it hangs
            runtime.alarms.report(TAIL_ALARM, TAIL_ALARM_TEXT)

    def _blocks(self, payload: ToolPreInvokePayload, context: PluginContext, now: float) -> bool:
        return self._mode_in_force(payload, context, now) == _BLOCK

    def _stop_unrecorded(
        self, payload: ToolPreInvokePayload, context: PluginContext, now: float
    ) -> ToolPreInvokeResult:
        """The answer, where `audit` is `strict`, to a call that could not be recorded."""
        context.global_context.state[HANDOVER] = 0
        runtime.events["unrecorded_stopped"] += 1
        incident = f"tf-{secrets.token_hex(6)}"
        names = [response.UNRECORDED]
        self._record_elsewhere(context, _name_of(payload, context), now, "deny", _BLOCK, incident, names)
        metadata = response.unscreened_metadata(_BLOCK, stopped=True) | {"recorded": False}
        return response.stopped(self._label, metadata, response.violation(names, incident, 0))

    def _record_elsewhere(
        self,
        context: PluginContext,
        tool: str,
        now: float,
        verdict: str,
        mode: str,
        incident: str,
        names: list[str],
    ) -> None:
        """Records a decision that is not in the journal. Raises nothing: the decision holds."""
        tenant = user = ""
        try:
            if self._resolve is not None:  # as it is without a runtime
                caller = self._resolve(context.global_context)
                tenant, user = caller.tenant, caller.user
        except Exception as error:  # noqa: BLE001  this runs because something is broken
            _report("caller", error)
        written = second_sink.put(
            incident=incident,
            ts=now,
            tenant=tenant,
            user=user,
            tool=tool,
            verdict=verdict,
            mode=mode,
            signals=names,
        )
        runtime.events["decisions_on_stderr" if written else "decisions_unrecorded"] += 1
        runtime.alarms.report(
            "decision-record",
            "decisions could not be recorded in the journal in time. They hold, and "
            + ("are on standard error instead" if written else "standard error did not take them either"),
            lasts=_UNRECORDED_ALARM_SECONDS,
        )

    def _mode_in_force(self, payload: ToolPreInvokePayload, context: PluginContext, now: float) -> str:
        found = self._runtime
        if found is None or self._policy is None:
            return self._settings.mode
        try:
            caller = self._resolve(context.global_context)
            tool = _name_of(payload, context)
            return found.engine.mode_in_force(
                self._policy, tenant=caller.tenant, user=caller.user, tool=tool, now=now
            )
        except Exception as error:  # noqa: BLE001  this runs because something is broken; it must still answer
            _report("mode", error)
            return self._settings.mode

    def _user(self, context: PluginContext) -> str:
        user: str = self._resolve(context.global_context).user
        return user


def _settings(config: PluginConfig) -> Settings:
    """The settings of one instance: the first of the process as they are, later ones only with allowed
    overrides.
    """
    base = runtime.base_settings()
    try:
        mine = load(config.config)
    except ConfigError as error:
        if base is None:
            raise
        _wrong_binding(str(error))
        return base
    if base is None:
        base = runtime.set_base_settings(mine)
    shared = base.shared()
    differing = [name for name, value in mine.shared().items() if value != shared[name]]
    if differing:
        _wrong_binding(
            f"{', '.join(differing)}: part of the plugin's own configuration, cannot be set per tool; "
            f"accepted: {', '.join(sorted(TOOL_OVERRIDES))}"
        )
        return base
    return mine


def _tell_after(after: Aftermath) -> None:
    """A call turned out to be unusual when it had ended: it cannot be stopped any more, but told of."""
    if after.decision != "deny" or after.told or after.mode == _LEARNING or after.snoozed:
        return
    logger.warning(
        "tool firewall unusual call, seen after it ran: %s by %s, signals %s, risk %.3f, incident %s. %s",
        printable(after.tool),
        printable(after.user),
        ",".join(reason.signal for reason in after.reasons),
        after.risk,
        after.incident,
        printable(" ".join(reason.text for reason in after.reasons)),
    )


def _cost_unreadable() -> None:
    runtime.events["cost_unreadable"] += 1


def _wrong_binding(what: str) -> None:
    runtime.alarms.report(
        "binding", f"{what}. The plugin's own configuration is used instead", lasts=_BINDING_ALARM_SECONDS
    )


def _tool(metadata: Mapping[str, Any], name: str) -> tuple[str, str]:
    """(server, tool): the gateway's own ids where it gives them, because `name` is made from names people can
    change.
    """
    tool = metadata.get("tool")
    server = getattr(tool, "gateway_id", None)
    original = getattr(tool, "original_name", None)
    return (server if isinstance(server, str) else ""), (
        original if isinstance(original, str) else ""
    ) or name


def _name_of(payload: ToolPreInvokePayload, context: PluginContext) -> str:
    """The tool's own name; the gateway's when that is just what cannot be read."""
    try:
        return _tool(context.global_context.metadata, payload.name)[1]
    except Exception as error:  # noqa: BLE001  this is asked because something is broken
        _report("name", error)
        return str(payload.name)


def _report(where: str, error: Exception) -> None:
    """Counts an error in a hook, and logs its type once a minute. Its text may hold arguments and goes
    nowhere.
    """
    kind = type(error).__name__
    runtime.events[f"error_{where}"] += 1
    now = monotonic()
    if now - _last_said.get((where, kind), -_QUIET_SECONDS) >= _QUIET_SECONDS:
        _last_said[where, kind] = now
        logger.error("tool firewall: unexpected %s in the %s hook", kind, where)
