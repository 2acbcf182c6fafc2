# SPDX-License-Identifier: Apache-2.0
"""What a call costs: from its result, its arguments, or a table of tools, as the settings say."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from jsonpointer import JsonPointer

from .config import Settings

UNKNOWN: Final = math.nan
"""The cost of a call of which nothing says it."""


class CostReader:
    """Reads costs, and only where the settings point: whatever else calls hold stays unread."""

    def __init__(self, settings: Settings, report: Callable[[], None]) -> None:
        """report: called when a place that is pointed to holds something that is no cost."""
        self._tools = settings.tool_costs
        self._argument = _pointer(settings.cost_argument)
        self._result = _pointer(settings.cost_result)
        self._report = report

    @property
    def reads_arguments(self) -> bool:
        """Whether of_arguments() can find anything."""
        return self._argument is not None

    def of_arguments(self, arguments: Any) -> float:
        """What the arguments of a call say, UNKNOWN for nothing."""
        return self._at(self._argument, arguments)

    def of(self, tool: str, result: Any, from_arguments: float = UNKNOWN) -> float:
        """What a call did cost, UNKNOWN when nothing says it. from_arguments: what of_arguments() said."""
        found = self._at(self._result, result)
        if not math.isnan(found):
            return found
        if not math.isnan(from_arguments):
            return from_arguments
        return self._tools.get(tool, UNKNOWN)

    def _at(self, pointer: JsonPointer | None, document: Any) -> float:
        if pointer is None:
            return UNKNOWN
        found = pointer.resolve(document, None) if isinstance(document, dict | list) else None
        if found is None:
            return UNKNOWN
        if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found <= 1e9:
            self._report()
            return UNKNOWN
        return float(found)


def _pointer(text: str | None) -> JsonPointer | None:
    return None if text is None else JsonPointer(text)
