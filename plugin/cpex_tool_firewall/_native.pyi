"""The scoring engine (C++). Applications use the cpex_tool_firewall package; this module is its private core.

Threads: every call keeps the GIL, so calls never run at the same time and need no lock.
Time: all times are float seconds since the epoch (UTC) and always arguments; the engine has no clock.
Errors: a wrong setting or value raises ValueError naming it. Scoring functions do not raise for any argument values.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, final

__version__: Final[str]
RECORD_VERSION: Final[int]
SIGNALS: Final[tuple[str, ...]]  # names of all signals, in the order of their registration

@final
class Caller:
    """Who calls, resolved once and reused: get it from Engine.caller(), keep it in a cache."""

    tenant: Final[str]
    user: Final[str]
    agent: Final[str]
    group: Final[str]
    session: Final[str]
    token: Final[str]

@final
class Policy:
    """What one plugin instance may set for itself: how it starts and when it acts. Get it from Engine.policy()."""

    mode: Final[str]
    threshold: Final[float]

@final
class Reason:
    """One signal's share in a verdict."""

    signal: Final[str]  # one of SIGNALS
    p: Final[float]  # how rare such a value is for this peer group, 0..1
    value: Final[float]
    baseline: Final[float]
    text: Final[str]  # one sentence with the numbers, for administrators only

@final
class Verdict:
    """What the engine says about one call."""

    ticket: Final[int]  # hand to Engine.observe(); 0 when nothing may follow (blocked)
    risk: Final[float]  # 0..1: 1/3 = 1 in 100 calls, .5 = 1 in 1,000, .667 = 1 in 10,000
    decision: Final[str]  # allow | audit (risk >= 1/3) | deny (risk >= threshold, or not inspectable)
    blocked: Final[bool]  # decision is deny and the mode in force is block
    mode: Final[str]  # the mode in force for this call
    snoozed: Final[bool]  # a snooze was in force: nothing is said, nothing stopped
    notable: Final[bool]  # decision is not allow: reasons and incident are worth reading
    uninspectable: Final[str]  # "" or why the arguments could not be inspected: depth | size | type
    incident: Final[str]  # "tf-<12 hex>", names this call in records and texts
    session_context: Final[str]  # tool called before in this session, "" at its start
    @property
    def reasons(self) -> list[Reason]: ...  # strongest first; empty for an ordinary call

@final
class Aftermath:
    """What only the end of a call showed: it would have been listed or stopped, had all been known before."""

    told: Final[bool]  # it was denied before it ran, and warned about
    risk: Final[float]
    decision: Final[str]  # audit | deny
    mode: Final[str]  # that was in force when it was checked
    snoozed: Final[bool]
    incident: Final[str]
    tool: Final[str]
    user: Final[str]
    @property
    def reasons(self) -> list[Reason]: ...  # of the signals measured at the end, strongest first

@final
class Engine:
    """Everything learned in one process. One per process and state location."""

    def __init__(
        self,
        key: bytes,  # at least 32 bytes; seeds the tables and the argument digests
        *,
        worker: int = 0,  # 1 .. 2**63-1, random per process start; marks this process's records
        burst_threshold: int = 20,
        burst_window: float = 60.0,
        half_life_days: float = 14.0,
        new_for_hours: float = 48.0,
        session_idle: float = 1800.0,
        learning_days: float = 0.0,
        max_users_per_tenant: int = 100_000,
        max_memory_mb: int = 256,
        zones: Mapping[
            str, Sequence[tuple[float, int]]
        ] = ...,  # zone name -> (from, UTC offset in seconds), ascending
        default_zone: str = "UTC",
        tenant_zones: Mapping[str, str] = ...,
        user_zones: Mapping[str, str] = ...,
        journaling: bool = False,  # True: keep records for drain()
        rate_spike_floor: float = 100.0,  # calls of a tool in an hour
        burn_spike_floor: float = 1.0,  # cost of a tool in an hour
        session_budget: float = 0.0,  # cost; 0: no limit
        day_budget: float = 0.0,  # cost of a user's day; 0: no limit
        tenant_thresholds: Mapping[str, float] = ...,
        tool_thresholds: Mapping[str, float] = ...,
        user_thresholds: Mapping[str, float] = ...,
        record_destinations: bool = True,  # hosts in clear in the records
        learn_groups: bool = False,  # peer groups by tool use, for users that are in none
    ) -> None: ...
    def caller(
        self, tenant: str, user: str, *, agent: str = "", group: str = "", session: str = "", token: str = ""
    ) -> Caller: ...  # group "" = the tenant itself is the peer group
    def policy(
        self,
        *,
        mode: str = "learning",
        threshold: float = 0.5,
        exempt_tools: Sequence[str] = ...,
        own_threshold: bool = False,  # it was said for this tool: goes before the tenant's
    ) -> Policy: ...
    def check(
        self, policy: Policy, caller: Caller, server: str, tool: str, args: object, now: float
    ) -> Verdict:
        """Scores one call before it runs, counts it in the rates, and queues its record. args: dict or None."""
    def observe(self, ticket: int, outcome: str, now: float, cost: float = ...) -> bool | Aftermath:
        """Learns from a call that ran. outcome: ok | tool_error | timeout | unreachable. cost: NaN when not known.
        False: unknown ticket (counted). True: nothing more to say."""
    def facts(self, args: object) -> dict[str, Any]:
        """What is kept of arguments: {arguments: digest in hex, facts: text for encode_call(), destinations: [host]}."""
    def drain(self, limit: int) -> list[tuple[int, int, bytes]]:
        """Takes up to `limit` records out of the queue, oldest first, as packs (kind, number of records, bytes). None is
        given twice: what could not be stored is for the caller to keep."""
    def note(self, action: str, value: str, now: float) -> None:
        """Queues a control record of this worker about itself: "gap" (records lost) or "clock" (seconds it jumped)."""
    def apply(self, packs: Sequence[bytes]) -> int:
        """Feeds packs of the journal; returns how many records were new. This worker's own records and those seen before
        are skipped, unreadable ones are counted, not raised."""
    read_digest: Final[int]
    """Of everything apply() was given: equal wherever the same packs were read in the same order. 0: unknown."""
    def forget_digest(self) -> None:
        """For an engine that does not read from the beginning: read_digest stays 0."""
    def snapshot(self, label: str) -> bytes:
        """Everything learned, as bytes: a fresh engine that restores them and then applies what came later scores as this
        one does. The same state gives the same bytes. label: at most 4096 bytes, to be found again."""
    def restore(self, data: bytes) -> str:
        """Takes over a snapshot and returns its label. ValueError when it is damaged, of a newer release, of another key,
        or when this engine is not fresh; the engine is then as it was. Other settings than those it was made with are
        fine: see native/journal/snapshot.h."""
    def mode_in_force(
        self, policy: Policy, *, tenant: str = "", user: str = "", tool: str = "", now: float = 0.0
    ) -> str: ...
    def modes(self) -> list[dict[str, Any]]:
        """Control records in force, most general first: {scope: {tenant, tool, user}, mode, since, by, why}."""
    def snoozes(self) -> list[dict[str, Any]]:
        """Snoozes, most general first: {scope: {tenant, tool, user}, until, first, by, why}; some may have run out."""
    def news(self, tenant: str = "", user: str = "") -> list[dict[str, Any]]:
        """What was first seen in a call worth listing and waits for an operator, by tenant, user, time: {tenant, user,
        id, kind: tool | step | argument, what: address | host | account | "", tool, from, since, risk,
        state: listed | held | rejected, until (s, of a held one)}. "" means all."""
    def summary(self) -> dict[str, Any]:
        """{calls, users, tools, tenants, memory_bytes, since, last, in_flight, decisions: {allow, audit, deny}}; since and last in s,
        0 before the first call. Counts applied records too."""
    def principals(self) -> list[dict[str, Any]]:
        """{tenant, user, group, calls, first, last, bytes (of memory)} of every learned principal."""
    def baseline(self, tenant: str, user: str) -> dict[str, Any] | None:
        """What was learned of one principal: {tenant, user, group, group_from (configuration | learned | tenant), zone, calls, first, last,
        tools: [{tool, server, count, share}], steps: [{from, to, count}] (from "": start of a session),
        hours: [24] (on how many days there was a call in that local hour),
        held: [{kind: tool | step | skip | argument, tool, from, until}],
        signals: {frequency: {usual_60s, high_60s, usual_600s, ...}, burst: {record_60s, days_over_limit, exempt},
        novelty: {recent_calls, recent_new}}}. Counts are decayed. None for an unknown principal."""
    def counters(self) -> dict[str, int]:
        """Monotonic counts: verdicts by decision and mode, bounds reached, unpaired posts, records dropped or unreadable."""
    def metrics(self) -> dict[str, Any]:
        """{verdicts: {(decision, mode): n}, risk_buckets: [(le, cumulative n), ..., (inf, n)], risk_sum: float}: for Prometheus."""

@final
class ModelCopier:
    """Makes copies of a pydantic model with one field of their own and fresh empty lists; see fast_result.py."""

    def __init__(self, model: Any, field: str, lists: Iterable[str]) -> None: ...
    def __call__(self, value: Any) -> Any: ...

def screener(
    *,
    engine: Engine,
    policy: Policy,
    make_result: Callable[[dict[str, Any]], Any],
    label: str,
    handover: str,
    ordinary: Mapping[str, dict[str, Any]],
    notable: Mapping[str, dict[str, Any]],
) -> Callable[[Caller, str, str, object, float, dict[str, Any]], Any]:
    """A function screen(caller, server, tool, args, now, state) that checks a call, stores its ticket in `state` under
    `handover`, and gives `make_result({label: metadata})`; or the Verdict, where somebody must be told: decision deny
    outside learning mode. `ordinary` and `notable` are metadata templates by mode."""

def snapshot_label(data: bytes) -> str:
    """The label of a snapshot, without the key and therefore unchecked. ValueError when it is none of a known format."""

def decode_record(record: bytes) -> dict[str, Any]:
    """{kind: "call" | "outcome" | "control", ts, worker, seq, ...}; ValueError when it is not a record of a known version."""

def encode_control(
    *,
    ts: float,
    worker: int,
    seq: int,
    action: str,
    tenant: str,
    tool: str,
    user: str,
    value: str,
    by: str,
    why: str,
) -> bytes:
    """A control record; native/journal/record.h says which actions there are."""

def encode_call(
    *,
    ts: float,
    worker: int,
    seq: int,
    tenant: str,
    user: str,
    agent: str = "",
    group: str = "",
    session: str = "",
    token: str = "",
    server: str = "",
    tool: str,
    blocked: bool = False,
    arguments: str = "",  # digest, 16 hex digits; "" for none
    facts: str = "",
    destinations: Iterable[str] = ...,
) -> bytes:
    """A call record for history that was not seen live (imports, tests)."""

def encode_outcome(*, ts: float, worker: int, seq: int, outcome: str, cost: float = ...) -> bytes:
    """What became of the call with the same worker and seq."""

def pack(records: Sequence[bytes]) -> list[tuple[int, int, bytes]]:
    """Records as packs (kind, number of records, bytes), in order, each of one kind and of at most 256 records."""

def unpack(pack: bytes) -> list[bytes]:
    """The records of a pack. ValueError when it is cut short; whether a record is intact, decode_record() says."""

def record_class(record: bytes) -> int:
    """0 ordinary, 1 finding, 2 control: see journal.interface.Kind."""

@final
class Chain:
    """The chain of digests over stored records; see native/journal/chain.h."""

    def __init__(self, key: bytes) -> None: ...  # the installation's key, at least 32 bytes
    def link(self, previous: bytes, cursor: int, pack: bytes) -> bytes:
        """16 bytes for each record of the pack; the last 16 are `previous` for the next pack. The first `previous` is 16
        zero bytes. ValueError for a damaged pack."""

@final
class Replay:
    """Streams events from a JSON Lines file (plain or gzip) through a fresh engine, learning as it goes."""

    def __init__(
        self, engine: Engine, policy: Policy, source: str, target: str, *, skip_bad: bool = False
    ) -> None: ...
    def run(self, progress: Callable[[int, int, int], None] | None = None) -> dict[str, Any]:
        """progress(bytes read, bytes in all, events) about every 100 ms. Result: {events, skipped, seconds, verdicts: {..}}.
        ValueError("line 17: ...") at a bad line unless skip_bad."""
