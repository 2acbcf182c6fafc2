# SPDX-License-Identifier: Apache-2.0
"""The upstream MCP server behind the gateway: `python upstream.py PORT CALLS.jsonl`, streamable HTTP at /mcp.

Every call it receives becomes one line {time, tool, arguments} in CALLS.jsonl, so a test can tell a call that
was stopped from one that only failed.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

try:
    from mcp.server.mcpserver import MCPServer  # mcp 2.x

    def run(server: "MCPServer", port: int) -> None:
        server.run("streamable-http", host="127.0.0.1", port=port)

except ImportError:  # mcp 1.x, where the class had another name and took host and port in its constructor
    from mcp.server.fastmcp import FastMCP as MCPServer

    def run(server: "MCPServer", port: int) -> None:
        server.settings.host = "127.0.0.1"
        server.settings.port = port
        server.run("streamable-http")


def build(calls: Path) -> MCPServer:
    server = MCPServer("lab")

    def note(tool: str, **arguments: Any) -> None:
        with calls.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": time.time(), "tool": tool, "arguments": arguments}) + "\n")

    @server.tool()
    def db_query(sql: str, limit: int = 10, options: dict[str, Any] | None = None) -> str:
        """Run a read-only query."""
        note("db_query", sql=sql, limit=limit, options=options)
        return f"{limit} rows for {sql[:80]}"

    @server.tool()
    def delete_records(table: str, where: str = "") -> str:
        """Delete records of a table."""
        note("delete_records", table=table, where=where)
        return f"deleted from {table}"

    @server.tool()
    def file_upload(path: str, content: str = "") -> dict[str, Any]:
        """Upload a file; the result is structured."""
        note("file_upload", path=path, characters=len(content))
        return {"path": path, "size": len(content)}

    @server.tool()
    async def http_fetch(url: str, delay: float = 0.0) -> str:
        """Fetch a page (simulated) after `delay` seconds."""
        note("http_fetch", url=url, delay=delay)
        await asyncio.sleep(delay)
        return f"body of {url}"

    @server.tool()
    def ask_model(question: str, price: float = 0.01) -> dict[str, Any]:
        """Ask a language model (simulated); the result says what it cost."""
        note("ask_model", question=question)
        return {"answer": f"about {question[:40]}", "cost": price}

    @server.tool()
    def boom(message: str = "kaput") -> str:
        """Always raises."""
        note("boom", message=message)
        raise RuntimeError(message)

    @server.tool()
    def report(period: str = "today") -> str:
        """Make a report."""
        note("report", period=period)
        return f"report of {period}"

    return server


if __name__ == "__main__":
    run(build(Path(sys.argv[2])), int(sys.argv[1]))
