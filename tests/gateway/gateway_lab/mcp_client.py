# SPDX-License-Identifier: Apache-2.0
"""Tool calls over MCP streamable HTTP with the official client, of mcp 2.x or 1.x, whichever is installed."""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from typing import Any

from anyio.from_thread import start_blocking_portal

from gateway_lab import answer
from gateway_lab.answer import Answer

_TIMEOUT_SECONDS = 60.0

try:
    import httpx2
    from mcp.client import Client
    from mcp.client.streamable_http import streamable_http_client
    from mcp.shared.exceptions import MCPError

    @asynccontextmanager
    async def _open(url: str, headers: Mapping[str, str]) -> AsyncIterator[Any]:
        async with (
            httpx2.AsyncClient(headers=dict(headers), timeout=_TIMEOUT_SECONDS, trust_env=False) as http,
            Client(streamable_http_client(url, http_client=http)) as session,
        ):
            yield session

except ImportError:  # mcp 1.x
    import httpx
    from mcp.client.session import ClientSession
    from mcp.client.streamable_http import streamable_http_client
    from mcp.shared.exceptions import McpError as MCPError

    @asynccontextmanager
    async def _open(url: str, headers: Mapping[str, str]) -> AsyncIterator[Any]:
        async with (
            httpx.AsyncClient(headers=dict(headers), timeout=_TIMEOUT_SECONDS, trust_env=False) as http,
            streamable_http_client(url, http_client=http) as (reader, writer, _),
            ClientSession(reader, writer) as session,
        ):
            await session.initialize()
            yield session


class McpRefused(Exception):
    """The gateway did not let the client connect."""


class McpClient:
    """One user's MCP session with a virtual server, kept open between calls. close() it."""

    def __init__(self, url: str, token: str, *, headers: Mapping[str, str] | None = None) -> None:
        """Connects. McpRefused when the gateway says no."""
        with ExitStack() as starting:
            self._portal = starting.enter_context(start_blocking_portal())
            session = _open(url, {"Authorization": f"Bearer {token}", **(headers or {})})
            try:
                self._session = starting.enter_context(self._portal.wrap_async_context_manager(session))
            except (MCPError, ExceptionGroup) as error:
                raise McpRefused(_first_words(error)) from error
            self._stack = starting.pop_all()

    def tools(self) -> list[str]:
        return [tool.name for tool in self._portal.call(self._session.list_tools).tools]

    def call(self, tool: str, arguments: dict[str, Any]) -> Answer:
        """tool: the name the gateway lists."""
        started = time.monotonic()
        try:
            result = self._portal.call(self._session.call_tool, tool, arguments)
        except MCPError as error:
            failure = error.error.model_dump(mode="json", by_alias=True, exclude_none=True)
            return answer.of_error(failure, seconds=time.monotonic() - started)
        document = result.model_dump(mode="json", by_alias=True, exclude_none=True)
        return answer.of_result(document, seconds=time.monotonic() - started)

    def close(self) -> None:
        self._stack.close()


def _first_words(error: BaseException) -> str:
    """What the first real error says; the SDK nests it in exception groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
