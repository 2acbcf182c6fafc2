# SPDX-License-Identifier: Apache-2.0
"""What the gateway, the agent and later plugins get to see of a verdict, and what they must not."""

import copy
import pickle
import re
from dataclasses import dataclass, field
from typing import Any

import pytest
from cpex.framework import PluginResult, ToolPostInvokeResult, ToolPreInvokeResult
from cpex_tool_firewall import fast_result, response
from cpex_tool_firewall._native import ModelCopier
from cpex_tool_firewall.fast_result import maker, same
from cpex_tool_firewall.outcome import outcome_of
from pydantic import BaseModel, PrivateAttr

RESULTS = [ToolPreInvokeResult, ToolPostInvokeResult]


@dataclass
class SpokenReason:
    signal: str
    text: str = "made 27 calls; usual is 3"


@dataclass
class SpokenVerdict:
    """Stands for the engine's Verdict."""

    decision: str = "deny"
    mode: str = "block"
    blocked: bool = True
    risk: float = 0.6180339
    incident: str = "tf-0123456789ab"
    uninspectable: str = ""
    ticket: int = 0
    notable: bool = True
    reasons: list[SpokenReason] = field(default_factory=list)


# --- the fast copy of a result ---


@pytest.mark.parametrize("result", RESULTS)
def test_a_fast_result_is_an_ordinary_one(result: type[BaseModel]) -> None:
    metadata = {"ToolFirewall": {"risk_score": 0.25, "allowed": 1}}
    fast, ordinary = maker(result)(metadata), result(metadata=metadata)
    assert type(fast) is type(ordinary)
    assert fast == ordinary
    assert fast.model_dump() == ordinary.model_dump()
    assert fast.model_dump(exclude_unset=True) == {"metadata": metadata}
    assert fast.model_fields_set == ordinary.model_fields_set == {"metadata"}
    assert repr(fast) == repr(ordinary)
    assert vars(fast) == vars(ordinary)
    assert list(vars(fast)) == list(vars(ordinary))
    assert fast.__pydantic_private__ == ordinary.__pydantic_private__
    assert fast.__pydantic_extra__ == ordinary.__pydantic_extra__
    assert fast.metadata is metadata
    assert same(fast, ordinary)
    assert copy.copy(fast) == copy.deepcopy(fast) == fast.model_copy() == fast
    assert pickle.loads(pickle.dumps(fast)) == fast
    assert result.model_validate(fast.model_dump()) == ordinary


@pytest.mark.parametrize("result", RESULTS)
def test_fast_results_share_nothing_that_can_change(result: type[BaseModel]) -> None:
    make = maker(result)
    one, other = make({}), make({})
    for name, value in vars(one).items():
        if not isinstance(value, bool | int | str | None):
            assert value is not getattr(other, name), name
    one.metadata["a"] = 1
    one.background_tasks.append("task")
    one.executions.append("record")
    one.retry_delay_ms = 7
    one.continue_processing = False
    assert one.model_fields_set == {"metadata", "retry_delay_ms", "continue_processing"}
    assert other == result(metadata={})
    assert make({}) == result(metadata={})
    assert other.model_fields_set == {"metadata"}


def test_the_fast_way_is_in_use() -> None:
    for result in RESULTS:
        assert isinstance(maker(result), ModelCopier)


class Changed(PluginResult[Any]):
    more: dict[str, int] = {}  # noqa: RUF012  pydantic copies it


class Private(PluginResult[Any]):
    _hidden: int = PrivateAttr(default=3)


@pytest.mark.parametrize("result", [Changed, Private])
def test_a_result_of_another_shape_is_built_the_ordinary_way(result: type[BaseModel]) -> None:
    make = maker(result)
    assert make.__name__ == "ordinary"
    assert same(make({"a": {}}), result(metadata={"a": {}}))


def test_a_copy_that_differs_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = lambda metadata: ToolPreInvokeResult(metadata=metadata, retry_delay_ms=5)  # noqa: E731
    monkeypatch.setattr(fast_result, "_copier", lambda result: broken)
    assert maker(ToolPreInvokeResult)({}) == ToolPreInvokeResult(metadata={})


# --- metadata ---

# What the gateway keeps of a plugin's metadata (mcpgateway/plugins/utils.py of 1.0.7 and 1.1.0).
KEPT_NUMBERS = {"total_blocked", "total_checked", "allowed", "throttled"}
KEPT_WORDS = {"stage", "detection_types", "limit_mode"}


def all_metadata() -> list[dict[str, Any]]:
    verdicts = [
        SpokenVerdict(reasons=[SpokenReason(name)], mode=mode, blocked=mode == "block")
        for name in response.SIGNALS
        for mode in response.MODES
    ]
    return [
        *(response.ordinary_metadata(mode) for mode in response.MODES),
        *(response.unscreened_metadata(mode) for mode in response.MODES),
        *(response.notable_metadata(verdict, response.signals(verdict)) for verdict in verdicts),  # type: ignore[arg-type]
    ]


def test_the_gateway_keeps_all_metadata_but_the_risk() -> None:
    for metadata in all_metadata():
        assert len(metadata) <= 32
        for name, value in metadata.items():
            assert re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name)
            if isinstance(value, bool):
                continue
            if isinstance(value, int | float):
                assert name in KEPT_NUMBERS | {"risk_score"}
            else:
                assert name in KEPT_WORDS
                text = value if isinstance(value, str) else ",".join(value)
                assert re.fullmatch(r"[A-Za-z0-9_.,:=/-]{1,64}", text)


def test_metadata_of_an_ordinary_call_holds_nothing_that_can_change() -> None:
    for mode in response.MODES:
        assert all(
            isinstance(value, bool | int | float | str) for value in response.ordinary_metadata(mode).values()
        )


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (
            SpokenVerdict(reasons=[SpokenReason("novelty"), SpokenReason("off_hours")]),
            {"allowed": 0, "total_blocked": 1, "throttled": 0, "blocked": True, "would_block": False},
        ),
        (
            SpokenVerdict(reasons=[SpokenReason("burst"), SpokenReason("novelty")]),
            {"allowed": 0, "total_blocked": 1, "throttled": 1, "blocked": True, "would_block": False},
        ),
        (
            SpokenVerdict(mode="shadow", blocked=False, reasons=[SpokenReason("burst")]),
            {"allowed": 1, "total_blocked": 0, "throttled": 0, "blocked": False, "would_block": True},
        ),
        (
            SpokenVerdict(
                mode="warn", decision="audit", blocked=False, risk=0.4, reasons=[SpokenReason("novelty")]
            ),
            {"allowed": 1, "total_blocked": 0, "throttled": 0, "blocked": False, "would_block": False},
        ),
    ],
)
def test_metadata_says_what_was_decided(verdict: SpokenVerdict, expected: dict[str, Any]) -> None:
    names = response.signals(verdict)  # type: ignore[arg-type]
    metadata = response.notable_metadata(verdict, names)  # type: ignore[arg-type]
    assert expected.items() <= metadata.items()
    assert metadata["risk_score"] == verdict.risk
    assert metadata["detection_types"] == [reason.signal for reason in verdict.reasons]
    for signal in response.SIGNALS:
        assert metadata[signal] is (signal in names)


# --- what the agent reads ---


def shown(names: list[str]) -> tuple[Any, str]:
    refusal = response.violation(names, "tf-0123456789ab", 60)
    return refusal, f"{refusal.code} - {refusal.reason} ({refusal.description}) {refusal.details}"


@pytest.mark.parametrize("name", response.WORDING)
def test_the_agent_reads_what_why_and_the_incident_and_no_figures(name: str) -> None:
    refusal, text = shown([name])
    assert refusal.code == ("TF_AUDIT" if name == response.UNRECORDED else f"TF_{name.upper()}")
    assert refusal.description.startswith("Stopped by the tool firewall: ")
    assert "tf-0123456789ab" in refusal.description  # the one part that both transports show
    assert refusal.details["incident"] == "tf-0123456789ab"
    assert not re.search(r"\d", text.replace("tf-0123456789ab", ""))
    assert name == response.INTERNAL or name in refusal.details["signals"]


@pytest.mark.parametrize("name", response.WORDING)
def test_too_many_calls_are_429_and_the_rest_403(name: str) -> None:
    refusal, _ = shown([name])
    if name in ("burst", "frequency", "retry_loop", "rate_spike", "burn_spike"):
        assert (refusal.http_status_code, refusal.http_headers) == (429, {"Retry-After": "60"})
    else:
        assert (refusal.http_status_code, refusal.http_headers) == (403, None)


def test_the_strongest_signal_names_the_refusal() -> None:
    refusal, _ = shown(["off_hours", "burst"])
    assert (refusal.code, refusal.http_status_code) == ("TF_OFF_HOURS", 403)
    assert refusal.details["signals"] == ["off_hours", "burst"]


def test_every_wording_is_of_something_that_exists() -> None:
    others = {response.UNINSPECTABLE, response.INTERNAL, response.UNRECORDED}
    assert set(response.WORDING) == {*response.SIGNALS} | others


def test_a_signal_without_a_wording_is_worded_in_general() -> None:
    refusal = response.violation(["a_newer_signal"], "tf-0123456789ab", 60)
    assert refusal.code == "TF_UNUSUAL"
    assert "tf-0123456789ab" in refusal.description
    refusal, _ = shown(["a signal of tomorrow"])
    assert refusal.code == "TF_UNUSUAL"
    assert shown([])[0].code == "TF_UNUSUAL"


def test_what_cannot_be_inspected_comes_first() -> None:
    verdict = SpokenVerdict(uninspectable="depth", reasons=[SpokenReason("novelty")])
    names = response.signals(verdict)  # type: ignore[arg-type]
    assert names == ["uninspectable", "novelty"]
    assert shown(names)[0].code == "TF_UNINSPECTABLE"


def test_a_stopped_result_stops() -> None:
    refusal, _ = shown(["novelty"])
    result = response.stopped("Mine", {"allowed": 0}, refusal)
    assert not result.continue_processing
    assert result.violation is refusal
    assert result.metadata == {"Mine": {"allowed": 0}}


# --- what became of a call ---


def failed(text: Any) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}], "isError": True, "structuredContent": None}


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        ({"content": [{"type": "text", "text": "fine"}], "isError": False}, "ok"),
        ({"content": []}, "ok"),
        (failed("Error executing tool boom"), "tool_error"),
        (failed("MCP server error: "), "timeout"),
        (failed("Tool invocation failed: "), "timeout"),
        (failed("Tool invocation timed out after 4s"), "timeout"),
        (failed("Tool invocation failed: Tool invocation timed out after 60s"), "timeout"),
        (failed("MCP server error: All connection attempts failed"), "unreachable"),
        (failed("Tool invocation failed: All connection attempts failed"), "unreachable"),
        (failed("MCP server error: [Errno -2] Name or service not known"), "unreachable"),
        (failed("MCP server error: invalid literal"), "tool_error"),
        (failed("All connection attempts failed"), "tool_error"),  # a tool says so, not the gateway
        (failed(""), "tool_error"),
        (failed(None), "tool_error"),
        (failed("MCP server error: x" + "y" * 10_000_000), "tool_error"),
        ({"is_error": True, "content": None}, "tool_error"),
        ({"isError": True}, "tool_error"),
        ({"isError": True, "content": "text"}, "tool_error"),
        ({"isError": True, "content": [None]}, "tool_error"),
        ({"isError": True, "content": [["text"]]}, "tool_error"),
        ({"isError": "yes"}, "ok"),
        ({1: 2}, "ok"),
        (None, "ok"),
        ("text", "ok"),
        (b"bytes", "ok"),
        ([1, 2], "ok"),
        (float("nan"), "ok"),
        (object(), "ok"),
    ],
)
def test_the_outcome_is_read_from_any_result(result: Any, outcome: str) -> None:
    assert outcome_of(result) == outcome
