# SPDX-License-Identifier: Apache-2.0
"""Real Redis servers for tests, each in a folder of its own, on a unix socket and a free port.

REDIS_SERVER in the environment names another server program, such as valkey-server. Without any, the tests
that need one fail: tools/system_packages installs it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import redis
from cpex_tool_firewall.journal.redis import RedisJournal
from cpex_tool_firewall.journal.redis_connection import RedisOptions
from journals import KEY

START_SECONDS = 20.0


class RedisServer:
    """One server process. options: lines of its configuration, as {"maxmemory": "10mb"}."""

    def __init__(self, folder: Path, **options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self.socket = f"/tmp/tf-redis-{os.getpid()}-{self.port}.sock"  # a socket's path is at most 107 bytes
        self.options = {name.replace("_", "-"): value for name, value in options.items()}
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """Over the unix socket."""
        return f"unix://{self.socket}"

    @property
    def tcp(self) -> str:
        """Over TCP."""
        return f"redis://127.0.0.1:{self.port}"

    def start(self, **changed: str) -> None:
        """Starts it (again), and waits until it answers."""
        program = (
            os.environ.get("REDIS_SERVER") or shutil.which("redis-server") or shutil.which("valkey-server")
        )
        assert program, "these tests need redis-server: run tools/system_packages build"
        self.options |= {name.replace("_", "-"): value for name, value in changed.items()}
        options = {
            "port": str(self.port),
            "unixsocket": self.socket,
            "dir": str(self.folder),
            "bind": "127.0.0.1",
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
            "repl-diskless-sync-delay": "0",
        } | self.options
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen([program, *arguments], stdout=log, stderr=log)
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                with contextlib.closing(self.client()) as client:
                    client.ping()
                return
            except redis.exceptions.AuthenticationError:
                return  # it answers, that is enough
            except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
                assert self._process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < until, "redis-server does not answer"
                time.sleep(0.02)

    def client(self, **options: Any) -> redis.Redis:
        """A client for the test itself."""
        return redis.Redis(unix_socket_path=self.socket, **options)

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def freeze(self) -> None:
        """SIGSTOP: connections are accepted by the kernel, and nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def forget(self) -> None:
        """Deletes what it has on disk; it must not be running."""
        for path in self.folder.iterdir():
            if path.name != "log":
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def stop(self) -> None:
        """At the end of a test."""
        if self._process is not None and self._process.poll() is None:
            self.thaw()
            self.kill()
        Path(self.socket).unlink(missing_ok=True)

    def options_for(self, **options: Any) -> RedisOptions:
        """How a journal finds it."""
        return RedisOptions(**({"url": self.url} | options))

    def journal(self, folder: Path, key: bytes = KEY, **options: Any) -> RedisJournal:
        """A journal of a worker whose spool is in `folder`; options of RedisJournal, or of RedisOptions with
        `at`.
        """
        folder.mkdir(exist_ok=True)
        at = options.pop("at", {})
        return RedisJournal(self.options_for(**at), folder, key, **({"seconds": 1.0} | options))


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
