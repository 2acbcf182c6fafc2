# SPDX-License-Identifier: Apache-2.0
"""Tool calls through the gateway's plain JSON-RPC endpoint, /rpc."""

import time
from collections.abc import Mapping
from typing import Any

import httpx

from gateway_lab import answer
from gateway_lab.answer import Answer


class RpcClient:
    """One user's connection to /rpc. close() it."""

    def __init__(self, base_url: str, token: str) -> None:
        self._http = httpx.Client(
            base_url=base_url,
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            timeout=60.0,
            trust_env=False,
        )
        self._next_id = 0

    def call(self, tool: str, arguments: Any, *, headers: Mapping[str, str] | None = None) -> Answer:
        """tool: the name the gateway lists. arguments: whatever is to be sent, sensible or not."""
        self._next_id += 1
        message = {
            "jsonrpc": "2.0",
            "id": self._next_id,
            "method": "tools/call",
            "params": {"name": tool, "arguments": arguments},
        }
        started = time.monotonic()
        response = self._http.post("/rpc", json=message, headers=dict(headers or {}))
        return _read(response, time.monotonic() - started)

    def send(self, body: bytes, *, headers: Mapping[str, str] | None = None) -> Answer:
        """Sends a body that a JSON library would not write (NaN, lone surrogates, duplicate keys)."""
        started = time.monotonic()
        response = self._http.post("/rpc", content=body, headers=dict(headers or {}))
        return _read(response, time.monotonic() - started)

    def close(self) -> None:
        self._http.close()


def _read(response: httpx.Response, seconds: float) -> Answer:
    more = {"status": response.status_code, "headers": dict(response.headers), "seconds": seconds}
    try:
        document = response.json()
    except ValueError:
        return Answer(ok=False, text=response.text, body=response.text, **more)
    if isinstance(document, dict) and "result" in document:
        return answer.of_result(document["result"], **more)
    if isinstance(document, dict) and isinstance(document.get("error"), dict):
        return answer.of_error(document["error"], **more)
    return Answer(ok=False, text=response.text, body=document, **more)
