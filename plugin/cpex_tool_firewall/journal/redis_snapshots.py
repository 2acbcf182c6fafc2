# SPDX-License-Identifier: Apache-2.0
"""Snapshots in Redis: pieces under keys of their own, which count only once all are there and named.

Pieces that nobody named vanish by themselves. Whoever reads or writes here waits as long as it takes, on a
connection of its own.
"""

from __future__ import annotations

import json
import secrets
from typing import Any, Final

from .interface import SNAPSHOTS_KEPT, JournalError, SnapshotInfo
from .redis_connection import Server, as_json
from .redis_scripts import PUT_SNAPSHOT, Keys

_PIECE: Final = 1024 * 1024
_UNNAMED_SECONDS: Final = 3600


def save_snapshot(server: Server, keys: Keys, generation: str, cursor: int, body: bytes, now: float) -> None:
    """Saves one, and deletes what is not needed any more. Raises JournalError."""
    name = secrets.token_hex(8)
    pieces = range(0, len(body), _PIECE)
    for number, start in enumerate(pieces):
        piece = body[start : start + _PIECE]
        server.run(("SET", keys.chunk(name, number), piece, "EX", _UNNAMED_SECONDS))
    described = as_json({"id": name, "at": now, "size": len(body), "pieces": len(pieces)})
    chunks = [keys.chunk(name, number) for number in range(len(pieces))]
    replaced = server.script(
        PUT_SNAPSHOT, [keys.meta, keys.snapshots, *chunks], [generation, f"{generation}:{cursor}", described]
    )
    if replaced is not None:
        _unlink(server, keys, json.loads(replaced))
    _clean(server, keys, generation)


def all_snapshots(server: Server, keys: Keys, generation: str) -> list[SnapshotInfo]:
    """Those of this generation, newest first."""
    found = []
    for name, told in _described(server, keys).items():
        whose, _, cursor = name.partition(":")
        if whose == generation:
            found.append(SnapshotInfo(int(cursor), told["at"], told["size"]))
    return sorted(found, reverse=True)


def load_snapshot(server: Server, keys: Keys, generation: str, cursor: int) -> bytes:
    """The body of one. Raises JournalError."""
    told = server.run(("HGET", keys.snapshots, f"{generation}:{cursor}"))[0]
    if told is None:
        raise JournalError(f"{server.where}: no snapshot at cursor {cursor}")
    described = json.loads(told)
    pieces = []
    for number in range(described["pieces"]):
        piece = server.run(("GET", keys.chunk(described["id"], number)))[0]
        if piece is None:
            raise JournalError(f"{server.where}: a piece of the snapshot at cursor {cursor} is gone")
        pieces.append(piece)
    return b"".join(pieces)


def _clean(server: Server, keys: Keys, generation: str) -> None:
    keep = {info.cursor for info in all_snapshots(server, keys, generation)[:SNAPSHOTS_KEPT]}
    for name, told in _described(server, keys).items():
        whose, _, cursor = name.partition(":")
        if whose != generation or int(cursor) not in keep:
            server.run(("HDEL", keys.snapshots, name))
            _unlink(server, keys, told)


def _unlink(server: Server, keys: Keys, told: dict[str, Any]) -> None:
    if told["pieces"]:
        server.run(("UNLINK", *(keys.chunk(told["id"], number) for number in range(told["pieces"]))))


def _described(server: Server, keys: Keys) -> dict[str, Any]:
    flat = server.run(("HGETALL", keys.snapshots))[0]
    try:
        return {
            bytes(name).decode(): json.loads(told) for name, told in zip(flat[::2], flat[1::2], strict=True)
        }
    except ValueError as error:
        raise JournalError(f"{server.where}: {keys.snapshots} was changed and cannot be read") from error
