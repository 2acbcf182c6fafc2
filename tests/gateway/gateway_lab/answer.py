# SPDX-License-Identifier: Apache-2.0
"""What a client got back for one tool call, in one shape for both transports."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Answer:
    """ok: the tool ran and did not report an error. text: all the words a model would read.

    code: the JSON-RPC error code, None without one. status: the HTTP status of /rpc, 0 over MCP.
    seconds: how long the call took.
    """

    ok: bool
    text: str
    code: int | None = None
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    seconds: float = 0.0


def of_result(result: dict[str, Any], **more: Any) -> Answer:
    """From a tools/call result {content: [{text}], isError}, as both transports carry it."""
    texts = [part["text"] for part in result.get("content", []) if "text" in part]
    return Answer(ok=not result.get("isError", False), text="\n".join(texts), body=result, **more)


def of_error(error: dict[str, Any], **more: Any) -> Answer:
    """From a JSON-RPC error {code, message, data}. `data` is sent to the agent too, so it is text here."""
    text = str(error.get("message", ""))
    if error.get("data"):
        text += f" {error['data']}"
    return Answer(ok=False, text=text, code=error.get("code"), body=error, **more)
