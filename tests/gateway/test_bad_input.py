# SPDX-License-Identifier: Apache-2.0
"""Arguments no sensible client sends: each gets an explicit answer, and the gateway goes on working."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import Screened

# What must never reach an agent: the words of an exception or where it happened.
_LEAKS = (
    "Traceback",
    'File "',
    "cpex_tool_firewall",
    "_native",
    "RuntimeError",
    "ValueError",
    "RecursionError",
)


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {"end": 1}
    for _ in range(levels):
        value = {"in": value}
    return value


def body(shared: Screened, arguments: str) -> bytes:
    """A tools/call of db_query with `arguments` as the raw JSON text of its arguments."""
    name = json.dumps(shared.lab.tool("db_query"))
    params = f'{{"name":{name},"arguments":{arguments}}}'
    return f'{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}'.encode()


RAW = {
    "not a number": '{"sql":"x","options":{"n":NaN}}',
    "infinity": '{"sql":"x","options":{"n":Infinity}}',
    "number past a float": '{"sql":"x","options":{"n":1e400}}',
    "huge integer": '{"sql":"x","options":{"n":' + "9" * 400 + "}}",
    "lone surrogate": r'{"sql":"\ud800"}',
    "lone surrogate as key": r'{"sql":"x","options":{"\udfff":1}}',
    "NUL": r'{"sql":"a\u0000b"}',
    "duplicate keys": '{"sql":"a","sql":"b"}',
    "null": "null",
    "a list": "[1,2]",
    "a string": '"select 1"',
    "90 levels": json.dumps({"sql": "x", "options": nested(90)}),
    "200 levels": json.dumps({"sql": "x", "options": nested(200)}),
    "20,000 levels": '{"sql":"x","options":' + '{"a":' * 20_000 + "1" + "}" * 20_001,
    "900 kB string": json.dumps({"sql": "x" * 900_000}),
    "10 MB string": json.dumps({"sql": "x" * 10_000_000}),
    "100,000 keys": json.dumps({"sql": "x", "options": {f"k{i}": i for i in range(50_000)}}),
}


@pytest.fixture(scope="module", params=["learning", "block"])
def mode(request: pytest.FixtureRequest, shared: Screened) -> Iterator[str]:
    """The mode in force while the test runs."""
    shared.firewall.mode(request.param)
    yield request.param
    shared.firewall.mode("learning")


@pytest.mark.parametrize("case", RAW)
def test_odd_arguments_get_an_answer(shared: Screened, mode: str, case: str) -> None:
    answer = shared.lab.rpc("dave").send(body(shared, RAW[case]))
    assert answer.status < 500, answer.text[:500]
    assert answer.text, "an answer without words"
    for leak in _LEAKS:
        assert leak not in answer.text, answer.text[:500]
    assert answer.seconds < 10
    # The gateway still screens others. In block mode so many calls may be a burst by now: an answer as well.
    shared.firewall.skip()
    next_answer = shared.lab.call("erin", "db_query", {"sql": "select 1"})
    scored = shared.firewall.call()
    assert scored.tool == "db_query"
    assert next_answer.ok == (not scored.blocked)
    assert mode == "block" or next_answer.ok


def test_what_cannot_be_inspected_is_stopped_only_in_block_mode(shared: Screened) -> None:
    shared.firewall.mode("learning")
    shared.firewall.skip()
    shared.lab.upstream_calls()
    answer = shared.lab.rpc("alice").send(body(shared, RAW["90 levels"]))
    assert answer.ok, answer
    scored = shared.firewall.call()
    assert scored.uninspectable == "depth"
    assert len(shared.lab.upstream_calls()) == 1

    shared.firewall.mode("block")
    try:
        shared.firewall.skip()
        answer = shared.lab.rpc("alice").send(body(shared, RAW["90 levels"]))
        assert not answer.ok
        assert "cannot be inspected" in answer.text
        assert shared.firewall.call().blocked
        assert shared.lab.upstream_calls() == []
    finally:
        shared.firewall.mode("learning")
