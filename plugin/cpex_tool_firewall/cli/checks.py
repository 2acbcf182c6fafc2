# SPDX-License-Identifier: Apache-2.0
"""What `doctor` looks at on this machine, one function a subject. Each returns findings and raises nothing.

A finding is ok, a problem with what to do, or skipped with the reason.
"""

import importlib
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Literal

from ..config import ConfigError, load
from ..gateway_view import KIND
from ..journal.interface import JournalError, Worker
from ..liveness import state_of
from ..state import State, StateError, open_state
from .plugin_config import FileError, plugin_entries, read_document

FAIL_VARIABLE: Final = "PLUGINS_FAIL_ON_PLUGIN_ERROR"
CONFIG_VARIABLE: Final = "PLUGINS_CONFIG_FILE"

_HOOKS = ("tool_pre_invoke", "tool_post_invoke")
_BLOCKING_MODES = ("sequential", "enforce")
_OTHER_BLOCKING_MODES = (*_BLOCKING_MODES, "enforce_ignore_error", "concurrent")
_DEFAULT_PRIORITY = 100
_OLDEST_PYTHON, _NEWEST_PYTHON = (3, 11), (3, 13)
_OLDEST_CPEX, _TOO_NEW_CPEX = (0, 1, 3), (0, 2)
_TRUE = ("true", "1", "yes", "on", "t", "y")


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the list."""

    subject: str
    status: Literal["ok", "problem", "skipped"]
    text: str
    advice: str = ""

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return asdict(self)


def ok(subject: str, text: str) -> Finding:
    """All is well."""
    return Finding(subject, "ok", text)


def problem(subject: str, text: str, advice: str) -> Finding:
    """Something is wrong; advice says what to do."""
    return Finding(subject, "problem", text, advice)


def skipped(subject: str, text: str) -> Finding:
    """Not looked at, and why."""
    return Finding(subject, "skipped", text)


def check_platform() -> Finding:
    """Python and machine."""
    text = f"Python {platform.python_version()} on {sys.platform} {platform.machine()}"
    if not _OLDEST_PYTHON <= sys.version_info[:2] <= _NEWEST_PYTHON:
        return problem("platform", text, "use Python 3.11, 3.12 or 3.13")
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return problem("platform", text, "use Linux on x86_64")
    return ok("platform", text)


def check_engine() -> Finding:
    """The compiled extension."""
    try:
        native = importlib.import_module("cpex_tool_firewall._native")
    except ImportError as error:
        return problem(
            "engine",
            f"the compiled engine cannot be imported: {error}",
            "reinstall for this Python: pip install --force-reinstall --no-deps cpex-tool-firewall",
        )
    return ok("engine", f"version {native.__version__}, records of version {native.RECORD_VERSION}")


def check_storage() -> Finding:
    """The SQLite the journal runs on."""
    try:
        sqlite = importlib.import_module("cpex_tool_firewall.journal.sqlite")
        found = sqlite.apsw.sqlite_lib_version()
        sqlite.check_sqlite(found)
    except ImportError as error:
        return problem("storage", f"apsw cannot be imported: {error}", "pip install --upgrade apsw")
    except JournalError as error:
        return problem("storage", str(error), "pip install --upgrade apsw")
    return ok("storage", f"SQLite {found}")


def check_cpex() -> Finding:
    """The plugin framework."""
    found = _version_of("cpex")
    if found is None:
        return problem("cpex", "not installed for this Python", "run doctor with the Python of the gateway")
    numbers = _numbers(found)
    if not _OLDEST_CPEX <= numbers < _TOO_NEW_CPEX:
        return problem("cpex", f"version {found}", 'pip install "cpex>=0.1.3,<0.2"')
    return ok("cpex", f"version {found}")


def check_gateway() -> Finding:
    """The gateway itself, where it is installed beside us."""
    found = _version_of("mcp-contextforge-gateway")
    if found is None:
        return skipped(
            "gateway", "not installed for this Python; run doctor with the gateway's to check it too"
        )
    return ok("gateway", f"version {found}")


def check_plugin() -> Finding:
    """What the gateway will import."""
    module, _, name = KIND.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # noqa: BLE001 - whatever an import raises stops the gateway's import as well
        return problem(
            "plugin", f"{KIND} cannot be imported: {error}", "fix this first: the gateway imports the same"
        )
    return ok("plugin", f"{found.__module__}.{found.__qualname__} can be imported")


def check_config(path: Path | None, *, needed: bool) -> list[Finding]:
    """The gateway's plugin configuration. needed: no live worker has shown that it works."""
    subject = "configuration"
    if path is None:
        text = f"no file given (--gateway-config or {CONFIG_VARIABLE})"
        if not needed:
            return [skipped(subject, text + "; live workers have loaded theirs")]
        return [problem(subject, text, "name the file that the gateway reads")]
    try:
        document = read_document(path)
    except FileError as error:
        return [
            problem(subject, str(error), "correct the file; the gateway does not start screened without it")
        ]
    entries = plugin_entries(document)
    blocks = [entry for entry in entries if entry.get("kind") == KIND]
    if len(blocks) != 1:
        return [_wrong_number_of_blocks(path, entries, len(blocks))]
    return [
        ok(subject, f"{path} has our block, named {blocks[0].get('name')!r}"),
        *_check_block(blocks[0], entries),
    ]


def _wrong_number_of_blocks(path: Path, entries: Iterable[Mapping[str, Any]], count: int) -> Finding:
    if count:
        return problem("configuration", f"{path}: {count} plugins of kind {KIND}", "keep one")
    similar = [str(entry.get("kind")) for entry in entries if "firewall" in str(entry.get("kind")).lower()]
    hint = f" (found: {', '.join(similar)})" if similar else ""
    return problem(
        "configuration",
        f"{path}: no plugin of kind {KIND}{hint}",
        "add the block from manifests/gateway/, with this kind",
    )


def _check_block(block: Mapping[str, Any], entries: list[Mapping[str, Any]]) -> list[Finding]:
    findings = []
    hooks = block.get("hooks") or []
    missing = [hook for hook in _HOOKS if hook not in hooks]
    if missing:
        findings.append(
            problem("hooks", f"not listed: {', '.join(missing)}", f"hooks: [{', '.join(_HOOKS)}]")
        )
    else:
        findings.append(ok("hooks", " and ".join(_HOOKS)))
    mode = str(block.get("mode", "sequential"))
    if mode in _BLOCKING_MODES:
        findings.append(ok("plugin mode", mode))
    else:
        what = "calls are not screened" if mode == "disabled" else "nothing can be blocked"
        findings.append(problem("plugin mode", f"{mode}: {what}", "mode: sequential"))
    on_error = str(block.get("on_error", "fail"))
    if on_error != "fail":
        findings.append(
            problem("on_error", f"{on_error}: calls pass unscreened after an error", "on_error: fail")
        )
    findings.append(_check_priority(block, entries))
    if block.get("conditions"):
        findings.append(
            problem(
                "conditions", "only calls that match them are screened", "remove them, unless that is meant"
            )
        )
    try:
        load(block.get("config"))
        findings.append(ok("settings", "valid"))
    except ConfigError as error:
        findings.append(
            problem("settings", "; ".join(error.problems), "correct them; the gateway refuses to start")
        )
    return findings


def _check_priority(block: Mapping[str, Any], entries: list[Mapping[str, Any]]) -> Finding:
    own = block.get("priority", _DEFAULT_PRIORITY)
    if not isinstance(own, int):
        return problem("priority", f"{own!r} is not a whole number", "priority: 900")
    blockers = [
        entry
        for entry in entries
        if entry is not block
        and entry.get("mode", "sequential") in _OTHER_BLOCKING_MODES
        and "tool_pre_invoke" in (entry.get("hooks") or [])
    ]
    beside = [str(entry.get("name")) for entry in blockers if entry.get("mode") == "concurrent"]
    later = [
        str(entry.get("name"))
        for entry in blockers
        if entry.get("mode") != "concurrent" and _priority_of(entry) >= own
    ]
    if later:
        return problem(
            "priority",
            f"{own}: {', '.join(later)} may block after us, and we would have learned from those calls",
            "give us the highest number, 900, so that we see only calls that the others let pass",
        )
    if beside:
        # The framework runs these after all sequential plugins, whatever their number: nothing to be done
        # here.
        return ok(
            "priority",
            f"{own}; calls that {', '.join(beside)} (concurrent) blocks are learned from all the same",
        )
    return ok("priority", f"{own}, after every other plugin that can block")


def _priority_of(entry: Mapping[str, Any]) -> float:
    priority = entry.get("priority", _DEFAULT_PRIORITY)
    return priority if isinstance(priority, int) else _DEFAULT_PRIORITY


def check_state(folder: str | None) -> tuple[Finding, State | None]:
    """The state folder, its rights and the key."""
    try:
        state = open_state(folder, create=False)
    except StateError as error:
        advice = "run doctor as the gateway's user or as root, with the gateway's --state"
        return problem("state", str(error), advice), None
    return ok("state", f"{state.folder} is private and writable, the key is there"), state


def check_workers(workers: list[Worker], own_version: str, now: float) -> list[Finding]:
    """The running gateway, by what its workers last said."""
    live = [worker for worker in workers if state_of(worker, now) == "alive"]
    silent = [worker for worker in workers if state_of(worker, now) in ("silent", "dead")]
    findings = []
    if live:
        modes = sorted({str(worker.body.get("mode")) for worker in live})
        findings.append(ok("workers", f"{len(live)} alive, mode {', '.join(modes)}"))
    else:
        findings.append(
            problem(
                "workers",
                "no running gateway has reported here",
                "start it; if it runs, it does not load the plugin",
            )
        )
    if silent:
        names = ", ".join(f"{_name(worker)} for {now - worker.seen:.0f} s" for worker in silent)
        findings.append(
            problem(
                "workers", f"silent: {names}", "a worker hangs or was killed; restart it if it still runs"
            )
        )
    findings.append(_check_fail_switch(live))
    others = sorted({str(worker.body.get("version")) for worker in live} - {own_version})
    if others:
        text = f"this is {own_version}, but workers run {', '.join(others)}"
        findings.append(problem("versions", text, "restart the gateway after an upgrade, or use its Python"))
    elif live:
        findings.append(ok("versions", f"{own_version} here and in every worker"))
    findings += [
        problem("alarm", f"{_name(worker)}: {alarm}", "see the gateway's log for when it began")
        for worker in live
        for alarm in worker.body.get("alarms") or []
    ]
    return findings


def _check_fail_switch(live: list[Worker]) -> Finding:
    subject = "fail switch"
    advice = f"set {FAIL_VARIABLE}=true for the gateway: without it, it starts unscreened when a plugin fails"
    if live:
        wrong = [_name(worker) for worker in live if worker.body.get("fail_on_plugin_error") is not True]
        if wrong:
            return problem(subject, f"{FAIL_VARIABLE} is not true in {', '.join(wrong)}", advice)
        return ok(subject, f"{FAIL_VARIABLE} is true in every live worker")
    value = os.environ.get(FAIL_VARIABLE)
    if value is None or value.strip().lower() not in _TRUE:
        what = "not set" if value is None else repr(value)
        return problem(subject, f"{FAIL_VARIABLE} is {what} here, and there is no worker to ask", advice)
    return ok(subject, f"{FAIL_VARIABLE} is true here; there is no worker to ask")


def _name(worker: Worker) -> str:
    return f"worker {worker.body.get('pid')} on {worker.body.get('host')}"


def _version_of(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _numbers(text: str) -> tuple[int, ...]:
    numbers = []
    for part in text.split("."):
        digits = "".join(character for character in part if character.isdigit())
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)
