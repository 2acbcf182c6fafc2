# SPDX-License-Identifier: Apache-2.0
"""The two hooks: what an ordinary, an unusual and an impossible call get in each mode, and what goes wrong
safely.
"""

import asyncio
import logging
import math
import threading
from collections.abc import Callable
from typing import Any

import pytest
from cpex.framework import PluginContext, PluginViolationError, ToolPostInvokePayload, ToolPreInvokePayload
from cpex_tool_firewall import plugin as plugin_module
from cpex_tool_firewall import runtime
from cpex_tool_firewall._native import decode_record
from cpex_tool_firewall.config import ConfigError
from cpex_tool_firewall.control import set_mode
from cpex_tool_firewall.journal.interface import records_since
from cpex_tool_firewall.plugin import HANDOVER, ToolFirewallPlugin
from cpex_tool_firewall.state import StateError
from hooks import FINE, Firewall, about, after, before, call, manager, said, tool_metadata, wait_for

SECRET = "xyzzy-argument-value"


# --- verdicts in each mode ---


async def test_an_ordinary_call_is_allowed_and_says_its_risk(firewall: Firewall) -> None:
    instance = firewall.instance()
    await firewall.history(instance, "db_query", "read_file")
    answer = await call(instance, "db_query", args={"sql": "select 1"})
    assert answer.continue_processing
    assert answer.violation is None
    assert answer.modified_payload is None
    assert 0 <= said(answer)["risk_score"] < 0.5
    assert said(answer)["allowed"] == said(answer)["total_checked"] == 1
    assert said(answer)["limit_mode"] == "learning"


@pytest.mark.parametrize("mode", ["learning", "warn", "shadow", "block"])
async def test_a_novel_tool_is_answered_as_the_mode_says(
    firewall: Firewall, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    instance = firewall.instance(mode=mode)
    await firewall.history(instance, "db_query", calls=200)
    caplog.clear()
    usual = await call(instance, "db_query")
    unusual = await call(instance, "delete_records", args={"table": SECRET})
    risk = said(unusual)["risk_score"]
    assert risk >= 0.5
    assert risk >= 3 * said(usual)["risk_score"]
    assert said(unusual)["novelty"] is True
    assert "novelty" in said(unusual)["detection_types"]
    assert unusual.continue_processing == (mode != "block")
    assert said(unusual)["would_block"] == (mode != "block")
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    if mode == "learning":
        assert warnings == []
    else:
        (warning,) = warnings
        assert "delete_records" in warning
        assert "alice@example.com" in warning
        assert "novelty" in warning
        assert "tf-" in warning
        assert SECRET not in warning
    if mode == "block":
        assert unusual.violation.code in ("TF_NOVELTY", "TF_NOVEL_PATH")
        assert unusual.violation.http_status_code == 403
        assert unusual.violation.details["incident"] in warning
        assert said(unusual)["recorded"] is True


async def test_a_burst_is_over_the_threshold_from_call_21(firewall: Firewall) -> None:
    instance = firewall.instance(mode="block")
    await firewall.history(instance, "db_query", calls=200)
    answers = []
    for _ in range(25):
        answers.append(await call(instance, "db_query"))
        firewall.now += 1.2
    assert all(answer.continue_processing for answer in answers[:10])
    refused = [answer for answer in answers if not answer.continue_processing]
    assert not answers[-1].continue_processing
    assert {answer.violation.code for answer in refused} <= {"TF_BURST", "TF_FREQUENCY"}
    assert {answer.violation.http_status_code for answer in refused} == {429}
    assert all(int(answer.violation.http_headers["Retry-After"]) > 0 for answer in refused)
    assert said(answers[-1])["burst"] is True
    assert said(answers[-1])["throttled"] == 1


async def test_what_the_agent_reads_holds_no_figures_and_no_arguments(firewall: Firewall) -> None:
    instance = firewall.instance(mode="block")
    await firewall.history(instance, "db_query", calls=200)
    answer = await call(instance, "delete_records", args={"table": SECRET})
    text = str(answer.violation.model_dump())
    risk = said(answer)["risk_score"]
    assert SECRET not in text
    assert f"{risk:.2f}" not in text
    assert "threshold" not in text


async def test_an_instance_may_be_stricter_for_its_tool(firewall: Firewall) -> None:
    base = firewall.instance()
    strict = firewall.instance(mode="block", threshold=0.34)
    await firewall.history(base, "db_query", calls=200)
    assert (await call(base, "delete_records")).continue_processing
    assert not (await call(strict, "drop_tables")).continue_processing
    assert runtime.alarms.active() == []


# --- identity and hand-over ---


async def test_a_tool_is_known_by_its_own_name_and_server(firewall: Firewall) -> None:
    instance = firewall.instance()

    async def once(shown: str, **metadata: Any) -> dict[str, Any]:
        context = PluginContext(global_context=about(**metadata))
        answer = await instance.tool_pre_invoke(ToolPreInvokePayload(name=shown, args={}), context)
        await instance.tool_post_invoke(ToolPostInvokePayload(name=shown, result=FINE), context)
        return said(answer)

    await once("lab-db-query", tool=tool_metadata("db_query"))
    await once("renamed-db-query", tool=tool_metadata("db_query"))
    await once("lab-db-query", tool=tool_metadata("db_query", "server-2"))
    await once("rest-tool", tool=tool_metadata("rest_tool", None))
    await once("bare")
    await once("odd", tool=tool_metadata(7, 9))
    await once("odder", tool="not an object", gateway=None)
    baseline = firewall.runtime.engine.baseline("team", "alice@example.com")
    assert baseline is not None
    found = {(tool["server"], tool["tool"]): round(tool["count"]) for tool in baseline["tools"]}
    assert found == {
        ("server-1", "db_query"): 2,
        ("server-2", "db_query"): 1,
        ("", "rest_tool"): 1,
        ("", "bare"): 1,
        ("", "odd"): 1,
        ("", "odder"): 1,
    }


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        (FINE, "ok"),
        ({"content": [{"type": "text", "text": "Error executing tool x"}], "isError": True}, "tool_error"),
        ({"content": [{"type": "text", "text": "MCP server error: "}], "isError": True}, "timeout"),
    ],
)
async def test_a_call_is_recorded_as_what_became_of_it(firewall: Firewall, result: Any, outcome: str) -> None:
    instance = firewall.instance()
    await call(instance, "db_query", result=result)
    firewall.restart()
    journal = firewall.journal()
    records = [decode_record(record) for record in records_since(journal)]
    journal.close()
    assert [record["kind"] for record in records] == ["call", "outcome"]
    assert records[1]["outcome"] == outcome
    assert records[0]["tool"] == "db_query"


async def test_two_users_with_one_request_id_keep_their_own_results(firewall: Firewall) -> None:
    instance = firewall.instance()
    alice = PluginContext(global_context=about("alice"))
    bob = PluginContext(global_context=about("bob"))  # the same request_id
    payload = ToolPreInvokePayload(name="t", args={})
    await instance.tool_pre_invoke(payload, alice)
    await instance.tool_pre_invoke(payload, bob)
    assert alice.global_context.state[HANDOVER] != bob.global_context.state[HANDOVER]
    await instance.tool_post_invoke(ToolPostInvokePayload(name="t", result=FINE), bob)
    assert firewall.runtime.engine.summary()["in_flight"] == 1


async def test_a_result_without_a_call_is_counted(firewall: Firewall) -> None:
    instance = firewall.instance()
    context = PluginContext(global_context=about())
    answer = await instance.tool_post_invoke(ToolPostInvokePayload(name="grpc", result=FINE), context)
    assert answer.continue_processing
    assert runtime.events["post_without_pre"] == 1
    context.global_context.state[HANDOVER] = 10**15  # a ticket of nobody
    await instance.tool_post_invoke(ToolPostInvokePayload(name="grpc", result=FINE), context)
    assert firewall.runtime.engine.counters()["unpaired"] == 1


@pytest.mark.parametrize("ticket", ["text", -1, 2**70, 1.5, [1], object()])
async def test_a_broken_ticket_is_no_trouble(firewall: Firewall, ticket: Any) -> None:
    instance = firewall.instance()
    context = PluginContext(global_context=about())
    context.global_context.state[HANDOVER] = ticket
    answer = await instance.tool_post_invoke(ToolPostInvokePayload(name="t", result=FINE), context)
    assert answer.continue_processing


async def test_a_stopped_call_hands_nothing_over(firewall: Firewall) -> None:
    instance = firewall.instance(mode="block")
    await firewall.history(instance, "db_query", calls=200)
    context = PluginContext(global_context=about())
    context.global_context.state[HANDOVER] = 5  # of an earlier try of the same request
    await instance.tool_pre_invoke(ToolPreInvokePayload(name="delete_records", args={}), context)
    assert context.global_context.state[HANDOVER] == 0
    await instance.tool_post_invoke(ToolPostInvokePayload(name="delete_records", result=FINE), context)
    assert firewall.runtime.engine.counters()["unpaired"] == 0


class Nasty:
    """A result that fights back."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(SECRET)

    def __bool__(self) -> bool:
        raise RuntimeError(SECRET)


ODD_RESULTS: list[Callable[[], Any]] = [
    *(lambda value=value: value for value in (None, 7, math.nan, "text", b"bytes", [], {}, [[[]]], {1: 2})),
    object,
    Nasty,
    lambda: {"isError": Nasty()},
    lambda: {"isError": True, "content": [Nasty()]},
    lambda: {"isError": True, "content": Nasty()},
]


@pytest.mark.parametrize("make", ODD_RESULTS, ids=range(len(ODD_RESULTS)))
async def test_no_result_is_too_odd(
    firewall: Firewall, make: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    instance = firewall.instance(mode="block")
    context = PluginContext(global_context=about())
    await instance.tool_pre_invoke(ToolPreInvokePayload(name="t", args={}), context)
    payload = ToolPostInvokePayload.model_construct(name="t", result=make())
    assert (await instance.tool_post_invoke(payload, context)).continue_processing
    assert SECRET not in caplog.text


# --- bad input: each an explicit verdict ---


def nested(levels: int) -> dict[str, Any]:
    top: dict[str, Any] = {}
    inner = top
    for _ in range(levels):
        inner["a"] = {}
        inner = inner["a"]
    return top


def cyclic() -> dict[str, Any]:
    top: dict[str, Any] = {"a": [1]}
    top["a"].append(top)
    return top


BAD_INPUT: list[tuple[str, Callable[[], Any], str]] = [
    ("non-string keys", lambda: {1: "a", (2, 3): "b"}, "type"),
    ("not a number", lambda: {"a": math.nan, "b": math.inf, "c": -0.0}, ""),
    ("huge whole number", lambda: {"a": 2**70}, ""),
    ("bytes", lambda: {"a": b"\xff\x00"}, "type"),
    ("10 MB string", lambda: {"a": "x" * 10_000_000}, "size"),
    ("200 levels", lambda: nested(200), "depth"),
    ("100,000 levels", lambda: nested(100_000), "depth"),
    ("cycle", cyclic, "depth"),
    ("lone surrogate", lambda: {"a\ud800": "b\udfff"}, ""),
    ("NUL", lambda: {"a\0b": "c\0d"}, ""),
    ("object", lambda: {"a": object()}, "type"),
    ("None", lambda: None, ""),
    ("empty", dict, ""),
]


@pytest.mark.parametrize("mode", ["learning", "warn", "block"])
@pytest.mark.parametrize(
    ("make", "why"), [case[1:] for case in BAD_INPUT], ids=[case[0] for case in BAD_INPUT]
)
async def test_bad_arguments_get_an_explicit_verdict(
    firewall: Firewall, mode: str, make: Callable[[], Any], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    instance = firewall.instance(mode=mode)
    answer = await call(instance, "tool", args=make())
    found = said(answer)
    assert found["total_checked"] == 1
    assert found["degraded"] is False
    assert found.get("uninspectable", False) is bool(why)
    assert answer.continue_processing == (mode != "block" or not why)
    if why and mode == "block":
        assert answer.violation.code == "TF_UNINSPECTABLE"
    assert runtime.events == {}
    assert "Traceback" not in caplog.text


async def test_an_exempt_tool_may_have_such_arguments(firewall: Firewall) -> None:
    firewall.instance()
    exempt = firewall.instance(mode="block", uninspectable_exempt_tools=["upload"])
    assert (await call(exempt, "upload", args={"a": "x" * 10_000_000})).continue_processing
    assert not (await call(exempt, "other", args={"a": "x" * 10_000_000})).continue_processing


async def test_the_arguments_stay_as_they_were(firewall: Firewall) -> None:
    instance = firewall.instance()
    args = {"a": [1, {"b": "c"}], "d": None}
    await call(instance, "t", args=args)
    assert args == {"a": [1, {"b": "c"}], "d": None}


@pytest.mark.parametrize("name", ["\ud800tool", "t\0ool", "", "x" * 100_000, "line\nbreak", "\u202egnp"])
async def test_odd_names_are_screened_and_logged_on_one_line(
    firewall: Firewall, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    instance = firewall.instance(mode="warn", threshold=0.34)
    await firewall.history(instance, "db_query", calls=200, user=name or "u")
    caplog.clear()
    answer = await call(instance, name, user=name or "u")
    assert said(answer)["degraded"] is False
    assert runtime.events == {}
    for record in caplog.records:
        record.getMessage().encode("utf-8")
        assert "\n" not in record.getMessage()
        assert "\u202e" not in record.getMessage()


# --- errors in our own hooks ---


def broken(*_: Any, **__: Any) -> Any:
    raise ValueError(f"a text that holds {SECRET}")


@pytest.mark.parametrize("mode", ["learning", "warn", "shadow", "block"])
async def test_an_error_before_the_verdict_stops_a_call_in_block_mode_only(
    firewall: Firewall, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    instance = firewall.instance(mode=mode)
    instance._screen = broken
    for _ in range(5):
        answer = await call(instance, "t", args={"a": SECRET})
    assert answer.continue_processing == (mode != "block")
    assert said(answer)["degraded"] is True
    assert said(answer)["total_checked"] == 0
    if mode == "block":
        assert answer.violation.code == "TF_INTERNAL"
        assert answer.violation.details["incident"] in answer.violation.description
        assert SECRET not in str(answer.violation.model_dump())
    assert runtime.events["error_pre"] == 5
    assert caplog.text.count("unexpected ValueError in the pre hook") == 1  # logged once, counted five times
    assert SECRET not in caplog.text


async def test_an_error_before_the_verdict_follows_the_mode_in_force(firewall: Firewall) -> None:
    instance = firewall.instance()
    journal = firewall.journal()
    set_mode(journal, "block", user="alice@example.com", by="test", now=firewall.now)
    wait_for(firewall.runtime.engine.modes)
    instance._screen = broken
    assert not (await call(instance, "t")).continue_processing
    assert (await call(instance, "t", user="bob@example.com")).continue_processing
    instance._resolve = broken  # now not even the caller can be told
    assert (await call(instance, "t")).continue_processing
    journal.close()


async def test_a_verdict_holds_though_its_answer_failed(
    firewall: Firewall, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    instance = firewall.instance(mode="block")
    await firewall.history(instance, "db_query", calls=200)
    monkeypatch.setattr(plugin_module.response, "notable_metadata", broken)
    stopped = await call(instance, "delete_records")
    assert not stopped.continue_processing
    assert stopped.violation.code == "TF_INTERNAL"
    warning = firewall.instance(mode="warn")
    allowed = await call(warning, "delete_records")
    assert allowed.continue_processing
    assert said(allowed)["degraded"] is True
    assert said(allowed)["risk_score"] >= 0.5
    assert SECRET not in caplog.text


# --- configuration and state at start ---


def test_a_wrong_first_configuration_raises(firewall: Firewall) -> None:
    for settings in ({"thresold": 0.5}, {"mode": "on"}, {"threshold": 7}):
        with pytest.raises(ConfigError):
            firewall.instance(**settings)
    assert runtime.running() == []


@pytest.mark.parametrize(
    "wrong", [{"mode": "on"}, {"unknown": 1}, {"burst_threshold": 500}, {"state": "/somewhere/else"}]
)
async def test_a_wrong_binding_keeps_the_base_and_says_so_once(
    firewall: Firewall, wrong: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    firewall.instance(threshold=0.6)
    for _ in range(3):
        bound = firewall.instance(**({"threshold": 0.9} | wrong))
        assert bound._settings.threshold == 0.6
        assert said(await call(bound, "t"))["degraded"] is False
    alarms = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(alarms) == 1
    assert next(iter(wrong)) in alarms[0].getMessage()
    assert runtime.alarms.counts() == {"binding": 3}


@pytest.mark.parametrize("mode", ["learning", "warn", "shadow", "block"])
async def test_a_state_that_cannot_be_opened(
    firewall: Firewall, mode: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    firewall.state.write_text("a file where the folder should be")
    if mode == "block":
        with pytest.raises(StateError, match=str(firewall.state)):
            firewall.instance(mode=mode)
        return
    instances = [firewall.instance(mode=mode) for _ in range(3)]
    for instance in instances:
        answer = await call(instance, "t")
        assert answer.continue_processing
        assert said(answer)["degraded"] is said(answer)["unscreened"] is True
        assert said(answer)["total_checked"] == 0
        assert "risk_score" not in said(answer)
    alarms = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(alarms) == 1
    assert str(firewall.state) in alarms[0]
    assert "not screened" in alarms[0]
    assert runtime.running() == []
    # It heals by itself, without a new instance.
    firewall.state.unlink()
    monkeypatch.setattr(runtime, "_RETRY_OPEN_SECONDS", 0)
    assert said(await call(instances[0], "t"))["degraded"] is False
    assert runtime.alarms.active() == []


async def test_a_binding_in_block_mode_is_closed_when_there_is_no_state(firewall: Firewall) -> None:
    firewall.state.write_text("in the way")
    firewall.instance()  # learning: lets calls through, with an alarm
    with pytest.raises(StateError):
        firewall.instance(mode="block")


# --- in the real plugin manager ---


async def test_a_call_through_the_plugin_manager(firewall: Firewall) -> None:
    async with manager(firewall) as made:
        context = about(tool=tool_metadata("db_query"))
        result, contexts = await before(made, "lab-db-query", {"sql": {"deep": [1, 2]}}, context)
        assert result.continue_processing
        assert result.metadata["ToolFirewall"]["total_checked"] == 1
        assert context.state[HANDOVER]
        answer = await after(made, "lab-db-query", FINE, context, contexts)
        assert answer.continue_processing
        baseline = firewall.runtime.engine.baseline("team", "alice@example.com")
        assert baseline is not None
        assert [(tool["tool"], tool["server"]) for tool in baseline["tools"]] == [("db_query", "server-1")]


async def test_the_hand_over_survives_a_rebuild_in_between(firewall: Firewall) -> None:
    context = about()
    async with manager(firewall) as first:
        _, contexts = await before(first, "db_query", {}, context)
    async with manager(firewall) as second:  # the first one was shut down
        await after(second, "db_query", FINE, context, contexts)
    counters = firewall.runtime.engine.counters()
    assert (counters["outcome_ok"], counters["unpaired"]) == (1, 0)


async def test_a_stopped_call_in_the_plugin_manager(firewall: Firewall) -> None:
    async with manager(firewall, mode="block") as made:
        instance = made.get_plugin("ToolFirewall")
        await firewall.history(instance, "db_query", calls=200)
        with pytest.raises(PluginViolationError) as caught:
            await before(made, "delete_records", {"table": SECRET}, about())
        violation = caught.value.violation
        assert violation.plugin_name == "ToolFirewall"
        # Over MCP the agent reads just this; over /rpc the description.
        text = str(caught.value)
        assert violation.code in text
        assert violation.details["incident"] in text
        assert SECRET not in text


async def test_what_another_plugin_stops_leaves_no_trace(firewall: Firewall) -> None:
    policy = {
        "name": "Policy",
        "kind": "hooks_policy.RefuseDeletes",
        "hooks": ["tool_pre_invoke"],
        "priority": 100,
    }
    async with manager(firewall, policy) as made:
        for tool in ("delete_records", "db_query"):
            context = about()
            try:
                _, contexts = await before(made, tool, {}, context)
            except PluginViolationError as refused:
                assert tool == "delete_records"
                assert refused.violation.code == "POLICY"
            else:
                await after(made, tool, FINE, context, contexts)
        baseline = firewall.runtime.engine.baseline("team", "alice@example.com")
        assert baseline is not None
        assert [tool["tool"] for tool in baseline["tools"]] == ["db_query"]
        assert baseline["calls"] == 1


async def test_a_shut_down_instance_finishes_its_hooks(firewall: Firewall) -> None:
    async with manager(firewall) as made:
        old = made.get_plugin("ToolFirewall")
    await old.shutdown()
    assert said(await call(old, "t"))["degraded"] is False


async def test_many_instances_meet_in_one_engine(firewall: Firewall) -> None:
    instances = [firewall.instance() for _ in range(20)]
    for number, instance in enumerate(instances):
        await call(instance, f"tool-{number}")
    assert len(runtime.running()) == 1
    assert firewall.runtime.engine.summary()["calls"] == 20


def test_several_event_loops_may_call_at_once(firewall: Firewall) -> None:
    instance = firewall.instance(mode="block")
    failures: list[BaseException] = []

    async def many(user: str) -> None:
        for _ in range(200):
            await call(instance, "t", user=user)

    def loop(user: str) -> None:
        try:
            asyncio.run(many(user))
        except BaseException as error:  # noqa: BLE001  handed to the test
            failures.append(error)

    threads = [threading.Thread(target=loop, args=(f"user-{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert firewall.runtime.engine.summary()["calls"] == 800


async def test_the_hooks_are_what_the_framework_wants(firewall: Firewall) -> None:
    instance: Any = firewall.instance()
    for name in ("tool_pre_invoke", "tool_post_invoke"):
        hook = getattr(ToolFirewallPlugin, name)
        assert asyncio.iscoroutinefunction(hook)
        assert list(hook.__annotations__) == ["payload", "context", "return"]
    await instance.initialize()
    assert "preview_safe" not in instance.tags  # a preview must not be counted as a call
