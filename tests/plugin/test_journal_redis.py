# SPDX-License-Identifier: Apache-2.0
"""What is special about the Redis journal: keys, cursors, seals, gaps, settings. A real server."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cpex_tool_firewall._native import encode_control
from cpex_tool_firewall._native import pack as pack_records
from cpex_tool_firewall.config import ConfigError, load
from cpex_tool_firewall.journal import redis_state
from cpex_tool_firewall.journal.interface import Anchor, JournalError, Kind, Pack
from cpex_tool_firewall.journal.opening import CHOICE_NAME, open_journal, read_journal_choice
from cpex_tool_firewall.journal.redis import RedisJournal
from cpex_tool_firewall.journal.redis_scripts import cursor_at, cursor_of, id_of, time_of
from cpex_tool_firewall.journal.sqlite import SqliteJournal
from cpex_tool_firewall.state import open_state
from journals import Clock, everything, packed, unpacked
from redis_server import RedisServer

Make = Callable[..., RedisJournal]


@pytest.fixture
def prefix(tmp_path: Path) -> str:
    return tmp_path.name


@pytest.fixture
def make(redis_server: RedisServer, tmp_path: Path, prefix: str) -> Iterator[Make]:
    """Journals of one prefix: make(host="a", key=..., at={...}, ...)."""
    made = []

    def journal(host: str = "a", *, at: dict[str, Any] | None = None, **options: Any) -> RedisJournal:
        one = redis_server.journal(tmp_path / host, at={"prefix": prefix} | (at or {}), **options)
        made.append(one)
        return one

    yield journal
    for one in made:
        one.close()


@pytest.fixture
def client(redis_server: RedisServer) -> Any:
    return redis_server.client()


def prune_all(journal: RedisJournal, calls: float, findings: float) -> int:
    removed = 0
    while some := journal.prune(calls_before=calls, findings_before=findings, upto=journal.last()):
        removed += some
    return removed


# --- cursors and keys ---


def test_cursors_are_ids_and_times_and_stay_exact_in_json() -> None:
    for ms, seq in ((1_600_000_000_000, 0), (1_795_258_734_223, 4095), (3_700_000_000_000, 1)):
        cursor = cursor_of(f"{ms}-{seq}".encode())
        assert id_of(cursor) == f"{ms}-{seq}"
        assert abs(time_of(cursor) - ms / 1000) < 0.001
        assert cursor == int(float(cursor)) < 2**53
    assert cursor_of(b"1700000000000-0") == cursor_at(1_700_000_000)
    assert id_of(0) == id_of(-1) == "0-0"


def test_many_packs_in_one_millisecond_and_a_clock_set_back(make: Make) -> None:
    clock = Clock()
    journal = make(clock=clock)
    for _ in range(50):
        journal.append([packed(b"x")] * 100)
    clock.now -= 3600
    journal.append([packed(b"later")])
    cursors = [entry.cursor for entry in everything(journal)]
    assert len(cursors) == 5001
    assert cursors == sorted(set(cursors))
    assert unpacked(everything(journal))[-1] == b"later"


def test_all_keys_are_in_one_slot_of_a_cluster(make: Make, client: Any, prefix: str) -> None:
    journal = make()
    journal.append([packed(b"x"), packed(b"f", kind=Kind.FINDING)])
    journal.tidy()
    journal.beat("w", {})
    journal.lead("w", 5)
    journal.save_snapshot(1, b"x" * 3_000_000)
    keys = [key.decode() for key in client.keys(f"{{{prefix}}}*")]
    assert len(keys) >= 9
    assert {key.split("}")[0] for key in keys} == {"{" + prefix}


def test_hosts_see_each_others_records(make: Make) -> None:
    one, two = make("one"), make("two")
    one.append([packed(b"1")])
    two.append([packed(b"2")], durable=True)
    assert unpacked(two.read_since(0)) == unpacked(one.read_since(0)) == [b"1", b"2"]
    assert one.generation == two.generation


def test_another_key_is_refused(make: Make) -> None:
    make().append([packed(b"x")])
    with pytest.raises(JournalError, match="TOOL_FIREWALL_KEY_FILE"):
        make("b", key=bytes(32))


def test_readers_make_no_journal(make: Make, client: Any, prefix: str) -> None:
    with pytest.raises(JournalError, match="no journal yet"):
        make(create=False)
    assert not client.keys(f"{{{prefix}}}*")


def test_a_newer_format_is_refused(make: Make, client: Any, prefix: str) -> None:
    make()
    client.hset(f"{{{prefix}}}:meta", "format", "2")
    with pytest.raises(JournalError, match="newer release"):
        make("b")


@pytest.mark.parametrize("stream", ["packs", "kept"])
def test_a_key_of_another_type_keeps_all_of_a_batch_out(
    make: Make, client: Any, prefix: str, stream: str
) -> None:
    journal = make(spooling=False)
    client.set(f"{{{prefix}}}:{stream}", "not ours")
    with pytest.raises(JournalError, match=r"change redis_prefix.*\{.*\}:" + stream):
        journal.append([packed(b"x"), packed(b"f", kind=Kind.FINDING)])
    client.delete(f"{{{prefix}}}:{stream}")
    assert journal.read_since(0) == []
    assert client.exists(f"{{{prefix}}}:packs", f"{{{prefix}}}:kept") == 0


def test_streams_without_their_meta_are_set_aside(make: Make, client: Any, prefix: str) -> None:
    make().append([packed(b"x")])
    client.delete(f"{{{prefix}}}:meta")
    journal = make("b")
    assert journal.read_since(0) == []
    assert [note for note in journal.notes() if "set aside" in note]
    assert [key for key in client.keys(f"{{{prefix}}}:packs*") if client.xlen(key) == 1]


# --- the chain ---


@pytest.fixture
def sealed(make: Make) -> RedisJournal:
    """Twelve packs of real records of all kinds, in four sealed ranges."""
    journal = make()
    for n in range(12):
        if n % 3 == 2:
            record = encode_control(
                ts=float(n),
                worker=1,
                seq=n,
                action="mode",
                tenant="",
                tool="",
                user="",
                value="warn",
                by="x",
                why="",
            )
            journal.append([Pack(*made) for made in pack_records([record])])
        else:
            # Of an unknown version: a journal takes any bytes, and their kind cannot be told from them.
            journal.append([packed(b"%d" % n, b"second", kind=Kind.FINDING if n % 3 else Kind.ORDINARY)])
        if n % 3 == 2:
            journal.tidy()
    assert (journal.verify().problem, journal.verify().records) == ("", 20)
    return journal


def rewrite(client: Any, key: str, number: int, **changed: bytes | None) -> None:
    """Writes a stream again, with other values in one entry; None as `drop` leaves the entry out."""
    entries = client.xrange(key)
    client.delete(key)
    for n, (entry_id, values) in enumerate(entries):
        if n == number:
            if "drop" in changed:
                continue
            values |= {name.encode(): value for name, value in changed.items()}
        client.xadd(key, values, id=entry_id)


def test_every_altered_byte_of_a_pack_is_found(sealed: RedisJournal, client: Any, prefix: str) -> None:
    key = f"{{{prefix}}}:packs"
    entries = client.xrange(key)
    for number in (0, 4, 11):
        body = entries[number][1][b"b"]
        for position in range(0, len(body), max(len(body) // 5, 1)):
            changed = bytes(b ^ (1 if n == position else 0) for n, b in enumerate(body))
            rewrite(client, key, number, b=changed)
            cursor = cursor_of(entries[number][0])
            assert str(cursor) in sealed.verify().problem
            rewrite(client, key, number, b=body)
    assert sealed.verify().problem == ""


@pytest.mark.parametrize(
    ("stream", "number", "changed"),
    [
        ("packs", 5, {"drop": None}),
        ("packs", 11, {"drop": None}),
        ("packs", 3, {"k": b"1"}),
        ("packs", 3, {"n": b"1"}),
        ("packs", 3, {"i": b"99"}),
        ("kept", 0, {"b": packed(b"other").body}),
        ("kept", 3, {"drop": None}),
        ("kept", 2, {"k": b"2"}),
    ],
)
def test_what_is_removed_or_altered_in_a_stream_is_found(
    sealed: RedisJournal, client: Any, prefix: str, stream: str, number: int, changed: dict[str, Any]
) -> None:
    rewrite(client, f"{{{prefix}}}:{stream}", number, **changed)
    assert sealed.verify().problem


def test_a_seal_that_is_altered_forged_or_removed_is_found(
    sealed: RedisJournal, client: Any, prefix: str
) -> None:
    key = f"{{{prefix}}}:seals"
    seals = client.zrange(key, 0, -1, withscores=True)
    for text, score in seals[:-1]:
        client.zrem(key, text)
        assert "removed" in sealed.verify().problem
        for field, value in (("tail", "00" * 16), ("level", 2), ("packs", 2), ("findings", 0)):
            forged = json.dumps(json.loads(text) | {field: value})
            client.zadd(key, {forged: score})
            assert "altered" in sealed.verify().problem
            client.zrem(key, forged)
        client.zadd(key, {text: score})
    assert sealed.verify().problem == ""


def test_a_cut_end_is_found_by_an_anchor_kept_elsewhere(
    sealed: RedisJournal, client: Any, prefix: str
) -> None:
    anchor = sealed.anchor()
    assert sealed.verify([anchor]).problem == ""
    assert "not the one" in sealed.verify([Anchor(anchor.cursor, "00" * 16)]).problem
    client.zpopmax(f"{{{prefix}}}:seals")
    assert "missing" in sealed.verify([anchor]).problem


def test_pruning_keeps_the_chain_and_few_seals(make: Make, client: Any, prefix: str) -> None:
    clock = Clock()
    journal = make(clock=clock)
    kinds = (Kind.ORDINARY, Kind.ORDINARY, Kind.FINDING, Kind.CONTROL)
    for n in range(120):
        journal.append([packed(b"%d" % n, kind=kinds[n % 4])])
        clock.now += 1
        if n % 5 == 0:
            journal.tidy()
    start = Clock().now
    assert prune_all(journal, start + 50.5, start) == 26, "51 packs are old, half of them ordinary"
    assert (journal.verify().problem, journal.verify().pruned) == ("", 26)
    assert len(unpacked(everything(journal))) == 94
    assert prune_all(journal, clock.now + 1, start + 30) in range(34, 34 + 10)
    assert prune_all(journal, clock.now + 1, clock.now + 1) > 0
    left = everything(journal)
    assert [entry.kind for entry in left] == [Kind.CONTROL] * 30
    found = journal.verify()
    assert (found.problem, found.records, found.pruned) == ("", 30, 90)
    assert client.zcard(f"{{{prefix}}}:seals") <= 3
    assert client.xlen(f"{{{prefix}}}:packs") == 0
    last = journal.last()
    journal.append([packed(b"next")])
    journal.tidy()
    assert unpacked(journal.read_since(last)) == [b"next"]
    assert journal.verify().problem == ""


@pytest.mark.parametrize("findings_too", [False, True])
def test_what_is_left_of_a_pruned_range_cannot_be_changed(
    make: Make, client: Any, prefix: str, findings_too: bool
) -> None:
    journal = make()
    journal.append([packed(kind.name.encode(), kind=kind) for kind in Kind])
    prune_all(journal, time.time() + 9, time.time() + 9 if findings_too else 0)
    assert journal.verify().problem == ""
    rewrite(client, f"{{{prefix}}}:kept", 0 if findings_too else 1, drop=None)
    assert "kept" in journal.verify().problem


def test_nothing_altered_is_signed_away(make: Make, client: Any, prefix: str) -> None:
    journal = make()
    journal.append([packed(b"a"), packed(b"b"), packed(b"c")])
    journal.tidy()
    rewrite(client, f"{{{prefix}}}:packs", 1, b=packed(b"X").body)
    with pytest.raises(JournalError, match="nothing is removed any more"):
        journal.prune(calls_before=time.time() + 9, findings_before=0, upto=journal.last())
    assert client.xlen(f"{{{prefix}}}:packs") == 3


def test_two_sealers_make_one_chain(make: Make) -> None:
    one, two = make("one"), make("two")
    for n in range(20):
        one.append([packed(b"%d" % n)])
        one.tidy()
        two.tidy()
    assert (one.verify().problem, two.verify().records) == ("", 20)


# --- gaps ---


def test_a_slow_reader_is_told_what_it_missed_and_misses_no_finding(
    make: Make, client: Any, prefix: str
) -> None:
    writer, reader = make("w"), make("r")
    writer.append([packed(b"read")])
    cursor = reader.read_since(0)[-1].cursor
    for n in range(40):
        writer.append([packed(b"%d" % n, kind=Kind.FINDING if n % 10 == 5 else Kind.ORDINARY)])
    client.xtrim(f"{{{prefix}}}:packs", maxlen=10, approximate=False)
    assert reader.notes() == []
    found = []
    while entries := reader.read_since(cursor, 3):
        found += entries
        cursor = entries[-1].cursor
    assert unpacked(found) == [b"5", b"15", b"25", *(b"%d" % n for n in range(30, 40))]
    (note,) = reader.notes()
    assert "27 packs" in note
    assert reader.first() > 0
    assert writer.notes() == []


def test_pruning_is_no_gap(make: Make) -> None:
    writer, reader = make("w"), make("r")
    writer.append([packed(b"%d" % n) for n in range(5)])
    prune_all(writer, time.time() + 9, 0)
    writer.append([packed(b"after")])
    assert unpacked(everything(reader)) == [b"after"]
    assert reader.notes() == []
    assert reader.first() > 0


def test_a_stream_that_was_evicted_is_pruned_on_and_reported(make: Make, client: Any, prefix: str) -> None:
    journal = make()
    journal.append([packed(b"a"), packed(b"f", kind=Kind.FINDING)])
    journal.tidy()
    client.delete(f"{{{prefix}}}:packs")
    journal.append([packed(b"b")])
    journal.tidy()
    prune_all(journal, time.time() + 9, 0)
    assert "2 packs" in journal.verify().problem
    prune_all(journal, time.time() + 9, time.time() + 9)
    journal.append([packed(b"c")])
    assert unpacked(everything(journal)) == [b"c"]


# --- snapshots ---


def test_pieces_of_a_snapshot_that_was_never_finished_vanish(make: Make, client: Any, prefix: str) -> None:
    journal = make()
    journal.save_snapshot(5, b"x" * 2_500_000)
    pieces = client.keys(f"{{{prefix}}}:snapshot:*")
    assert [client.ttl(piece) for piece in pieces] == [-1, -1, -1]
    client.delete(pieces[0])
    with pytest.raises(JournalError, match="a piece of the snapshot at cursor 5 is gone"):
        journal.load_snapshot(5)
    for cursor in (6, 7, 8):
        journal.save_snapshot(cursor, b"y")
    assert len(client.keys(f"{{{prefix}}}:snapshot:*")) == 2, "of those that are not kept, nothing stays"


# --- the process ---


def test_a_forked_child_leaves_the_parents_connection_alone(make: Make) -> None:
    journal = make()
    journal.append([packed(b"before")])
    child = os.fork()
    if child == 0:
        try:
            journal.read_since(0)
        except JournalError as error:
            journal.close()
            os._exit(0 if "after a fork" in str(error) else 1)
        os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    journal.suspend()
    assert unpacked(journal.read_since(0)) == [b"before"]
    journal.append([packed(b"after")], durable=True)
    assert unpacked(journal.read_since(0)) == [b"before", b"after"]


def test_without_the_package_redis_the_error_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['redis'] = None\n"
        "from pathlib import Path\n"
        "from cpex_tool_firewall.journal.redis import RedisJournal\n"
        "from cpex_tool_firewall.journal.redis_connection import RedisOptions\n"
        "RedisJournal(RedisOptions('redis://localhost'), Path('/tmp'), bytes(32), spooling=False)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "JournalError" in done.stderr
    assert "pip install 'cpex-tool-firewall[redis]'" in done.stderr


# --- settings ---


@pytest.mark.parametrize(
    "url",
    [
        "http://host",
        "redis://",
        "redis://host:99999",
        "redis://host/db",
        "unix://",
        "unix://host/x",
        "redis://h?db=1",
    ],
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(ConfigError, match="redis_url"):
        load({"journal": "redis", "redis_url": url})


def test_a_password_in_the_address_is_refused_and_never_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        load({"journal": "redis", "redis_url": "redis://me:hunter2@host:6379/0"})
    assert "redis_password_file" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_an_address_is_needed_and_prefixes_are_checked() -> None:
    with pytest.raises(ConfigError, match="redis_url: missing"):
        load({"journal": "redis"})
    with pytest.raises(ConfigError, match="redis_prefix"):
        load({"redis_prefix": "a{b}"})


def test_the_command_line_finds_the_journal_of_the_workers(
    redis_server: RedisServer, tmp_path: Path, prefix: str
) -> None:
    state = open_state(str(tmp_path / "state"))
    assert read_journal_choice(state.folder) is None
    settings = load(
        {"journal": "redis", "redis_url": redis_server.url, "redis_prefix": prefix, "mode": "block"}
    )
    worker = open_journal(settings, state)
    worker.append([packed(b"x")])
    note = state.folder / CHOICE_NAME
    assert note.stat().st_mode & 0o777 == 0o600
    assert json.loads(note.read_text()) == {
        "journal": "redis", "redis_url": redis_server.url, "redis_prefix": prefix
    }  # fmt: skip
    reader = open_journal(load({}), state, create=False, busy_seconds=2.0)
    assert unpacked(reader.read_since(0)) == [b"x"]
    reader.append([packed(b"y", kind=Kind.CONTROL)], durable=True)
    assert unpacked(worker.read_since(0)) == [b"x", b"y"]
    reader.close()
    worker.close()
    open_journal(load({}), state).close()
    again = open_journal(load({}), state, create=False)
    assert isinstance(again, SqliteJournal)
    again.close()
    note.write_text("{")
    with pytest.raises(JournalError, match=CHOICE_NAME):
        open_journal(load({}), state, create=False)


def test_a_password_file_that_others_can_read_is_refused(redis_server: RedisServer, tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("hunter2\n")
    path.chmod(0o644)
    with pytest.raises(JournalError, match="chmod o=") as caught:
        redis_server.journal(tmp_path / "a", at={"password_file": str(path)})
    assert "hunter2" not in str(caught.value)
    with pytest.raises(JournalError, match="redis_password_file"):
        redis_server.journal(tmp_path / "a", at={"password_file": str(tmp_path / "absent")})


# --- the server's own settings ---


def test_a_server_that_forgets_is_complained_about(tmp_path: Path) -> None:
    server = RedisServer(
        tmp_path / "redis", maxmemory="50mb", maxmemory_policy="allkeys-lru", appendonly="no"
    )
    try:
        journal = server.journal(tmp_path / "a")
        text = "\n".join(journal.notes())
        assert "set it to noeviction" in text
        assert "set appendonly yes" in text
        client = server.client()
        client.config_set("maxmemory-policy", "volatile-lru")
        client.config_set("appendonly", "yes")
        again = server.journal(tmp_path / "b")
        assert again.notes() == []
        client.execute_command(
            "ACL", "SETUSER", "small", "on", ">pw", "~*", "+@all", "-info", "-memory|usage"
        )
        path = tmp_path / "password"
        path.write_text("pw")
        path.chmod(0o600)
        limited = server.journal(tmp_path / "c", at={"username": "small", "password_file": str(path)})
        (note,) = limited.notes()
        assert "could not be checked" in note
        limited.append([packed(b"x")], durable=True)
        assert unpacked(limited.read_since(0)) == [b"x"]
        assert limited.size() == 0
        assert journal.size() > 0
        for one in (journal, again, limited):
            one.close()
    finally:
        server.stop()


def test_the_rights_that_the_documentation_names_are_enough(
    redis_server: RedisServer, client: Any, make: Make, tmp_path: Path, prefix: str
) -> None:
    rights = ("~{" + prefix + "}:*", "+@all", "-@admin", "-@dangerous", "+info")
    client.execute_command("ACL", "SETUSER", prefix, "on", ">secret", *rights)
    path = tmp_path / "password"
    path.write_text("secret")
    path.chmod(0o600)
    journal = make(at={"username": prefix, "password_file": str(path)})
    journal.append([packed(b"x"), packed(b"f", kind=Kind.FINDING)], durable=True)
    journal.read_since(0)
    journal.tidy()
    journal.beat("w", {})
    assert journal.lead("w", 5)
    journal.leave("w")
    assert journal.workers()
    journal.save_snapshot(journal.last(), b"x" * 2_000_000)
    assert len(journal.load_snapshot(journal.last())) == 2_000_000
    assert prune_all(journal, time.time() + 9, time.time() + 9) == 2
    assert journal.verify().problem == ""
    assert journal.size() > 0
    assert journal.notes() == []
    with pytest.raises(JournalError, match="may not do that"):
        redis_server.journal(
            tmp_path / "b", at={"prefix": "other", "username": prefix, "password_file": str(path)}
        )


def test_clocks_that_differ_are_complained_about(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    monkeypatch.setattr(redis_state.time, "time", lambda: real() - 30)
    (note,) = make().notes()
    assert "30 s ahead" in note
