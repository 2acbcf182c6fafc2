# SPDX-License-Identifier: Apache-2.0
"""Names of users and tools, made fit for the log.

A name is otherwise taken as it is. It may hold what UTF-8 cannot, lone surrogates, because JSON lets a client
send them: the engine and the journal keep those as the three bytes of Python's "surrogatepass", so no two
names meet.
"""

from __future__ import annotations


def printable(name: str) -> str:
    """`name` for one line of a log: control characters, line ends and surrogates are shown as escapes."""
    return name if name.isprintable() else ascii(name)[1:-1]
