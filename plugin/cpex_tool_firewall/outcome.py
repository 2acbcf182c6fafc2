# SPDX-License-Identifier: Apache-2.0
"""What became of a tool call, read from the result the gateway hands to the post hook.

The gateway gives every failure the same shape, a result with isError; only the text tells a tool that
answered with an error from a server that did not answer. The texts differ by gateway version;
docs/gateway-versions.md lists them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

OK: Final = "ok"
TOOL_ERROR: Final = "tool_error"
TIMEOUT: Final = "timeout"
UNREACHABLE: Final = "unreachable"

_GATEWAY_SAYS: Final = ("MCP server error:", "Tool invocation failed:")
_TIMED_OUT: Final = "Tool invocation timed out"
_NOT_REACHED: Final = (
    "All connection attempts failed",
    "Connection refused",
    "Name or service not known",
    "No route to host",
    "Temporary failure in name resolution",
)
_LOOKED_AT = 400  # characters


def outcome_of(result: object) -> str:
    """ok | tool_error | timeout | unreachable, for a result of any shape. What is no error result is ok."""
    if not isinstance(result, Mapping):
        return OK
    failed = result.get("isError")
    if failed is None:
        failed = result.get("is_error")
    return _failure(_first_text(result.get("content"))) if failed is True else OK


def _failure(text: str) -> str:
    if text.startswith(_TIMED_OUT):
        return TIMEOUT
    for start in _GATEWAY_SAYS:
        if text.startswith(start):
            said = text[len(start) : _LOOKED_AT].strip()
            if not said:  # the text of a time-out exception is empty
                return TIMEOUT
            if said.startswith(_TIMED_OUT):
                return TIMEOUT
            if any(sign in said for sign in _NOT_REACHED):
                return UNREACHABLE
    return TOOL_ERROR


def _first_text(content: object) -> str:
    first = content[0] if isinstance(content, list) and content else None
    text = first.get("text") if isinstance(first, Mapping) else None
    return text if isinstance(text, str) else ""
