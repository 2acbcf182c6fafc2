# SPDX-License-Identifier: Apache-2.0
"""The lab: upstream, gateway, set-up and clients as one context manager."""

import json
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import yaml

from gateway_lab.administration import Administrator, Installation, email
from gateway_lab.answer import Answer
from gateway_lab.mcp_client import McpClient
from gateway_lab.options import GatewayOptions, command, environment, plugin_document
from gateway_lab.process import LabError, Process, free_port
from gateway_lab.rpc_client import RpcClient

TRANSPORTS: Final = ("rpc", "mcp")
_UPSTREAM_START_SECONDS = 60.0


class Lab:
    """A running gateway that is set up. `with Lab(folder, options) as lab:`; leaving it stops every process.

    Not thread-safe: MCP sessions belong to the thread that made them; use a second client for parallel calls.
    """

    def __init__(self, folder: Path, options: GatewayOptions | None = None) -> None:
        """folder: an existing empty folder for the database, the logs and the state of this lab."""
        self.folder = folder
        self.options = options or GatewayOptions()
        self.port = free_port()
        self._upstream_port = free_port()
        self._config = folder / "plugins.yaml"
        self._calls = folder / "upstream-calls.jsonl"
        self._calls_read = 0
        self._upstream: Process | None = None
        self._gateway: Process | None = None
        self._administrator: Administrator | None = None
        self._installation: Installation | None = None
        self._rpc: dict[str, RpcClient] = {}
        self._mcp: dict[str, McpClient] = {}

    # Life

    def __enter__(self) -> Self:
        try:
            self.start_upstream()
            self.start_gateway()
            self._installation = self.administrator.install(self.upstream_url)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start_upstream(self) -> None:
        script = Path(__file__).with_name("upstream.py")
        arguments = [sys.executable, str(script), str(self._upstream_port), str(self._calls)]
        self._upstream = Process("upstream", arguments, folder=self.folder)
        self._upstream.wait_until_answering(self.upstream_url, seconds=_UPSTREAM_START_SECONDS)

    def start_gateway(self) -> None:
        """Starts the gateway on the database it had before, if any. LabError when it does not come up."""
        process = self.launch_gateway()
        process.wait_until_answering(f"{self.base_url}/health", seconds=self.options.start_seconds)

    def launch_gateway(self) -> Process:
        """Starts the gateway and does not wait for it: for starts that are meant to fail."""
        self._config.write_text(yaml.safe_dump(plugin_document(self.options.plugins)), encoding="utf-8")
        env = environment(self.options, folder=self.folder, config=self._config, port=self.port)
        self._gateway = Process("gateway", command(self.options, port=self.port), folder=self.folder, env=env)
        return self._gateway

    def stop_gateway(self) -> None:
        with ExitStack() as closing:
            if self._gateway is not None:
                closing.callback(self._gateway.stop)
            if self._administrator is not None:
                closing.callback(self._administrator.close)
            self.disconnect(closing)
        self._gateway = self._administrator = None

    def stop(self) -> None:
        """Ends everything this lab started; may be called twice."""
        with ExitStack() as closing:
            if self._upstream is not None:
                closing.callback(self._upstream.stop)
            closing.callback(self.stop_gateway)
        self._upstream = None

    def restart_gateway(self, options: GatewayOptions | None = None) -> None:
        """Stops and starts the gateway, with other options if given; database, state and tokens stay."""
        self.stop_gateway()
        self.options = options or self.options
        self.start_gateway()

    def disconnect(self, closing: ExitStack | None = None) -> None:
        """Closes the clients' connections; the next call opens new ones."""
        with ExitStack() as own:
            for client in (*self._rpc.values(), *self._mcp.values()):
                (closing or own).callback(client.close)
        self._rpc.clear()
        self._mcp.clear()

    # Where things are

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def upstream_url(self) -> str:
        return f"http://127.0.0.1:{self._upstream_port}/mcp"

    @property
    def state(self) -> Path:
        """The plugin's state folder."""
        return self.folder / "state"

    @property
    def database(self) -> Path:
        """The gateway's own SQLite database."""
        return self.folder / "gateway.db"

    @property
    def installation(self) -> Installation:
        if self._installation is None:
            raise LabError("the lab is not set up; enter it first")
        return self._installation

    @property
    def gateway(self) -> Process:
        if self._gateway is None:
            raise LabError("the gateway does not run")
        return self._gateway

    @property
    def upstream(self) -> Process:
        if self._upstream is None:
            raise LabError("the upstream does not run")
        return self._upstream

    @property
    def administrator(self) -> Administrator:
        if self._administrator is None:
            self._administrator = Administrator(self.base_url)
        return self._administrator

    def email(self, user: str) -> str:
        return email(user)

    def token(self, user: str, kind: str = "api") -> str:
        """kind: api | login."""
        return str(getattr(self.installation.tokens[user], kind))

    def tool(self, name: str) -> str:
        """The name the gateway lists for a tool of the upstream; a name it does not know stays as it is."""
        return self.installation.tools.get(name, name)

    # What clients do

    def call(
        self,
        user: str,
        tool: str,
        arguments: dict[str, Any] | None = None,
        *,
        transport: str = "rpc",
        kind: str = "api",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One tool call. tool: the upstream's name of it. headers: /rpc only (an MCP session has its own)."""
        if transport == "rpc":
            return self.rpc(user, kind).call(self.tool(tool), arguments or {}, headers=headers)
        if headers:
            raise ValueError("headers belong to an MCP session, not to a call: use connect(headers=...)")
        return self.mcp(user, kind).call(self.tool(tool), arguments or {})

    def rpc(self, user: str, kind: str = "api") -> RpcClient:
        token = self.token(user, kind)
        if token not in self._rpc:
            self._rpc[token] = RpcClient(self.base_url, token)
        return self._rpc[token]

    def mcp(self, user: str, kind: str = "api") -> McpClient:
        token = self.token(user, kind)
        if token not in self._mcp:
            self._mcp[token] = self.connect(token)
        return self._mcp[token]

    def connect(self, token: str, *, headers: Mapping[str, str] | None = None) -> McpClient:
        """A new MCP session with the virtual server; the caller closes it."""
        url = f"{self.base_url}/servers/{self.installation.server}/mcp"
        return McpClient(url, token, headers=headers)

    # What can be looked at afterwards

    def upstream_calls(self) -> list[dict[str, Any]]:
        """What the upstream received since this was last asked, oldest first: {time, tool, arguments}."""
        if not self._calls.exists():
            return []
        lines = self._calls.read_text(encoding="utf-8").splitlines()
        new = lines[self._calls_read :]
        self._calls_read = len(lines)
        return [json.loads(line) for line in new]

    def gateway_log(self) -> str:
        return self.gateway.log()

    def prometheus(self) -> str:
        """The gateway's Prometheus page, of whichever worker answers."""
        return str(self.administrator.request("GET", "/metrics/prometheus"))
