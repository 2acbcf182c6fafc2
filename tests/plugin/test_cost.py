# SPDX-License-Identifier: Apache-2.0
"""What a call costs, and where it is read from."""

import math
from typing import Any

import pytest
from cpex_tool_firewall.config import load
from cpex_tool_firewall.cost import UNKNOWN, CostReader


def reader(problems: list[int] | None = None, **settings: Any) -> CostReader:
    return CostReader(load(settings), lambda: (problems if problems is not None else []).append(1))


RESULT = {"content": [{"type": "text", "text": "done"}], "_meta": {"usage": {"cost": 0.25}}, "isError": False}


@pytest.mark.parametrize(
    ("settings", "arguments", "result", "cost"),
    [
        ({"tool_costs": {"search": 0.5}}, {}, RESULT, 0.5),
        ({"tool_costs": {"other": 0.5}}, {}, RESULT, UNKNOWN),
        ({"cost_result": "/_meta/usage/cost"}, {}, RESULT, 0.25),
        ({"cost_result": "/_meta/usage/price", "tool_costs": {"search": 2}}, {}, RESULT, 2),
        ({"cost_argument": "/budget/0", "tool_costs": {"search": 2}}, {"budget": [3, 4]}, RESULT, 3),
        ({"cost_argument": "/budget", "cost_result": "/_meta/usage/cost"}, {"budget": 3}, RESULT, 0.25),
        ({"cost_argument": "/budget"}, {}, RESULT, UNKNOWN),
        ({"cost_argument": "/budget"}, None, RESULT, UNKNOWN),
        ({"cost_result": "/_meta/usage/cost"}, {}, "a text", UNKNOWN),
        ({"cost_result": "/_meta/usage/cost/deeper"}, {}, RESULT, UNKNOWN),
        ({"cost_result": "/content/7/text"}, {}, RESULT, UNKNOWN),
        ({"cost_result": ""}, {}, {"content": []}, UNKNOWN),
    ],
)
def test_result_before_argument_before_table(
    settings: dict[str, Any], arguments: Any, result: Any, cost: float
) -> None:
    costs = reader(**settings)
    found = costs.of("search", result, costs.of_arguments(arguments))
    assert found == cost or (math.isnan(found) and math.isnan(cost))


@pytest.mark.parametrize("value", ["0.25", True, -1, math.inf, math.nan, 1e10, {"a": 1}, [1]])
def test_what_is_no_cost_is_reported_and_counts_as_unknown(value: Any) -> None:
    problems: list[int] = []
    costs = reader(problems, cost_result="/_meta/cost")
    assert math.isnan(costs.of("search", {"_meta": {"cost": value}}))
    assert problems == [1]


def test_a_pointer_that_is_none_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"cost_result: .*is not a JSON pointer; accepted: JSON pointer or null"
    ):
        load({"cost_result": "usage.cost"})


def test_only_arguments_that_are_pointed_to_are_read() -> None:
    assert not reader(tool_costs={"search": 1}).reads_arguments
    assert reader(cost_argument="/x").reads_arguments
