# SPDX-License-Identifier: Apache-2.0
"""The tables of the SQLite journal, and how an older file becomes one of today.

    packs        id is the cursor; at: seconds since the epoch, when it was stored, by this host's clock;
                 kind and records as in interface.Pack; digests: 16 bytes for each record (chain.py)
    checkpoints  signed notes about ranges in which not everything is there any more (chain.py)
    meta         generation; key: fingerprint of the installation's key; after: the generation of which
                 nothing could be read any more when this one was begun
    workers      heartbeats
    leads        who is elected, until when

Schema version 1 kept one record a row and no digests.
"""

from __future__ import annotations

import secrets
from typing import Any, Final

import apsw

from .._native import pack
from .chain import ChainKey

SCHEMA_VERSION: Final = 2
OLDEST_VERSION: Final = 1
APPLICATION_ID: Final = 0x54464A31  # "TFJ1": tells our file from any other SQLite file

_SCHEMA: Final = """
CREATE TABLE packs (
  id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, kind INTEGER NOT NULL, records INTEGER NOT NULL,
  body BLOB NOT NULL, digests BLOB NOT NULL
);
CREATE TABLE checkpoints (
  upto INTEGER PRIMARY KEY, start INTEGER NOT NULL, why TEXT NOT NULL, removed INTEGER NOT NULL,
  kept INTEGER NOT NULL, tail BLOB NOT NULL, fold BLOB NOT NULL, oldest_call REAL, oldest_finding REAL,
  seal BLOB NOT NULL
);
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS workers (
  name TEXT PRIMARY KEY, seen REAL NOT NULL, body TEXT NOT NULL, left INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE leads (name TEXT PRIMARY KEY, holder TEXT NOT NULL, until REAL NOT NULL) WITHOUT ROWID;
"""
_SLICE: Final = 1000

# One flipped bit can turn bytes into text, which is then not even text: whatever is stored, this gives bytes
# and numbers.
PACK_COLUMNS: Final = (
    "id, coalesce(CAST(at AS REAL), 0.0), coalesce(CAST(kind AS INTEGER), 0),"
    " coalesce(CAST(records AS INTEGER), 0), coalesce(CAST(body AS BLOB), x''),"
    " coalesce(CAST(digests AS BLOB), x'')"
)
ENTRY_COLUMNS: Final = (
    "id, coalesce(CAST(kind AS INTEGER), 0), coalesce(CAST(records AS INTEGER), 0),"
    " coalesce(CAST(body AS BLOB), x'')"
)


def make_schema(connection: apsw.Connection, key: ChainKey, generation: str = "") -> None:
    """Makes the tables in an empty file, inside the caller's transaction."""
    connection.execute(_SCHEMA)
    connection.execute(
        "INSERT INTO meta VALUES ('generation', ?), ('key', ?)",
        (generation or secrets.token_hex(8), key.fingerprint),
    )
    connection.pragma("application_id", APPLICATION_ID)
    connection.pragma("user_version", SCHEMA_VERSION)


def migrate(connection: apsw.Connection, key: ChainKey, now: float) -> None:
    """Makes a file of version 1 one of today, inside the caller's transaction. Cursors stay as they were."""
    last = last_id(connection, "records")
    make_schema(connection, key)
    previous = ChainKey.START
    cursor = 0
    while rows := _records_after(connection, cursor):
        for cursor, record in rows:
            kind, records, body = _packed(record)
            digests = key.link(previous, cursor, now, kind, body)
            previous = key.tail(previous, digests)
            connection.execute(
                "INSERT INTO packs VALUES (?, ?, ?, ?, ?, ?)", (cursor, now, kind, records, body, digests)
            )
    connection.execute("DROP TABLE records")
    connection.execute("DELETE FROM sqlite_sequence WHERE name IN ('records', 'packs')")
    connection.execute("INSERT INTO sqlite_sequence VALUES ('packs', ?)", (last,))


def table_texts() -> dict[str, str]:
    """What SQLite keeps as the text of each table."""
    texts = (text.strip().replace("IF NOT EXISTS ", "") for text in _SCHEMA.split(";") if text.strip())
    return {text.split()[2]: text for text in texts}


def meta(connection: apsw.Connection, name: str) -> str | None:
    """One value of the table of that name, None when there is none."""
    found: Any = connection.execute("SELECT CAST(value AS BLOB) FROM meta WHERE name = ?", (name,)).get
    return found.decode(errors="replace") if isinstance(found, bytes) else None


def last_id(connection: apsw.Connection, table: str = "packs") -> int:
    """The newest id ever given: also of what was pruned since."""
    # From both places, because no id may be given twice when one of them is damaged.
    given: int | None = connection.execute(
        "SELECT max(seq) FROM sqlite_sequence WHERE name = ? AND typeof(seq) = 'integer'", (table,)
    ).get
    there: int | None = connection.execute(f"SELECT max(id) FROM {table}").get
    return max(given or 0, there or 0)


def _records_after(connection: apsw.Connection, cursor: int) -> list[Any]:
    found: list[Any] = connection.execute(
        "SELECT id, body FROM records WHERE id > ? ORDER BY id LIMIT ?", (cursor, _SLICE)
    ).fetchall()
    return found


def _packed(record: bytes) -> tuple[int, int, bytes]:
    try:
        return pack([record])[0]
    except ValueError:
        # Readers will count it as unreadable, as they did before.
        return 0, 1, len(record).to_bytes(4, "little") + record
