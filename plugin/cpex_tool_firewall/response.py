# SPDX-License-Identifier: Apache-2.0
"""From a verdict to what the gateway gets: result metadata, and for a stopped call the violation the agent
reads.

The agent reads a fixed text for the signal, what to do, and an incident id: never a score, a threshold, a
value or the text of an exception. The gateway shows `description` and `details` on /rpc, and `code - reason
(description)` over MCP; so the description has to say it all.

Of the metadata the gateway keeps booleans under any name, and numbers and short words under the names it
knows (allowed, throttled, total_checked, total_blocked, stage, detection_types, limit_mode). risk_score is
for plugins that run after this one and for callers of the plugin manager.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cpex.framework import (  # type: ignore[import-untyped]
    PluginViolation,
    ToolPostInvokeResult,
    ToolPreInvokeResult,
)

from ._native import SIGNALS
from .fast_result import maker

if TYPE_CHECKING:
    from ._native import Verdict

STAGE: Final = "tool_pre_invoke"
UNINSPECTABLE: Final = "uninspectable"
INTERNAL: Final = "internal"
UNRECORDED: Final = "unrecorded"

FORBIDDEN: Final = 403
TOO_MANY: Final = 429
# JSON-RPC error codes: what the gateway itself uses for "access denied", and a neighbour for "too many".
_RPC_CODE: Final = {FORBIDDEN: -32003, TOO_MANY: -32029}

_ASK: Final = (
    "Do not repeat this call. If it is needed, ask an administrator to look at incident {incident} and to "
    "accept it."
)
_WAIT: Final = "Stop calling tools for a while, then go on more slowly. The incident is {incident}."


@dataclass(frozen=True, slots=True)
class Wording:
    """What the agent is told when a signal stops a call."""

    code: str
    reason: str
    what: str
    advice: str = _ASK
    status: int = FORBIDDEN


WORDING: Final[dict[str, Wording]] = {
    "novelty": Wording(
        "TF_NOVELTY",
        "unusual tool",
        "Stopped by the tool firewall: this user does not normally use this tool.",
    ),
    "novel_path": Wording(
        "TF_NOVEL_PATH",
        "unusual order of tools",
        "Stopped by the tool firewall: this user does not normally call this tool after the ones before it.",
    ),
    "off_hours": Wording(
        "TF_OFF_HOURS",
        "unusual hour",
        "Stopped by the tool firewall: this user does not normally call tools at this hour.",
    ),
    "frequency": Wording(
        "TF_FREQUENCY",
        "unusually many calls",
        "Stopped by the tool firewall: this user is calling tools far more often than usual.",
        _WAIT,
        TOO_MANY,
    ),
    "burst": Wording(
        "TF_BURST",
        "too many calls at once",
        "Stopped by the tool firewall: too many tool calls in a short time.",
        _WAIT,
        TOO_MANY,
    ),
    "cost": Wording(
        "TF_COST",
        "unusually dear calls",
        "Stopped by the tool firewall: this session has become far dearer than usual.",
    ),
    "retry_loop": Wording(
        "TF_RETRY_LOOP",
        "the same calls again and again",
        "Stopped by the tool firewall: the same calls are made again and again.",
        "Do not repeat them: find out why they do not lead on, or ask the user. If they are needed, ask an "
        "administrator to look at incident {incident}.",
        TOO_MANY,
    ),
    "argument_novelty": Wording(
        "TF_ARGUMENT_NOVELTY",
        "unusual destination or value",
        "Stopped by the tool firewall: this user does not normally give this tool such a destination or "
        "value.",
    ),
    "rate_spike": Wording(
        "TF_RATE_SPIKE",
        "unusually many calls of a tool",
        "Stopped by the tool firewall: this tool is called far more often than usual.",
        _WAIT,
        TOO_MANY,
    ),
    "burn_spike": Wording(
        "TF_BURN_SPIKE",
        "unusual cost of a tool",
        "Stopped by the tool firewall: this tool costs far more than usual.",
        _WAIT,
        TOO_MANY,
    ),
    "identity_novelty": Wording(
        "TF_IDENTITY_NOVELTY",
        "unusual agent or token",
        "Stopped by the tool firewall: this user is not normally seen with this agent or token.",
    ),
    UNINSPECTABLE: Wording(
        "TF_UNINSPECTABLE",
        "arguments cannot be inspected",
        "Stopped by the tool firewall: the arguments are too large, too deeply nested or of a kind that "
        "cannot be inspected.",
        "Send simpler or smaller arguments. If this tool needs such arguments, ask an administrator to "
        "exempt it; the incident is {incident}.",
    ),
    INTERNAL: Wording(
        "TF_INTERNAL",
        "the call could not be inspected",
        "Stopped by the tool firewall: the call could not be inspected because of an internal error.",
        "Try again later. If it goes on, tell an administrator; the incident is {incident}.",
    ),
    UNRECORDED: Wording(
        "TF_AUDIT",
        "the call cannot be recorded",
        "Stopped by the tool firewall: calls cannot be recorded at the moment, and none may run unrecorded.",
        "Try again later. If it goes on, tell an administrator; the incident is {incident}.",
    ),
}
# For a signal that has no wording of its own yet.
_OTHER: Final = Wording("TF_UNUSUAL", "unusual call", "Stopped by the tool firewall: this call is unusual.")

MODES: Final = ("learning", "warn", "shadow", "block")

pre_result = maker(ToolPreInvokeResult)
"""``ToolPreInvokeResult(metadata=...)``, faster."""

post_result = maker(ToolPostInvokeResult)
"""``ToolPostInvokeResult(metadata=...)``, faster."""


def ordinary_metadata(mode: str) -> dict[str, Any]:
    """Metadata of an ordinary allowed call, to be copied and given its `risk_score`. All values are
    immutable.
    """
    return {
        "risk_score": 0.0,
        "allowed": 1,
        "throttled": 0,
        "total_checked": 1,
        "total_blocked": 0,
        "stage": STAGE,
        "limit_mode": mode,
        "notable": False,
        "would_block": False,
        "blocked": False,
        "degraded": False,
    }


def signals(verdict: Verdict) -> list[str]:
    """The names of what spoke against a call, strongest first."""
    names = [UNINSPECTABLE] if verdict.uninspectable else []
    return names + [reason.signal for reason in verdict.reasons]


def notable_template(mode: str) -> dict[str, Any]:
    """Metadata of a listed call that runs, to be copied and given its risk, its `detection_types` and, under
    the names of these, True. All values are immutable.
    """
    return ordinary_metadata(mode) | {"notable": True} | dict.fromkeys((*SIGNALS, UNINSPECTABLE), False)


def notable_metadata(verdict: Verdict, names: list[str]) -> dict[str, Any]:
    """Metadata of a call that is warned about or stopped."""
    throttled = verdict.blocked and wording(names).status == TOO_MANY
    return (
        notable_template(verdict.mode)
        | {
            "risk_score": verdict.risk,
            "allowed": 0 if verdict.blocked else 1,
            "throttled": 1 if throttled else 0,
            "total_blocked": 1 if verdict.blocked else 0,
            "would_block": verdict.decision == "deny" and not verdict.blocked,
            "blocked": verdict.blocked,
            "detection_types": names,
        }
        | dict.fromkeys(names, True)
    )


def unscreened_metadata(mode: str, *, stopped: bool = False) -> dict[str, Any]:
    """Metadata of a call that got no verdict: it was not checked, and says so."""
    metadata = ordinary_metadata(mode)
    del metadata["risk_score"]  # there is none
    if stopped:
        metadata |= {"allowed": 0, "total_blocked": 1, "blocked": True, "notable": True}
    return metadata | {"total_checked": 0, "degraded": True, "unscreened": True}


def wording(names: Sequence[str]) -> Wording:
    """The wording for what stopped a call: that of the strongest signal.

    A tool that is new is also improbable after the one before it; "this tool" says more than "this order".
    """
    if not names:
        return _OTHER
    told = "novelty" if names[0] == "novel_path" and "novelty" in names else names[0]
    return WORDING.get(told, _OTHER)


def violation(names: list[str], incident: str, retry_after_seconds: float) -> PluginViolation:
    """What the agent gets instead of a result. `names` are the signals, strongest first."""
    words = wording(names)
    advice = words.advice.format(incident=incident)
    return PluginViolation(
        reason=words.reason,
        description=f"{words.what} {advice}",
        code=words.code,
        details={"incident": incident, "signals": names, "what_to_do": advice},
        mcp_error_code=_RPC_CODE[words.status],
        http_status_code=words.status,
        http_headers={"Retry-After": str(max(1, round(retry_after_seconds)))}
        if words.status == TOO_MANY
        else None,
    )


def stopped(plugin: str, metadata: dict[str, Any], refusal: PluginViolation) -> ToolPreInvokeResult:
    """The result that stops a call."""
    return ToolPreInvokeResult(continue_processing=False, violation=refusal, metadata={plugin: metadata})
