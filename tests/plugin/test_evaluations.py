# SPDX-License-Identifier: Apache-2.0
"""Evaluations as rows: the verdict as the agent saw it, shadow wording, what only an ending told."""

import json

import pytest
from cpex_tool_firewall.evaluations import evaluation
from made_records import KEY, NOON, SESSION, TOKEN, call, control, outcome


def row(fields: dict) -> dict:
    made = evaluation(KEY, fields)
    assert made is not None
    return made


def test_an_allowed_call_is_a_row_without_a_reason() -> None:
    made = row(call())
    assert (made["verdict"], made["decision"], made["reason"], made["signals"]) == ("allow", "allow", "", [])
    assert made["incident"] == ""
    assert (made["ts"], made["tool"], made["user"], made["previous"]) == (NOON, "export", "alice", "db_query")
    assert (made["session"], made["token"]) == (SESSION, TOKEN)
    assert made["surface"] == "tool_pre_invoke"


@pytest.mark.parametrize(
    ("more", "verdict", "said"),
    [
        ({"mode": "learning"}, "audit", "novelty was"),
        ({"mode": "warn"}, "audit", "novelty was"),
        ({"mode": "shadow"}, "audit", "[shadow] would deny: novelty was"),
        ({"mode": "shadow", "decision": "audit"}, "audit", "novelty was"),
        ({"mode": "block", "blocked": True}, "deny", "novelty was"),
        ({"mode": "block", "decision": "audit"}, "audit", "novelty was"),
    ],
)
def test_the_verdict_is_what_the_agent_saw(more: dict, verdict: str, said: str) -> None:
    made = row(call("novelty", **more))
    assert made["verdict"] == verdict
    assert made["reason"].startswith(said)
    assert made["incident"].startswith("tf-")


def test_arguments_that_could_not_be_inspected_are_the_reason() -> None:
    made = row(call("novelty", uninspectable="size", mode="shadow"))
    assert made["reason"] == "[shadow] would deny: the arguments are too large to be inspected"
    assert made["signals"] == ["uninspectable", "novelty"]


def test_what_only_the_ending_told_is_a_row() -> None:
    made = call()
    late = row(outcome(made, "cost"))
    assert (late["surface"], late["verdict"], late["event"]) == (
        "tool_post_invoke",
        "audit",
        row(made)["event"],
    )
    assert late["reason"].startswith("cost was")


def test_controls_and_ordinary_endings_are_no_evaluations() -> None:
    assert evaluation(KEY, control("mode", "block")) is None
    assert evaluation(KEY, outcome(call())) is None
    assert evaluation(KEY, {"kind": "outcome", "ts": NOON, "worker": 1, "seq": 1, "outcome": "ok"}) is None


def test_no_token_or_session_comes_out_raw() -> None:
    text = json.dumps(row(call("burst", token="eyJhbGciOi", session="laptop")))
    assert "eyJ" not in text and "laptop" not in text
