# SPDX-License-Identifier: Apache-2.0
"""Who fails open and who fails closed: every fault of docs/failures.md in every mode, in the real gateway."""

import json
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cpex_tool_firewall
import pytest
from conftest import HERE, Screened
from cpex_tool_firewall import _native
from cpex_tool_firewall.config import load
from cpex_tool_firewall.engines import build_engine
from cpex_tool_firewall.restoring import label_of, restore
from cpex_tool_firewall.state import open_state
from gateway_lab import GatewayOptions, Lab
from gateway_lab.answer import Answer
from gateway_lab.faults import full, locked_for_reading, locked_for_writing, small_disk
from gateway_lab.firewall import Firewall, firewall_plugin
from gateway_lab.metrics import samples
from saboteur_plugin import SECRET

MODES = ("learning", "warn", "block")
USERS = ("alice", "dave", "erin", "frank")
# Each mode has a user of its own, and block mode two, so that so many calls in a minute are no burst.
_FIRST_USER = {"learning": "alice", "warn": "dave", "block": "erin"}
_SECOND_USER = _FIRST_USER | {"block": "frank"}
QUERY = {"sql": "select 1"}
NOVEL = {"table": "customers"}
_FORMAT_AT = 12  # of a snapshot: native/journal/snapshot.h
DEEP: dict[str, Any] = {"sql": "x", "options": {}}
for _ in range(90):
    DEEP = {"sql": "x", "options": {"in": DEEP["options"]}}


class Site:
    """A gateway with history, and what can be seen of it from outside."""

    def __init__(self, screened: Screened) -> None:
        self.lab, self.firewall = screened.lab, screened.firewall
        self.orders = self.lab.folder / "orders"
        self.user = "alice"
        self.journal = self.lab.state / "journal.db"

    def usual(self) -> Answer:
        return self.lab.call(self.user, "db_query", QUERY)

    def novel(self) -> Answer:
        """A call that block mode stops and warn mode warns about."""
        return self.lab.call(self.user, "delete_records", NOVEL)

    def on_stderr(self) -> list[dict[str, Any]]:
        """The records on standard error so far, which the lab keeps in the gateway's log."""
        lines = self.lab.gateway_log().splitlines()
        return [json.loads(line) for line in lines if line.startswith('{"tool_firewall"')]

    def warnings(self, words: str) -> int:
        lines = self.lab.gateway_log().splitlines()
        return sum("cpex_tool_firewall" in line and words in line for line in lines)

    def event(self, name: str) -> float:
        """A counter of the metrics page."""
        return samples(self.lab.prometheus(), "tool_firewall_events_total", event=name)

    def raised(self, cause: str) -> float:
        return samples(self.lab.prometheus(), "tool_firewall_alarms_total", cause=cause)

    def alarms(self) -> list[str]:
        """What `status` shows."""
        shown = self.firewall.command("status", "--json")
        assert shown.returncode == 0, shown.stderr
        workers = json.loads(shown.stdout)["workers"]
        return [text for one in workers if one["state"] == "alive" for text in one["alarms"]]

    def alarmed(self, cause: str) -> bool:
        return any(text.startswith(f"{cause}:") for text in self.alarms())

    def metadata(self, since: float) -> dict[str, Any]:
        """What the gateway kept of the firewall's metadata of the last call since a time."""

        def rows() -> list[Any]:
            with sqlite3.connect(f"file:{self.lab.database}?mode=ro", uri=True) as database:
                return database.execute(
                    "SELECT attributes FROM observability_spans WHERE name LIKE 'plugin.metrics.%firewall%'"
                    " AND start_time >= strftime('%Y-%m-%d %H:%M:%S', ?, 'unixepoch') ORDER BY start_time",
                    (since,),
                ).fetchall()

        wait_for(lambda: bool(rows()))
        found: dict[str, Any] = json.loads(rows()[-1][0])
        return found


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.1)


def refused(answer: Answer, words: str = "Stopped by the tool firewall") -> bool:
    assert answer.ok or words in answer.text, answer
    return not answer.ok


def launch(tmp_path: Path, plugin: dict[str, Any], **options: Any) -> tuple[int, str]:
    """Starts a gateway that is meant to stop by itself: its exit code and its log."""
    lab = Lab(tmp_path, GatewayOptions(plugins=[plugin], **options))
    try:
        process = lab.launch_gateway()
        return process.wait_for_exit(60), process.log()
    finally:
        lab.stop()


# --- the plugin cannot load, or its configuration is wrong ---


@pytest.mark.parametrize("mode", MODES)
def test_a_wrong_configuration_stops_the_gateway(tmp_path: Path, mode: str) -> None:
    code, log = launch(tmp_path, firewall_plugin(mode=mode, burst_threshold="twenty"))
    assert code != 0
    assert "burst_threshold" in log


@pytest.mark.parametrize("mode", MODES)
def test_a_broken_extension_stops_the_gateway(tmp_path: Path, mode: str) -> None:
    source, extension = Path(cpex_tool_firewall.__file__).parent, Path(str(_native.__file__))
    package = tmp_path / "broken" / source.name
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("*.so", "__pycache__", ".mypy_cache"))
    (package / extension.name).write_bytes(b"\x7fELF and nothing of worth after it")
    # An editable installation would be found first.
    (tmp_path / "broken" / "sitecustomize.py").write_text(
        "import sys\n"
        "sys.meta_path[:] = [one for one in sys.meta_path if 'Redirect' not in type(one).__name__]\n",
        encoding="utf-8",
    )
    code, log = launch(tmp_path, firewall_plugin(mode=mode), python_path=[tmp_path / "broken"])
    assert code != 0
    assert extension.name in log


@pytest.mark.parametrize("mode", MODES)
def test_a_state_that_cannot_be_opened(tmp_path: Path, mode: str) -> None:
    """Open with an alarm in learning and warn, and it heals by itself; closed in block mode."""
    state = tmp_path / "state"
    state.write_text("a file where the folder should be", encoding="utf-8")
    plugin = firewall_plugin(mode=mode)
    if mode == "block":
        code, log = launch(tmp_path, plugin)
        assert code != 0
        assert str(state) in log
        return
    with Lab(tmp_path, GatewayOptions(plugins=[plugin])) as lab:
        firewall = Firewall(lab)
        assert lab.call("alice", "db_query", QUERY).ok
        assert samples(lab.prometheus(), "tool_firewall_up") == 0
        assert samples(lab.prometheus(), "tool_firewall_alarms_total", cause="state") > 0
        assert samples(lab.prometheus(), "tool_firewall_events_total", event="uninspected_allowed") == 1
        assert firewall.command("status").returncode != 0
        state.unlink()

        def screened() -> bool:
            assert lab.call("alice", "db_query", QUERY).ok
            return samples(lab.prometheus(), "tool_firewall_up") == 1

        wait_for(screened, 60)
        assert firewall.command("status").returncode == 0
        firewall.close()


# --- with a gateway that runs ---


@pytest.fixture(scope="module")
def site(start_lab: Callable[..., Screened], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The default settings, and a saboteur in front of the firewall."""
    orders = tmp_path_factory.mktemp("orders") / "orders"
    saboteur = {
        "name": "Saboteur",
        "kind": "saboteur_plugin.SaboteurPlugin",
        "hooks": ["tool_pre_invoke"],
        "mode": "sequential",
        "priority": 10,
        "config": {"orders": str(orders)},
    }
    made = Site(
        start_lab(
            {"uninspectable_exempt_tools": ["http_fetch"]},
            users=USERS,
            plugins=[saboteur],
            python_path=[HERE],
            env={"OBSERVABILITY_ENABLED": "true", "VALIDATION_MAX_JSON_DEPTH": "100"},
        )
    )
    made.orders = orders
    yield made
    made.lab.stop()


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest, site: Site) -> str:
    site.orders.write_text("", encoding="utf-8")
    site.firewall.mode(request.param)
    site.firewall.skip()
    site.user = _FIRST_USER[request.param]
    return str(request.param)


def test_an_error_in_our_hook_before_there_is_a_verdict(site: Site, mode: str) -> None:
    allowed, stopped, errors = map(site.event, ("uninspected_allowed", "uninspected_stopped", "error_pre"))
    told = len(site.on_stderr())
    site.orders.write_text("before", encoding="utf-8")
    answer = site.usual()
    assert refused(answer, "internal error") == (mode == "block")
    assert site.event("error_pre") == errors + 1
    assert site.event("uninspected_allowed") == allowed + (mode != "block")
    assert site.event("uninspected_stopped") == stopped + (mode == "block")
    records = site.on_stderr()[told:]
    if mode == "learning":
        assert records == []
    else:
        (record,) = records
        assert (record["verdict"], record["mode"], record["signals"]) == ("uninspected", mode, ["internal"])
        assert mode != "block" or record["incident"] in answer.text
    assert SECRET not in answer.text
    assert SECRET not in site.lab.gateway_log()
    assert site.warnings("unexpected RuntimeError in the pre hook") >= 1
    site.orders.write_text("", encoding="utf-8")
    assert site.usual().ok, "it works again"


def test_an_error_in_our_hook_after_there_is_a_verdict(site: Site, mode: str) -> None:
    errors = site.event("error_pre")
    site.orders.write_text("after", encoding="utf-8")
    answer = site.novel()
    assert refused(answer, "internal error") == (mode == "block")
    assert SECRET not in answer.text
    # In learning mode nobody is told of the verdict, so nothing fails.
    assert site.event("error_pre") == errors + (mode != "learning")
    scored = site.firewall.call()
    assert (scored.decision, scored.blocked) == ("deny", mode == "block")
    site.orders.write_text("", encoding="utf-8")
    assert site.usual().ok


def test_arguments_that_cannot_be_inspected(site: Site, mode: str) -> None:
    counted = site.event("uninspectable")
    answer = site.lab.call("alice", "db_query", DEEP)
    assert refused(answer, "cannot be inspected") == (mode == "block")
    scored = site.firewall.call()
    assert (scored.uninspectable, scored.blocked, scored.decision) == ("depth", mode == "block", "deny")
    assert site.event("uninspectable") == counted + 1
    exempt = site.lab.call("alice", "http_fetch", {"url": "https://example.com/", "options": DEEP})
    assert "cannot be inspected" not in exempt.text, "http_fetch is exempt"


def test_a_decision_that_the_journal_does_not_take(site: Site, mode: str) -> None:
    site.user = _SECOND_USER[mode]
    told, warned = len(site.on_stderr()), site.warnings("delete_records")
    with locked_for_writing(site.journal):
        usual = site.usual()
        wait_for(lambda: site.raised("journal-write") > 0)
        answer = site.novel()
        assert usual.ok
        assert refused(answer) == (mode == "block"), "the refusal stands, recorded or not"
        assert answer.seconds < 2
        records = site.on_stderr()[told:]
        if mode == "learning":
            assert records == []
        else:
            (record,) = records
            expected = {
                "tool_firewall": "record",
                "tenant": site.lab.installation.team,
                "user": site.lab.email(site.user),
                "tool": "delete_records",
                "verdict": "deny",
                "mode": mode,
                "recorded": False,
            }
            assert record.items() >= expected.items()
            assert "novelty" in record["signals"]
            assert NOVEL["table"] not in json.dumps(record)
            assert mode != "block" or record["incident"] in answer.text
            assert site.raised("decision-record") > 0
            assert site.event("decisions_unrecorded") == 0
        assert site.warnings("delete_records") == warned + (mode != "learning")
        wait_for(lambda: site.lab.prometheus().count("tool_firewall_alarms_active") > 0)
    # The journal gets both as soon as it can, by itself.
    calls = site.firewall.calls(2)
    assert [call.tool for call in calls] == ["db_query", "delete_records"]
    assert calls[1].blocked == (mode == "block")
    wait_for(lambda: not site.alarmed("journal-write"))


def test_ordinary_records_that_the_journal_does_not_take(site: Site, mode: str) -> None:
    """audit: best_effort, the default: calls go on in every mode, and nothing is lost."""
    site.user = _SECOND_USER[mode]
    with locked_for_writing(site.journal):
        assert site.usual().ok
        wait_for(lambda: site.raised("journal-write") > 0)
        time.sleep(1.5)
        assert all(site.usual().ok for _ in range(5))
        assert site.firewall.journal.last() == site.firewall._cursor, "nothing was stored"
    assert [call.tool for call in site.firewall.calls(6)] == ["db_query"] * 6
    wait_for(lambda: not site.alarmed("journal-write"))


def test_a_journal_that_cannot_be_read(site: Site, mode: str) -> None:
    """Calls are judged by what was known before, and say so; nothing waits for the journal."""
    site.user = _SECOND_USER[mode]
    site.firewall.close()
    with locked_for_reading(site.journal):
        time.sleep(6)
        since = time.time()
        usual, novel = site.usual(), site.novel()
        assert usual.ok
        assert refused(novel) == (mode == "block")
        assert max(usual.seconds, novel.seconds) < 2
        assert site.raised("tail-stale") > 0
        if mode != "block":
            assert site.metadata(since)["degraded"] is True
    assert [call.tool for call in site.firewall.calls(2)] == ["db_query", "delete_records"]
    wait_for(lambda: not site.alarmed("tail-stale"))
    since = time.time() + 1
    time.sleep(1)
    assert site.usual().ok
    assert site.metadata(since)["degraded"] is False


# --- audit: strict ---


@pytest.fixture(scope="module")
def strict_site(start_lab: Callable[..., Screened]) -> Iterator[Site]:
    made = Site(start_lab({"audit": "strict"}, users=USERS))
    yield made
    made.lab.stop()


@pytest.mark.parametrize("mode", MODES)
def test_what_cannot_be_recorded_does_not_run_in_block_mode_with_strict_audit(
    strict_site: Site, mode: str
) -> None:
    site = strict_site
    site.firewall.mode(mode)
    site.firewall.skip()
    site.user = _FIRST_USER[mode]
    site.lab.upstream_calls()
    told, stopped = len(site.on_stderr()), site.event("unrecorded_stopped")
    with locked_for_writing(site.journal):
        assert site.usual().ok, "less than a second"
        time.sleep(2)
        answers = [site.usual() for _ in range(3)]
        assert [refused(answer, "cannot be recorded") for answer in answers] == [mode == "block"] * 3
        records = site.on_stderr()[told:]
        if mode == "block":
            assert [record["signals"] for record in records] == [["unrecorded"]] * 3
            assert all(r["incident"] in a.text for r, a in zip(records, answers, strict=True))
        else:
            assert records == []
        assert site.event("unrecorded_stopped") == stopped + 3 * (mode == "block")
    ran = 1 if mode == "block" else 4
    assert len(site.lab.upstream_calls()) == ran
    assert len(site.firewall.calls(ran)) == ran
    wait_for(lambda: site.usual().ok, 10)


# --- a full disk ---


@pytest.fixture(scope="module")
def small_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A gateway whose state folder is on a disk of its own."""
    folder = tmp_path_factory.mktemp("small")
    lab = Lab(folder, GatewayOptions(plugins=[firewall_plugin()]))
    try:
        disk = small_disk(lab.state, "32m")
        disk.__enter__()
    except PermissionError as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    try:
        with lab:
            firewall = Firewall(lab)
            made = Site(Screened(lab, firewall))
            from conftest import office_habits

            firewall.learn(office_habits(lab, USERS))
            yield made
            firewall.close()
    finally:
        disk.__exit__(None, None, None)


@pytest.mark.parametrize("mode", MODES)
def test_a_full_disk(small_site: Site, mode: str) -> None:
    site = small_site
    site.firewall.mode(mode)
    site.firewall.skip()
    site.user = _FIRST_USER[mode]
    told, raised, made = len(site.on_stderr()), site.raised("journal-write"), 0
    with full(site.lab.state):
        while site.raised("journal-write") == raised:
            # What fits into pages that SQLite already has is still stored.
            assert site.usual().ok
            made += 1
            assert made < 20
        novel = site.novel()
        assert refused(novel) == (mode == "block"), "the refusal stands, recorded or not"
        assert novel.seconds < 2
        assert site.usual().ok
        records = site.on_stderr()[told:]
        assert [record["verdict"] for record in records] == ["deny"] * (mode != "learning")
    calls = site.firewall.calls(made + 2)
    assert [call.tool for call in calls][-2:] == ["delete_records", "db_query"]
    wait_for(lambda: not site.alarmed("journal-write"))


# --- snapshots ---


@pytest.fixture(scope="module")
def aged_site(start_lab: Callable[..., Screened]) -> Iterator[Site]:
    made = Site(start_lab(users=USERS))
    yield made
    made.lab.stop()


@pytest.mark.parametrize("fault", ["unreadable", "too new"])
@pytest.mark.parametrize("mode", MODES)
def test_a_snapshot_that_cannot_be_used(aged_site: Site, mode: str, fault: str) -> None:
    """The journal is read instead, so nothing is forgotten: in every mode the same."""
    site = aged_site
    site.firewall.mode(mode)
    site.lab.stop_gateway()
    journal = site.firewall.journal
    journal.save_snapshot(journal.last(), _snapshot(site, fault))
    site.lab.start_gateway()
    wait_for(lambda: site.alarmed("snapshot-refused"))
    site.firewall.skip()
    usual, novel = site.usual(), site.novel()
    assert usual.ok
    assert refused(novel) == (mode == "block")
    known, new = site.firewall.calls(2)
    assert known.decision == "allow", "what alice always does"
    assert (new.decision, new.blocked) == ("deny", mode == "block")
    assert "snapshot" in site.lab.gateway_log()


def _snapshot(site: Site, fault: str) -> bytes:
    """A good snapshot of everything there is, spoiled."""
    journal, state = site.firewall.journal, open_state(str(site.lab.state), create=False)
    restored = restore(journal, lambda: build_engine(load({}), state.key))
    good = restored.engine.snapshot(label_of(journal, restored.cursor))
    if fault == "too new":
        return good[:_FORMAT_AT] + (9999).to_bytes(2, "little") + good[_FORMAT_AT + 2 :]
    middle = len(good) // 2
    return good[:middle] + bytes([good[middle] ^ 0x10]) + good[middle + 1 :]
