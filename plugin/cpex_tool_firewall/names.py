# SPDX-License-Identifier: Apache-2.0
"""Names of users, tools and tenants, made fit for the engine and for the log.

The engine and the journal hold UTF-8. A Python string may hold lone surrogates, which UTF-8 cannot: JSON lets
a client send them. Such a name is not refused (that would let its owner through unseen) and not shortened
(that would join two names into one): it is escaped, one to one.
"""

from __future__ import annotations

# Starts every escaped name. A name that starts with it by nature is escaped too, so no two names ever meet.
_ESCAPED = "\N{REPLACEMENT CHARACTER}"


def encodable(name: str) -> str:
    """`name` itself if UTF-8 can hold it; otherwise an escaped form that no other name has."""
    if not name.startswith(_ESCAPED):
        try:
            name.encode("utf-8")
        except UnicodeEncodeError:
            pass  # escaped below
        else:
            return name
    doubled = name.replace("\\", "\\\\")
    return _ESCAPED + doubled.encode("utf-8", "backslashreplace").decode("utf-8")


def printable(name: str) -> str:
    """`name` for one line of a log: control characters, line ends and surrogates are shown as escapes."""
    return name if name.isprintable() else ascii(name)[1:-1]
