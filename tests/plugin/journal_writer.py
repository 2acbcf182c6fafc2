# SPDX-License-Identifier: Apache-2.0
"""A process that appends numbered calls to a journal, for the tests: FOLDER NAME BATCHES SIZE.

The calls are those of the user NAME, with seq from 0 on; read them with numbers_of(). Prints how many there
are so far after each append that returned: what was printed was acknowledged. The key of the journal is KEY.
"""

import sys
import time
import zlib
from collections.abc import Iterable
from pathlib import Path

from cpex_tool_firewall._native import decode_record, encode_call, pack
from cpex_tool_firewall.journal.interface import JournalError, Pack
from cpex_tool_firewall.journal.sqlite import SqliteJournal

KEY = bytes(range(32))


def packs(name: str, start: int, count: int) -> list[Pack]:
    """The calls start, start + 1, ... of NAME."""
    worker = zlib.crc32(name.encode()) + 1
    records = [
        encode_call(ts=1_790_000_000.0 + n, worker=worker, seq=n, tenant="t", user=name, tool="db_query")
        for n in range(start, start + count)
    ]
    return [Pack(*made) for made in pack(records)]


def numbers_of(name: str, records: Iterable[bytes]) -> list[int]:
    """Which calls of NAME are among the records, in their order."""
    decoded = map(decode_record, records)
    return [fields["seq"] for fields in decoded if fields["user"] == name]


def main() -> None:
    """Appends batches; waits and tries again when the journal is busy, as the real writer does."""
    folder, name, batches, size = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    journal = SqliteJournal(folder, KEY)
    done = 0
    while done < batches * size:
        try:
            journal.append(packs(name, done, size))
        except JournalError as error:
            if "locked" not in str(error):
                raise
            time.sleep(0.005)
            continue
        done += size
        print(done, flush=True)
    journal.close()


if __name__ == "__main__":
    main()
