# SPDX-License-Identifier: Apache-2.0
"""One engine, one journal and one journal thread for each process and state folder.

The gateway builds one plugin instance per team and tool, rebuilds each every 30 s, and shuts old ones down
while their hooks still run. So nothing that lasts belongs to an instance: instances get the process's Runtime
from acquire() and give nothing back. It ends with the process.

Nothing starts when this module is imported: a gateway that forks its workers imports it in the parent. After
a fork the child leaves the parent's runtime alone, and the instances it inherited make a new one at their
next call.

The journal thread takes the engine's new records to the journal, and everybody's records from the journal to
the engine: calls of other workers, and changes of mode. The call path waits for none of this, except that a
refusal waits up to 50 ms for its own record (see Runtime.recorded).
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import functools
import importlib.metadata
import logging
import math
import os
import platform
import secrets
import socket
import threading
import time
import weakref
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from cpex.framework.settings import settings as cpex_settings  # type: ignore[import-untyped]

from ._native import Engine
from .alarms import Alarms
from .caller import CallerResolver
from .config import Settings
from .engines import build_engine
from .freshness import TAIL_ALARM, TAIL_ALARM_TEXT, Freshness
from .journal.interface import HEARTBEAT_SECONDS, Heartbeat, Journal, JournalError, JournalLost, Kind
from .journal.opening import open_journal
from .keeper import Keeper
from .outbox import Outbox, urgent
from .placement import Lookout, Placed, Placement, may_block
from .restoring import Restored, label_of, restore
from .state import State, StateError, digest, find_folder, open_state

POLL_SECONDS: Final = 0.02
RECORD_WAIT_SECONDS: Final = 0.05

_BATCH: Final = 512  # records taken from the engine at once: the event loop waits for the GIL that long
_READ_BATCH: Final = 64  # packs
_STORE_SECONDS: Final = 0.1  # in one turn: what others did must be read meanwhile
_READ_BATCHES: Final = 16  # in one turn: others may write faster than this process reads
_CURSORS_KEPT: Final = 4096  # for comparing with other workers what was read
_CLOCK_JUMP_SECONDS: Final = 60.0
_LOST_ALARM_SECONDS: Final = 600.0
_WRITE: Final = "journal-write"
_READ: Final = "journal-read"
_HEAL: Final = "journal-heal"
_LONGEST_PAUSE_SECONDS: Final = 0.2  # between tries while the journal fails: so late at most do others know
_CLOSE_SECONDS: Final = 5.0
_FORK_SECONDS: Final = 5.0  # a fork waits so long at most for the journal thread to let go of the journal
_RETRY_OPEN_SECONDS: Final = (
    25.0  # a little less than the life of an instance, so that each new one tries once
)

logger = logging.getLogger(__name__)


class Instance(Placed, Protocol):
    """What a runtime knows of a plugin instance that uses it."""

    def detach(self) -> None:
        """Forget the runtime; the next call will acquire one. Called in a forked child."""


class Runtime:
    """The engine of a process, and its journal. Get one from acquire().

    Its thread owns the journal. The engine is called from the event loops and from the thread; it keeps the
    GIL, so the calls never overlap.
    """

    def __init__(self, settings: Settings, state: State, journal: Journal, alarms: Alarms) -> None:
        self.settings = settings
        self.folder: Path = state.folder
        self.alarms = alarms
        self.worker = secrets.randbelow(2**63 - 1) + 1
        self.started = time.time()
        self.instances: weakref.WeakSet[Any] = weakref.WeakSet()
        self._journal = journal
        self._name = f"{socket.gethostname()}:{os.getpid()}:{self.worker:016x}"
        restored = _restore(
            journal, lambda: build_engine(settings, state.key, worker=self.worker, journaling=True)
        )
        self.engine = restored.engine
        self.callers = CallerResolver(self.engine.caller, functools.partial(digest, state.key), settings)
        self._cursor = restored.cursor
        self._records_read = restored.records
        self._digests: OrderedDict[int, str] = OrderedDict()
        self._note_digest()
        self._say_restored(restored.refused, restored.lost)
        self._outbox = Outbox(self.engine)
        self._unreadable = 0  # records, as far as the alarm knows
        self._dropped = 0  # records of which the journal was told that they are missing
        self._keeper = Keeper(self._name, journal, settings, state, alarms)
        self.freshness = Freshness()
        self._clock_offset = time.time() - time.monotonic()
        self._waiting: deque[tuple[asyncio.AbstractEventLoop, asyncio.Future[bool]]] = deque()
        self._wake = threading.Event()
        self._turning = threading.Lock()  # held by the thread while it works
        self._forking = False  # somebody waits for it
        self._lost = False  # the journal needs heal()
        self._history_missing = False  # it was begun anew, and does not hold what this process learned
        self._stopping = False
        self._failing: dict[str, tuple[float, float]] = {}  # by step: pause, and monotonic end of it
        self._next_beat = 0.0
        self._lookout = Lookout()
        self._placement = Placement()
        self._next_look = 0.0
        self._thread = threading.Thread(target=self._run, name="tool-firewall-journal", daemon=True)
        self._thread.start()

    async def recorded(self, timeout: float = RECORD_WAIT_SECONDS) -> bool:
        """Waits until everything recorded so far is safe on disk. False when it is not within `timeout`
        seconds.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[bool] = loop.create_future()
        self._waiting.append((loop, done))
        self._wake.set()
        try:
            return await asyncio.wait_for(done, timeout)
        except TimeoutError:
            return False

    def close(self) -> None:
        """Stores what is left and ends the thread. Waits 5 s at most; a second call does nothing."""
        self._stopping = True
        self._wake.set()
        self._thread.join(_CLOSE_SECONDS)
        if self._thread.is_alive():
            logger.error(
                "tool firewall: the journal thread did not end within %g s; its last records may be missing",
                _CLOSE_SECONDS,
            )

    def hold(self) -> bool:
        """Keeps the journal thread from working, and the journal closed, until let_go(). False when the
        thread does not stop soon.
        """
        self._forking = True
        if not self._turning.acquire(timeout=_FORK_SECONDS):
            self._forking = False
            return False
        try:
            self._journal.suspend()
        except Exception as error:  # noqa: BLE001  nobody would call let_go()
            logger.error("tool firewall: closing the journal before a fork failed: %s", error)
        return True

    def let_go(self) -> None:
        """Ends hold()."""
        self._forking = False
        self._turning.release()

    def abandon(self) -> None:
        """In a forked child: this is the parent's. Nothing of it may be used, closed or freed here."""
        # SQLite must not even close a connection that it inherited, and the end of the interpreter would
        # close it. One reference too many keeps all of this from ever being freed; freeing the engine would
        # also copy its pages.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self))
        for instance in list(self.instances):
            instance.detach()

    # --- the journal thread ---

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(POLL_SECONDS)
            self._wake.clear()
            while self._forking:
                time.sleep(0.001)
            with self._turning:
                self._turn()
        with self._turning:
            self._turn()
            self._keeper.end()
            try:
                self._journal.leave(self._name)
            except JournalError as error:
                logger.error("tool firewall: %s", error)
            self._journal.close()

    def _turn(self) -> None:
        """One round of the thread. A step that fails is an alarm, does not keep back the others, and is tried
        again, ever less often while it fails.
        """
        self._watch_clock()
        waited_for = bool(self._waiting)
        if self._lost:
            self._try(_HEAL, self._heal, now=self._stopping)
        self._try(_WRITE, self._store, now=waited_for or self._stopping)
        self._try(_READ, self._read)
        self._watch_tail()
        self._try("journal-history", self._save_history)
        self._try("placement", self._look_when_due)
        self._try("journal-heartbeat", self._beat_when_due)
        self._try("journal-keeping", lambda: self._keep(busy=waited_for))

    def _try(self, cause: str, step: Callable[[], None], *, now: bool = False) -> None:
        """Does a step unless it failed a moment ago; `now`: in any case."""
        pause, until = self._failing.get(cause, (POLL_SECONDS, 0.0))
        if time.monotonic() < until and not now:
            return
        try:
            step()
        except JournalLost as error:
            self._note_lost(error)
            what = f"{error}. Calls go on; their records wait in memory until it works again"
        except JournalError as error:
            what = f"{error}. Calls go on; their records wait in memory until it works again"
        except Exception as error:  # a dead thread would be worse than any error
            what = f"unexpected {type(error).__name__} in the journal thread"
            logger.debug("tool firewall: %s", cause, exc_info=error)
        else:
            self._failing.pop(cause, None)
            self.alarms.clear(cause)
            return
        self._failing[cause] = (min(pause * 2, _LONGEST_PAUSE_SECONDS), time.monotonic() + pause)
        self.alarms.report(cause, what)

    def _note_lost(self, error: JournalLost) -> None:
        if not self._lost:
            self._lost = True
            self._failing.pop(_HEAL, None)
            self._wake.set()  # heals at once
            self.alarms.report("journal-lost", str(error), lasts=_LOST_ALARM_SECONDS)

    def _heal(self) -> None:
        """The history is not what it was: saves what can be saved, and stores again what may be missing."""
        generation, cursor = self._journal.generation, self._cursor
        self._cursor = self._journal.heal(cursor)
        self._lost = False
        self._outbox.store_again()
        # Others may have read more of what is gone, or the same in another order: nothing to compare now.
        self.engine.forget_digest()
        if self._journal.generation != generation or self._cursor < cursor:
            self._history_missing = True
        self._digests.clear()
        self._note_digest()
        self._failing = dict.fromkeys(self._failing, (POLL_SECONDS, 0.0))  # all of it may be tried at once
        self._next_beat = 0.0
        logger.warning("tool firewall: the journal works again in %s", self._journal.where)

    def _save_history(self) -> None:
        """Saves what this process has learned, because the journal no longer holds what it learned from."""
        if not (self._history_missing or self._keeper.history_missing):
            return
        last = self._journal.last()
        # Where an older copy was put back, the next cursors are far ahead, and so should this snapshot be: or
        # those from before, which hold less, would count as newer.
        nothing_new = not self._journal.read_since(self._cursor, 1)
        cursor = max(self._cursor, last) if nothing_new else self._cursor
        self._journal.save_snapshot(cursor, self.engine.snapshot(label_of(self._journal, cursor)))
        self._history_missing = self._keeper.history_missing = False
        self.alarms.clear("snapshot")

    def _store(self) -> None:
        """Takes the engine's new records to the journal, and answers those who wait for theirs."""
        waiting = len(self._waiting)
        # What comes while this runs is for the next turn: under steady load there would be no end.
        due = self._outbox.records()
        until = math.inf if self._stopping else time.monotonic() + _STORE_SECONDS
        answered = True
        stored = False
        try:
            while due > 0 and (packs := self._outbox.take(_BATCH)):
                self._journal.append(packs, durable=waiting > 0 or urgent(packs))
                due -= self._outbox.stored()
                if due > 0 and (self._forking or time.monotonic() > until):
                    answered = False
                    self._wake.set()  # the rest with the next turn, at once
                    return
            stored = True
            self.freshness.stored()
        finally:
            if answered:
                self.freshness.failing = not stored
                for _ in range(waiting):
                    _answer(*self._waiting.popleft(), recorded=stored)
        self._note_gap()

    def _note_gap(self) -> None:
        """What the queue could not hold while nothing could be stored is missing: the journal must say so."""
        if _WRITE not in self._failing:
            return
        counters = self.engine.counters()
        dropped = counters["records_dropped"] + counters["findings_lost"]
        if dropped > self._dropped:
            self.engine.note("gap", str(dropped - self._dropped), time.time())
            self._dropped = dropped

    def _watch_clock(self) -> None:
        now = time.time()
        offset = now - time.monotonic()
        jump, self._clock_offset = offset - self._clock_offset, offset
        if abs(jump) > _CLOCK_JUMP_SECONDS:
            self.engine.note("clock", f"{jump:+.0f}", now)
            self.alarms.report(
                "clock",
                f"the clock of this host jumped by {jump:+.0f} s, or the machine slept; rates and hours "
                "around now may look unusual",
                lasts=_LOST_ALARM_SECONDS,
            )

    def _read(self) -> None:
        """Feeds the engine everything in the journal after the cursor."""
        told = False
        for _ in range(_READ_BATCHES):
            entries = self._journal.read_since(self._cursor, _READ_BATCH)
            for entry in entries:
                told |= self.engine.apply((entry.body,)) > 0 and entry.kind == Kind.CONTROL
                self._cursor = entry.cursor
                self._records_read += entry.records
                self._note_digest()
            if len(entries) < _READ_BATCH:
                self.freshness.read()
                break
            if self._waiting or self._forking:  # a decision that waits for its record goes first
                break
        else:
            self._wake.set()  # the rest at once
        if told:
            self._next_beat = 0.0  # an operator waits to hear that this worker follows

    def _watch_tail(self) -> None:
        if self.freshness.stale():
            self.alarms.report(TAIL_ALARM, TAIL_ALARM_TEXT)
        else:
            self.alarms.clear(TAIL_ALARM)

    def _note_digest(self) -> None:
        digest_now = self.engine.read_digest
        self._digests[self._cursor] = f"{digest_now:016x}" if digest_now else ""
        while len(self._digests) > _CURSORS_KEPT:
            self._digests.popitem(last=False)

    def _keep(self, *, busy: bool) -> None:
        self._keeper.turn(self._cursor, self._records_read, self._digests, busy=busy)

    def _say_restored(self, refused: list[str], lost: str) -> None:
        if lost:
            self.alarms.report("baseline-lost", "; ".join([lost, *refused]))
        elif refused:
            self.alarms.report(
                "snapshot-refused",
                f"{'; '.join(refused)}. Read what came before and after it instead; nothing is lost",
                lasts=_LOST_ALARM_SECONDS,
            )

    def _look_when_due(self) -> None:
        """Looks how the gateway runs the plugin; whatever is wrong with that is the alarm `override`."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + HEARTBEAT_SECONDS
        now = time.time()
        self._placement = self._lookout.look(
            self._in_use(), lambda run: may_block(self.engine, self.settings, run, now)
        )
        self._placement.tell(self.alarms)

    def _in_use(self) -> list[Instance]:
        """The instances that the gateway has not shut down."""
        while True:
            try:
                return [instance for instance in self.instances if instance.in_use]
            except RuntimeError:  # the event loop added one meanwhile
                continue

    def _beat_when_due(self) -> None:
        if time.monotonic() < self._next_beat:
            return
        self._pass_on_notes()
        beat = self.heartbeat()
        self._watch_unreadable(beat["counters"]["records_unreadable"])
        self._journal.beat(self._name, beat)
        self._next_beat = time.monotonic() + HEARTBEAT_SECONDS

    def _pass_on_notes(self) -> None:
        """What is wrong although the journal works: settings of its server, clocks, what it missed."""
        if notes := self._journal.notes():
            self.alarms.report("journal-notes", "; ".join(notes))
        else:
            self.alarms.clear("journal-notes")

    def _watch_unreadable(self, count: int) -> None:
        if count > self._unreadable:
            self._unreadable = count
            self.alarms.report(
                "records-unreadable",
                f"{count} records of the journal could not be read since this worker started: damaged, or of "
                "a newer release. They are skipped and kept; run tool-firewall verify",
                lasts=_LOST_ALARM_SECONDS,
            )

    def heartbeat(self) -> Heartbeat:
        """What this process says about itself, for `doctor` and the console."""
        now = time.time()
        return Heartbeat(
            pid=os.getpid(),
            host=socket.gethostname(),
            started=self.started,
            last_seen=now,
            version=_version("cpex-tool-firewall"),
            gateway=_version("mcp-contextforge-gateway"),
            cpex=_version("cpex"),
            python=platform.python_version(),
            fail_on_plugin_error=bool(cpex_settings.fail_on_plugin_error),
            mode=self.engine.mode_in_force(self.engine.policy(mode=self.settings.mode), now=now),
            settings=self.settings.model_dump(mode="json"),
            cursor=self._cursor,
            generation=self._journal.generation,
            digest=self._digests.get(self._cursor, ""),
            instances=len(self._in_use()),
            plugin_mode=self._placement.plugin_mode,
            plugin_priority=self._placement.plugin_priority,
            counters=self.engine.counters() | event_counts(),
            alarms=self.alarms.active(),
        )


def _restore(journal: Journal, build: Callable[[], Engine]) -> Restored:
    try:
        return restore(journal, build)
    except JournalLost as error:  # a part that nobody had read since it was damaged
        logger.error("tool firewall: %s", error)
        journal.heal(0)
        return restore(journal, build)


def _answer(loop: asyncio.AbstractEventLoop, done: asyncio.Future[bool], *, recorded: bool) -> None:
    def answer() -> None:
        if not done.done():  # it may have stopped waiting
            done.set_result(recorded)

    with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
        loop.call_soon_threadsafe(answer)


@functools.cache
def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


class _Process:
    """What this process has: base settings, runtimes by folder, and what went wrong when opening one."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.base: Settings | None = None
        self.runtimes: dict[Path, Runtime] = {}
        self.failures: dict[Path, tuple[float, StateError]] = {}
        self.hooked = False
        self._held: list[Runtime] = []

    def before_fork(self) -> None:
        """Waits until no thread of ours is inside SQLite, whose locks would stay held in the child for ever,
        and closes the journals: see Journal.suspend.
        """
        self.lock.acquire()
        self._held = [runtime for runtime in self.runtimes.values() if runtime.hold()]
        if len(self._held) < len(self.runtimes):
            logger.error(
                "tool firewall: the journal did not answer for %g s while this process forked; the child may "
                "hang when it opens its own",
                _FORK_SECONDS,
            )

    def after_fork_in_parent(self) -> None:
        for runtime in self._held:
            runtime.let_go()
        self._held = []
        self.lock.release()

    def after_fork_in_child(self) -> None:
        self.lock = threading.Lock()
        self._held = []
        alarms.start_anew()
        events.clear()
        inherited = list(self.runtimes.values())
        self.runtimes.clear()
        for runtime in inherited:
            runtime.abandon()


alarms: Final = Alarms()
"""The alarms of this process."""

events: Final[Counter[str]] = Counter()
"""What happened in the hooks of this process besides verdicts."""

_process: Final = _Process()


def base_settings() -> Settings | None:
    """The first good configuration of this process, None before there was one."""
    return _process.base


def set_base_settings(settings: Settings) -> Settings:
    """Makes `settings` the base of this process unless there is one; returns the base."""
    with _process.lock:
        if _process.base is None:
            _process.base = settings
        return _process.base


def acquire(settings: Settings) -> Runtime:
    """The runtime of this process for the state folder in `settings`; starts it when it is the first.

    Starting reads the newest snapshot and the journal after it. Raises StateError when the folder, the key
    or the journal cannot be used; that is remembered for 25 s, so that many instances do not all wait for the
    same broken disk.
    """
    folder = find_folder(settings.state)
    with _process.lock:
        runtime = _process.runtimes.get(folder)
        if runtime is None:
            failed = _process.failures.get(folder)
            if failed is not None and time.monotonic() - failed[0] < _RETRY_OPEN_SECONDS:
                raise failed[1]
            try:
                runtime = _start(settings)
            except StateError as error:
                _process.failures[folder] = (time.monotonic(), error)
                raise
            _process.failures.pop(folder, None)
            _process.runtimes[folder] = runtime
        return runtime


def running() -> list[Runtime]:
    """The runtimes of this process."""
    with _process.lock:
        return list(_process.runtimes.values())


def event_counts() -> dict[str, int]:
    """A copy of `events`."""
    return dict(events)


def shut_down() -> None:
    """Closes all runtimes of this process and forgets its base settings. At the end of the process, and in
    tests.
    """
    with _process.lock:
        runtimes = list(_process.runtimes.values())
        _process.runtimes.clear()
        _process.failures.clear()
        _process.base = None
    for runtime in runtimes:
        for instance in list(runtime.instances):
            instance.detach()
        runtime.close()


def _start(settings: Settings) -> Runtime:
    state = open_state(settings.state)
    try:
        journal = open_journal(settings, state)
    except JournalError as error:
        raise StateError(str(error)) from error
    try:
        runtime = Runtime(settings, state, journal, alarms)
    except JournalError as error:
        journal.close()
        raise StateError(str(error)) from error
    except BaseException:
        journal.close()
        raise
    if not _process.hooked:
        _process.hooked = True
        os.register_at_fork(
            before=_process.before_fork,
            after_in_parent=_process.after_fork_in_parent,
            after_in_child=_process.after_fork_in_child,
        )
        atexit.register(shut_down)
    return runtime
