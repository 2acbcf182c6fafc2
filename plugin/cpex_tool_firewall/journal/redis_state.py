# SPDX-License-Identifier: Apache-2.0
"""Whether a Redis server is set up so that it keeps what it confirms, and what its clock says."""

from __future__ import annotations

import time
from typing import Final

from .interface import JournalError
from .redis_connection import Server, parsed_info

_EVERY_SECONDS: Final = 5.0
_OLDEST: Final = (7, 0)
_SKEW_SECONDS: Final = 2.0
_SECTIONS: Final = ("server", "replication", "memory", "persistence")


class ServerState:
    """Of one server, as it was when last looked at."""

    def __init__(self, server: Server) -> None:
        self.notes: list[str] = []
        """What is wrong with it, for people."""
        self.replicas = 0
        self._server = server
        self._next = 0.0

    def look_when_due(self) -> None:
        """Looks every few seconds."""
        if time.monotonic() >= self._next:
            self.look()

    def look(self) -> None:
        """Asks the server. Raises JournalError when it cannot be used at all."""
        self._next = time.monotonic() + _EVERY_SECONDS
        where = self._server.where
        begun = time.time()
        try:
            *sections, clock = self._server.run(*(("INFO", name) for name in _SECTIONS), ("TIME",))
        except JournalError as error:
            if not self._server.connected():
                raise
            self.notes = [
                f"{where}: it could not be checked whether the server keeps what it confirms: {error}. See "
                "to it that maxmemory-policy is noeviction and appendonly is yes"
            ]
            return
        ended = time.time()
        info = {name: value for reply in sections for name, value in parsed_info(reply).items()}
        self._check_version(info)
        self.replicas = int(info.get("connected_slaves", 0))
        self.notes = [
            f"{where}: {problem}"
            for problem in (
                _eviction(info),
                _durability(info),
                _replicas(info),
                _skew(int(clock[0]) + int(clock[1]) / 1e6, begun, ended),
            )
            if problem
        ]

    def _check_version(self, info: dict[str, str]) -> None:
        text = info.get("redis_version", "")
        version = tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
        if version and version < _OLDEST:
            raise JournalError(
                f"{self._server.where}: Redis {text} is too old; Redis 7.0 or Valkey is needed"
            )


def _eviction(info: dict[str, str]) -> str:
    policy = info.get("maxmemory_policy", "")
    if policy in ("", "noeviction") or policy.startswith("volatile-"):
        return ""
    return (
        f"its maxmemory-policy is {policy}: when memory runs short it deletes the journal; set it to "
        "noeviction"
    )


def _durability(info: dict[str, str]) -> str:
    if info.get("aof_enabled", "1") == "1":
        wrong = info.get("aof_last_write_status", "ok")
        return (
            ""
            if wrong == "ok"
            else f"it cannot write its append-only file ({wrong}): look at the server's disk"
        )
    return (
        "its appendonly is no: after a restart what it confirmed since its last dump is gone; set "
        "appendonly yes"
    )


def _replicas(info: dict[str, str]) -> str:
    offset = int(info.get("master_repl_offset", 0))
    behind = []
    for number in range(int(info.get("connected_slaves", 0))):
        told = dict(part.partition("=")[::2] for part in info.get(f"slave{number}", "").split(","))
        if told.get("state") == "online" and int(told.get("lag", 0)) > _EVERY_SECONDS * 2:
            behind.append(
                f"{told.get('ip')}:{told.get('port')} ({offset - int(told.get('offset', 0))} bytes)"
            )
    return f"replicas lag: {', '.join(behind)}; a failover now would lose records" if behind else ""


def _skew(theirs: float, begun: float, ended: float) -> str:
    """The difference that the time for asking cannot explain."""
    skew = theirs - begun if theirs < begun else theirs - ended if theirs > ended else 0.0
    if abs(skew) <= _SKEW_SECONDS:
        return ""
    return (
        f"its clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the one of this host; hours "
        "and bursts are judged wrongly while clocks differ: run NTP on both"
    )
