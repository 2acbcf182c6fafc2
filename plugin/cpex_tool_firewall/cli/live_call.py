# SPDX-License-Identifier: Apache-2.0
"""The proof of `doctor`: a real call through the running gateway must leave its record in the journal."""

import os
import re
import sys
import time
from typing import Any, Final

import httpx
import typer

from ..journal.interface import Journal, JournalError
from ..state import State, digest
from .checks import Finding, ok, problem

TOKEN_VARIABLE: Final = "TOOL_FIREWALL_TOKEN"

_ANSWER_SECONDS = 30.0
_RECORD_SECONDS = 3.0
_LOOK_SECONDS = 0.05
_UNAUTHORIZED = (401, 403)
_SUBJECT = "live call"
_VIOLATION = "plugin_error_code"
_OUR_VIOLATION = re.compile(r"\bTF_[A-Z_]+")


def read_token() -> str:
    """The token: TOOL_FIREWALL_TOKEN, else asked for on a terminal, else the first line of standard input."""
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if token:
        return token
    if sys.stdin.isatty():
        return str(typer.prompt("Token of the gateway", hide_input=True, err=True)).strip()
    return sys.stdin.readline().strip()


def check_live_call(
    url: str, tool: str, arguments: dict[str, Any], token: str, state: State, journal: Journal
) -> Finding:
    """Calls `tool` over /rpc and waits up to 3 s for the record of that very call."""
    if not token:
        return problem(_SUBJECT, "no token", f"put one into {TOKEN_VARIABLE}, or on standard input")
    target = url.rstrip("/")
    target = target if target.endswith("/rpc") else target + "/rpc"
    message = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": tool, "arguments": arguments},
    }
    try:
        cursor = journal.last()
        response = httpx.post(
            target,
            json=message,
            headers={"Authorization": f"Bearer {token}"},
            timeout=_ANSWER_SECONDS,
        )
    except JournalError as error:
        return problem(_SUBJECT, str(error), "make the journal readable first")
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        # Not the error's own text alone: it may be empty.
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return problem(
            _SUBJECT, f"{target} gave no answer ({what})", "check the address and that the gateway runs"
        )
    if response.status_code in _UNAUTHORIZED and _VIOLATION not in response.text:
        return problem(
            _SUBJECT, f"{target} refused the token ({response.status_code})", "use a valid token of a user"
        )
    return _judge(response, tool, token, state, journal, cursor)


def _judge(
    response: httpx.Response, tool: str, token: str, state: State, journal: Journal, cursor: int
) -> Finding:
    try:
        record = _wait_for_record(journal, cursor, tool, _token_digest(state, token))
    except JournalError as error:
        return problem(_SUBJECT, str(error), "make the journal readable first")
    if record is not None:
        return ok(
            _SUBJECT,
            f"the call of {tool} left a record: {record['decision']}, risk {record['risk']:.2f}, "
            f"mode {record['mode']}",
        )
    ours = _OUR_VIOLATION.search(response.text)
    if ours:
        return problem(
            _SUBJECT,
            f"the call was screened ({ours[0]}), but its record did not arrive here",
            "check that this state folder is that gateway's, and the alarms of its workers",
        )
    refusal = _refusal(response)
    if refusal:
        return problem(
            _SUBJECT,
            f"the gateway itself ended the call ({refusal}) and no record arrived, so nothing is proven",
            "name a tool that this token may call, as the gateway lists it, and the --arguments it needs; "
            "if they are right, look for the plugin in the gateway's log",
        )
    return problem(
        _SUBJECT,
        "the gateway answered, but no record arrived: calls are NOT screened",
        "check that this state folder is that gateway's, that its plugin configuration has our block "
        "(--gateway-config), and its log for the plugin's start",
    )


def _refusal(response: httpx.Response) -> str:
    """Why the gateway refused the call by itself; "" when it ran or a plugin stopped it."""
    try:
        body = response.json()
    except ValueError:
        return f"HTTP {response.status_code}"
    error = body.get("error") if isinstance(body, dict) else None
    if error is None:
        return "" if isinstance(body, dict) and "result" in body else f"HTTP {response.status_code}"
    if not isinstance(error, dict):
        return f"HTTP {response.status_code}"
    data = error.get("data")
    if isinstance(data, dict) and _VIOLATION in data:
        return ""
    return f"{error.get('code')}: {error.get('message')}"


def _wait_for_record(journal: Journal, cursor: int, tool: str, token: str) -> dict[str, Any] | None:
    from .._native import decode_record, unpack

    until = time.monotonic() + _RECORD_SECONDS
    while True:
        for entry in journal.read_since(cursor):
            cursor = entry.cursor
            for record in unpack(entry.body):
                try:
                    fields = decode_record(record)
                except ValueError:
                    continue  # of a newer release; ours is among the readable ones
                if fields["kind"] == "call" and _is_ours(fields, tool, token):
                    return fields
        if time.monotonic() >= until:
            return None
        time.sleep(_LOOK_SECONDS)


def _is_ours(fields: dict[str, Any], tool: str, token: str) -> bool:
    # The gateway lists a tool under a name of its own, made of the server's name and the tool's.
    def plain(name: str) -> str:
        return "".join(character for character in name.lower() if character.isalnum())

    return bool(plain(tool).endswith(plain(fields["tool"])) and (not token or fields["token"] == token))


def _token_digest(state: State, token: str) -> str:
    from ..caller import token_id

    jti = token_id(f"Bearer {token}")
    return digest(state.key, repr(("token", jti))) if jti else ""
