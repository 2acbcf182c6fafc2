# SPDX-License-Identifier: Apache-2.0
"""A process that appends numbered batches to a journal, for the tests: FOLDER NAME BATCHES SIZE.

Prints the number of records so far after each append that returned: what was printed was acknowledged.
"""

import sys
import time
from pathlib import Path

from cpex_tool_firewall.journal.interface import JournalError
from cpex_tool_firewall.journal.sqlite import SqliteJournal


def main() -> None:
    """Appends `NAME:n` records; waits and tries again when the journal is busy, as the real writer does."""
    folder, name, batches, size = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    journal = SqliteJournal(folder)
    done = 0
    while done < batches * size:
        batch = [f"{name}:{n}".encode() for n in range(done, done + size)]
        try:
            journal.append(batch)
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
