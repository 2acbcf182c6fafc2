# SPDX-License-Identifier: Apache-2.0
"""Processes the lab starts: each in a session of its own, so that stopping one also ends its workers."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

_STOP_SECONDS = 15.0
_ORPHAN_SECONDS = 1.0


class LabError(RuntimeError):
    """The lab itself failed (a process did not start, set-up was refused): no finding about the plugin."""


def free_port() -> int:
    """A TCP port that was free on 127.0.0.1 a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Process:
    """One child process with its log file. stop() ends the whole process group and may be called twice."""

    def __init__(
        self, name: str, command: Sequence[str], *, folder: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.log_path = folder / f"{name}.log"
        with self.log_path.open("a", encoding="utf-8") as log:
            self._popen = subprocess.Popen(
                list(command),
                cwd=folder,
                env=None if env is None else dict(env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._popen.poll()

    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def log_tail(self, lines: int = 30) -> str:
        return "\n".join(self.log().splitlines()[-lines:])

    def wait_until_answering(self, url: str, *, seconds: float) -> None:
        """Returns when `url` answers at all; LabError with the log's end when it does not."""
        deadline = time.monotonic() + seconds
        with httpx.Client(timeout=2.0, trust_env=False) as client:
            while time.monotonic() < deadline:
                if self.exit_code is not None:
                    raise LabError(
                        f"{self.name} exited with {self.exit_code}; end of its log:\n{self.log_tail()}"
                    )
                try:
                    client.get(url)
                    return
                except httpx.TransportError:
                    time.sleep(0.1)
        raise LabError(
            f"{self.name} does not answer at {url} after {seconds:g} s; end of its log:\n{self.log_tail()}"
        )

    def wait_for_exit(self, seconds: float) -> int:
        """The exit code; LabError when it still runs after `seconds`."""
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{self.name} still runs after {seconds:g} s:\n{self.log_tail()}") from error

    def stop(self, *, seconds: float = _STOP_SECONDS) -> None:
        """SIGTERM to the group; SIGKILL to its rest after `seconds`, or soon after its leader ended."""
        self._signal_group(signal.SIGTERM)
        deadline = time.monotonic() + seconds
        leader_ended = False
        while time.monotonic() < deadline and self._group_alive():
            if not leader_ended and self.exit_code is not None:
                leader_ended = True
                # Helper processes of a worker that was killed do not listen to SIGTERM.
                deadline = min(deadline, time.monotonic() + _ORPHAN_SECONDS)
            time.sleep(0.05)
        self._signal_group(signal.SIGKILL)
        self._popen.wait()

    def kill(self) -> None:
        """SIGKILL to the group: a crash."""
        self._signal_group(signal.SIGKILL)
        self._popen.wait()

    def _signal_group(self, number: signal.Signals) -> None:
        if self._group_alive():
            os.killpg(self.pid, number)

    def _group_alive(self) -> bool:
        self._popen.poll()  # reaps the leader, which would otherwise stay in the group as a zombie
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        return True
