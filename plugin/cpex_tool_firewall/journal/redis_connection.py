# SPDX-License-Identifier: Apache-2.0
"""One connection to a Redis or Valkey server: short time limits, a breaker, errors that say what to do.

A command gets COMMAND_SECONDS, and after a failure nothing is tried for a while: whoever asks meanwhile is
told at once. With `patient` off, connecting again happens in a thread of its own, so that the caller never
waits for a server that hangs.

A journal's keys live on one node of a cluster. So one connection is enough there too: it follows the node
that the server names.
"""

from __future__ import annotations

import json
import os
import random
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from .interface import JournalError
from .redis_address import PASSWORD_VARIABLE
from .redis_scripts import LOST, Script

if TYPE_CHECKING:
    from ..config import Settings

CONNECT_SECONDS: Final = 0.2
COMMAND_SECONDS: Final = 0.05

_PAUSES: Final = (0.25, 1.0)  # s, between tries: the first and the longest
_END_SECONDS: Final = 2.0  # for a thread that is just connecting to stop
_HOPS: Final = 5  # from node to node of a cluster
_DEFAULT_PORT: Final = 6379

Argument = str | bytes | int | float


@dataclass(frozen=True, slots=True)
class RedisOptions:
    """Where the server is, and how to log in. Holds no password: only where it is found."""

    url: str
    username: str | None = None
    password_file: str | None = None
    prefix: str = "tool-firewall"
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    cluster: bool = False

    @classmethod
    def of(cls, settings: Settings) -> RedisOptions:
        """As the settings say."""
        assert settings.redis_url is not None
        values = {field.name: getattr(settings, f"redis_{field.name}") for field in fields(cls)}
        return cls(**values)

    def password(self) -> str | None:
        """Read at each connection, so that it can be changed. Raises JournalError."""
        if self.password_file is None:
            return os.environ.get(PASSWORD_VARIABLE)
        path = Path(self.password_file)
        try:
            if path.stat().st_mode & 0o007:
                raise JournalError(f"{path}: others may read the password of Redis; run: chmod o= {path}")
            return path.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise JournalError(
                f"{path}: the password of Redis cannot be read ({error.strerror}); redis_password_file names "
                "it"
            ) from error


class Server:
    """The node of a Redis server that holds a journal's keys. Used by one thread at a time.

    patient: connects in the caller's thread, and waits as long as the server needs to answer, up to `seconds`
    for each answer. Not patient: see above. Nothing is opened before the first use.
    """

    def __init__(self, options: RedisOptions, *, seconds: float = COMMAND_SECONDS, patient: bool) -> None:
        self.where = f"{options.url}#{options.prefix}"
        self.fresh = False
        """A new connection: what is behind it is to be looked at. The user of this sets it back."""
        self._options = options
        self._seconds = seconds
        self._patient = patient
        self._redis = _load_redis()
        self._connection: Any = None
        self._node: tuple[str, int] | None = None  # that the cluster named
        self._others: list[tuple[str, int]] = []  # nodes of the cluster, for when that one is gone
        self._pause = 0.0
        self._retry_at = 0.0
        self._why = ""
        self._attempt: _Attempt | None = None

    def ready(self) -> None:
        """Connects unless it is; see `fresh`. Raises JournalError."""
        self._ready()

    def run(self, *commands: Sequence[Argument]) -> list[Any]:
        """The replies of some commands, sent together. Raises JournalError for the first that failed."""
        connection = self._ready()
        replies: list[Any] = []
        errors = self._redis.exceptions
        try:
            connection.send_packed_command(connection.pack_commands(commands))
            for _ in commands:
                try:
                    replies.append(connection.read_response())
                except errors.ResponseError as error:
                    replies.append(error)
        except (errors.RedisError, OSError) as error:
            raise self._failed(error) from error
        self._pause = 0.0
        for reply in replies:
            if isinstance(reply, errors.ResponseError):
                raise self._refused(reply) from reply
        return replies

    def script(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """The reply of a script. The server may have forgotten it: then it is sent."""
        tail = (str(len(keys)), *keys, *arguments)
        try:
            return self.run(("EVALSHA", script.digest, *tail))[0]
        except ScriptMissing:
            return self.run(("EVAL", script.text, *tail))[0]

    def connected(self) -> bool:
        """Whether the last command worked."""
        return self._connection is not None

    def close(self) -> None:
        """Ends the connection and what is being connected; the next use begins anew."""
        if self._attempt is not None:
            found = self._attempt.end()
            self._attempt = None
            if found is not None:
                found.disconnect()
        self._drop()
        self._pause = self._retry_at = 0.0

    def blame(self, error: JournalError) -> None:
        """The connection works, but what is behind it cannot be used: another try after a pause."""
        self._drop()
        self._wait_a_while(str(error))

    # --- connecting ---

    def _ready(self) -> Any:
        if self._connection is not None:
            return self._connection
        if self._attempt is not None:
            found = self._attempt.found
            if found is None:
                raise JournalError(self._attempt.why)
            self._attempt = None
            return self._take(found)
        if self._patient or not self._why:
            if time.monotonic() < self._retry_at:
                raise JournalError(self._why)
            try:
                return self._take(self._connect())
            except (JournalError, OSError, self._redis.exceptions.RedisError) as error:
                raise self._failed(error) from error
        self._attempt = _Attempt(self._connect, self._said, self._retry_at - time.monotonic(), self._why)
        self._attempt.start()
        raise JournalError(self._why)

    def _said(self, error: Exception) -> str:
        """An error of connecting in our words."""
        if isinstance(error, JournalError | OSError | self._redis.exceptions.RedisError):
            return str(error) if isinstance(error, JournalError) else self._explained(error)
        return f"{self.where}: unexpected {type(error).__name__} while connecting"

    def _take(self, connection: Any) -> Any:
        self._connection = connection
        self.fresh = True
        return connection

    def _connect(self) -> Any:
        """A connection to the node that has our keys. Raises errors of redis, OSError and JournalError."""
        for _ in range(_HOPS):
            connection = self._made()
            try:
                connection.connect()
                connection.send_command("PING")  # the kernel connects to a server that hangs, too
                connection.read_response()
                if not self._options.cluster:
                    return connection
                connection.send_command("CLUSTER", "SLOTS")
                self._note_nodes(connection.read_response())
                connection.send_command("EXISTS", f"{{{self._options.prefix}}}:meta")
                connection.read_response()
                return connection
            except self._redis.exceptions.MovedError as error:
                connection.disconnect()
                self._follow(error)
            except BaseException as error:
                connection.disconnect()
                if self._node is not None and isinstance(
                    error, OSError | self._redis.exceptions.ConnectionError
                ):
                    self._node = self._others.pop(0) if self._others else None
                raise
        raise JournalError(f"{self.where}: the nodes of the cluster send us from one to the other")

    def _made(self) -> Any:
        options, module = self._options, self._redis.connection
        parts = urlsplit(options.url)
        common: dict[str, Any] = {
            "username": options.username,
            "password": options.password(),
            "socket_timeout": self._seconds,
            "socket_connect_timeout": max(CONNECT_SECONDS, self._seconds),
            "retry": self._redis.retry.Retry(self._redis.backoff.NoBackoff(), 0),
            "protocol": 2,
        }
        if parts.scheme == "unix" and self._node is None:
            return module.UnixDomainSocketConnection(path=unquote(parts.path), **common)
        host, port = self._node or (parts.hostname or "", parts.port or _DEFAULT_PORT)
        common |= {"host": host, "port": port}
        if parts.path.strip("/") and parts.scheme != "unix":
            common["db"] = int(parts.path.strip("/"))
        if parts.scheme != "rediss":
            return module.Connection(**common)
        return module.SSLConnection(
            ssl_ca_certs=options.ca_file,
            ssl_certfile=options.cert_file,
            ssl_keyfile=options.key_file,
            ssl_check_hostname=True,
            **common,
        )

    def _follow(self, moved: Any) -> None:
        """Notes the node that has our keys."""
        if not self._options.cluster:
            raise JournalError(
                f"{self.where}: this server is a node of a cluster; set redis_cluster: true"
            ) from moved
        seed = urlsplit(self._options.url).hostname or "localhost"
        self._node = (moved.host or (self._node[0] if self._node else seed), moved.port)

    def _note_nodes(self, slots: Any) -> None:
        found = []
        for _, _, *nodes in slots:
            for host, port, *_ in nodes:
                if host:
                    found.append((bytes(host).decode("ascii", "replace"), int(port)))
        self._others = [node for node in dict.fromkeys(found) if node != self._node]

    # --- failing ---

    def _failed(self, error: Exception) -> JournalError:
        self._drop()
        made = error if isinstance(error, JournalError) else JournalError(self._said(error))
        self._wait_a_while(str(made))
        return made

    def _wait_a_while(self, why: str) -> None:
        first, longest = _PAUSES
        self._pause = min(max(self._pause * 2, first), longest)
        self._retry_at = time.monotonic() + self._pause * random.uniform(0.75, 1.0)
        self._why = why

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()

    def _refused(self, error: Any) -> JournalError:
        """What an error reply means; the connection is given up where another server may do better."""
        errors, text = self._redis.exceptions, str(error)
        if isinstance(error, errors.NoScriptError):
            return ScriptMissing(text)
        if text.startswith(LOST):
            return HistoryChanged(text)
        if isinstance(error, errors.MovedError):
            self._drop()
            try:
                self._follow(error)
            except JournalError as refused:
                self._wait_a_while(str(refused))
                return refused
            self._why = f"{self.where}: the keys moved to another node of the cluster; going there"
            return JournalError(self._why)
        if isinstance(error, errors.ReadOnlyError | errors.MasterDownError | errors.ClusterDownError):
            return self._failed(error)
        return JournalError(self._explained(error))

    def _explained(self, error: Exception) -> str:
        name = type(error).__name__
        text = re.sub(r" script: .*", "", str(error)) or name
        if "unauthenticated" in text:  # how a server answers to a long command before any login
            return f"{self.where}: {_ADVICE['AuthenticationError']} ({text})"
        if "CERTIFICATE_VERIFY_FAILED" in text:
            return f"{self.where}: the server's certificate is not trusted; check redis_ca_file ({text})"
        first = text.split(" ", 1)[0]
        advice = _ADVICE.get(first) or next(
            (words for kind in type(error).__mro__ if (words := _ADVICE.get(kind.__name__))),
            "see the server's message",
        )
        return f"{self.where}: {advice} ({text})"


class ScriptMissing(JournalError):
    """The server does not have the script that EVALSHA named; nothing was done."""


class HistoryChanged(JournalError):
    """A script found another generation than the caller's; nothing was done."""


class _Attempt(threading.Thread):
    """Tries to connect until it works, beside whoever needs the connection."""

    def __init__(
        self, connect: Callable[[], Any], explain: Callable[[Exception], str], pause: float, why: str
    ) -> None:
        super().__init__(name="tool-firewall-redis", daemon=True)
        self.found: Any = None
        """The connection, once there is one."""
        self.why = why
        """What was wrong the last time."""
        self._connect = connect
        self._explain = explain
        self._pause = pause
        self._ended = threading.Event()

    def run(self) -> None:
        first, longest = _PAUSES
        while not self._ended.wait(max(self._pause, 0.0)):
            try:
                self.found = self._connect()
                return
            except Exception as error:  # noqa: BLE001 - a thread that ends without a word would be worse
                self.why = self._explain(error)
            self._pause = min(max(self._pause * 2, first), longest) * random.uniform(0.75, 1.0)

    def end(self) -> Any:
        """Stops trying; the connection that was made meanwhile, if any."""
        self._ended.set()
        self.join(_END_SECONDS)
        return self.found


_ADVICE: Final = {
    # by the first word of the server's answer, else by the name of redis-py's error, most special first
    "WRONGTYPE": "a key of ours holds something else; another program uses the same prefix: change "
    "redis_prefix",
    "MISCONF": "the server cannot save to its disk and takes no writes; free space there",
    "NOREPLICAS": "the server has too few replicas and takes no writes; bring them back, or lower "
    "min-replicas-to-write",
    "OutOfMemoryError": "the server's memory is full (maxmemory) and it takes no writes; raise maxmemory, or "
    "keep records for fewer days",
    "ReadOnlyError": "this server is a replica and takes no writes; point redis_url at the primary",
    "AuthenticationError": "the server refused the login; check redis_username and redis_password_file (or "
    f"{PASSWORD_VARIABLE})",
    "NoPermissionError": "this user may not do that; give it all commands for keys of redis_prefix "
    "(ACL: ~{prefix}:* +@all)",
    "BusyLoadingError": "the server is still loading its data; it will answer by itself",
    "MasterDownError": "the server has lost its primary; it will answer when there is one",
    "ClusterDownError": "the cluster has lost the node of our keys; it will answer when there is one",
    "TryAgainError": "the cluster is moving our keys; it will answer by itself",
    "AskError": "the cluster is moving our keys; it will answer by itself",
    "TimeoutError": "the server does not answer in time; it hangs, is overloaded, or the network drops "
    "packets",
    "ConnectionError": "the server cannot be reached; is it running, and is redis_url right?",
    "OSError": "the server cannot be reached; is it running, and is redis_url right?",
}


def _load_redis() -> Any:
    try:
        import redis
        import redis.backoff
        import redis.connection
        import redis.exceptions
        import redis.retry
    except ImportError as error:
        raise JournalError(
            "journal: redis needs the package redis, which is not installed: "
            "pip install 'cpex-tool-firewall[redis]'"
        ) from error
    return redis


def text_of(value: object) -> str:
    """A reply as text, "" for none."""
    return (
        value.decode("utf-8", "replace") if isinstance(value, bytes) else "" if value is None else str(value)
    )


def parsed_info(reply: bytes) -> dict[str, str]:
    """The reply of INFO."""
    lines = (line.partition(":") for line in text_of(reply).splitlines())
    return {name: value.strip() for name, _, value in lines if value}


def as_json(value: object) -> str:
    """Compact JSON."""
    return json.dumps(value, separators=(",", ":"))
