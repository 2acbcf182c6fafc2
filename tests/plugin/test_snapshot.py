# SPDX-License-Identifier: Apache-2.0
"""Snapshots through the bindings; tests/native/snapshot_test.cc tests what is in them."""

import random

import pytest
from cpex_tool_firewall._native import Engine, Policy, encode_call, encode_outcome, pack, snapshot_label

KEY = b"k" * 32
START = 1_772_409_600.0 + 9 * 3600  # a Monday, 09:00 UTC


def records(count: int, *, seed: int = 1, first: int = 1) -> list[bytes]:
    """Calls of eight users with the numbers `first` and up, most of them ended."""
    choose = random.Random(seed)
    found = []
    for seq in range(first, first + count):
        user = choose.randrange(8)
        ts = START + seq * 20.0
        found.append(
            encode_call(
                ts=ts,
                worker=5,
                seq=seq,
                tenant=f"t{user % 2}",
                user=f"u{user}",
                group="g" if user % 3 else "",
                session=f"s{seq // 50}",
                server="up",
                tool=f"tool{(user + choose.randrange(4 if seq % 7 else 40)) % 40}",
            )
        )
        if seq % 9:
            found.append(encode_outcome(ts=ts + 1, worker=5, seq=seq, outcome="ok"))
    return found


def feed(engine: Engine, some: list[bytes]) -> None:
    engine.apply([body for _, _, body in pack(some)])


def risks(engine: Engine, now: float) -> list[float]:
    policy: Policy = engine.policy()
    found = []
    for turn in range(80):
        user = turn % 8
        caller = engine.caller(f"t{user % 2}", f"u{user}", group="g" if user % 3 else "", session="s")
        verdict = engine.check(policy, caller, "up", f"tool{turn % 41}", {}, now + turn)
        found += [verdict.risk, *(reason.p for reason in verdict.reasons)]
    return found


@pytest.fixture
def learned() -> Engine:
    engine = Engine(KEY)
    feed(engine, records(1500))
    return engine


def test_a_restored_engine_scores_the_same(learned: Engine) -> None:
    restored = Engine(KEY)
    assert restored.restore(learned.snapshot("journal:17")) == "journal:17"
    more = records(500, seed=2, first=1501)
    feed(learned, more)
    feed(restored, more)
    assert restored.read_digest == learned.read_digest
    assert restored.summary() == learned.summary()
    assert restored.principals() == learned.principals()
    assert restored.baseline("t1", "u1") == learned.baseline("t1", "u1")
    assert restored.snapshot("") == learned.snapshot("")
    now = START + 2001 * 20.0
    assert risks(restored, now) == risks(learned, now)


def test_what_the_snapshot_holds_is_not_applied_again(learned: Engine) -> None:
    restored = Engine(KEY)
    restored.restore(learned.snapshot(""))
    feed(restored, records(1500))
    assert restored.summary() == learned.summary()


def test_the_label_is_read_without_an_engine(learned: Engine) -> None:
    assert snapshot_label(learned.snapshot("ünïcode \udcff")) == "ünïcode \udcff"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda data: b"", "damaged"),
        (lambda data: b"not a snapshot" * 10, "damaged"),
        (lambda data: data[:-1], "damaged"),
        (lambda data: data + b"\0", "damaged"),
        (lambda data: data[:2000] + bytes([data[2000] ^ 1]) + data[2001:], "checksum"),
        (lambda data: data[:12] + b"\xff\x00" + data[14:], "newer release"),
    ],
    ids=["empty", "other", "short", "long", "bit", "newer"],
)
def test_what_cannot_be_used_is_refused_and_leaves_no_trace(learned: Engine, damage, says: str) -> None:  # type: ignore[no-untyped-def]
    engine = Engine(KEY)
    data = learned.snapshot("x")
    with pytest.raises(ValueError, match=says):
        engine.restore(damage(data))
    assert engine.summary()["calls"] == 0
    engine.restore(data)
    assert engine.summary() == learned.summary()


def test_another_key_is_refused(learned: Engine) -> None:
    with pytest.raises(ValueError, match="another key"):
        Engine(b"o" * 32).restore(learned.snapshot(""))


def test_an_engine_in_use_refuses(learned: Engine) -> None:
    before = learned.summary()
    with pytest.raises(ValueError, match="only an engine that has seen nothing"):
        learned.restore(learned.snapshot(""))
    assert learned.summary() == before


def test_a_label_has_a_limit(learned: Engine) -> None:
    with pytest.raises(ValueError, match="4096"):
        learned.snapshot("x" * 5000)


def test_no_value_and_no_token_is_in_it() -> None:
    engine = Engine(KEY)
    caller = engine.caller("t", "u", session="SESSION-CANARY", token="TOKEN-CANARY", agent="AGENT-CANARY")
    engine.check(engine.policy(), caller, "up", "tool", {"password": "VALUE-CANARY"}, START)
    data = engine.snapshot("")
    assert b"CANARY" not in data
    assert b"tool" in data
