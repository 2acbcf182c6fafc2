# SPDX-License-Identifier: Apache-2.0
"""`tool-firewall doctor`: a healthy site passes, and each thing that is wrong is found and explained."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
import yaml
from cli_support import Site, heartbeat, run
from cpex_tool_firewall._native import encode_call
from cpex_tool_firewall.cli import checks, live_call
from cpex_tool_firewall.gateway_view import KIND
from cpex_tool_firewall.state import digest
from journals import packed

TOKEN = jwt.encode({"jti": "token-1", "sub": "alice"}, "k" * 32)
OTHER_TOKEN = jwt.encode({"jti": "token-2", "sub": "bob"}, "k" * 32)
TOOL = "lab-srv-db-query"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "state")
    made.journal.beat("w", heartbeat())
    yield made
    made.close()


def block(**changes: Any) -> dict[str, Any]:
    entry = {
        "name": "ToolFirewall",
        "kind": KIND,
        "hooks": ["tool_pre_invoke", "tool_post_invoke"],
        "mode": "sequential",
        "priority": 900,
        "config": {"mode": "learning"},
        **changes,
    }
    return {key: value for key, value in entry.items() if value is not None}


def config_file(folder: Path, *entries: dict[str, Any]) -> Path:
    path = folder / "plugins.yaml"
    path.write_text(yaml.safe_dump({"plugins": list(entries), "plugin_dirs": []}))
    return path


def doctor(site: Site, *arguments: str, **more: Any) -> tuple[int, dict[str, list[dict[str, str]]]]:
    """Exit code, and the findings by subject."""
    result = run("doctor", "--state", str(site.folder), "--json", *arguments, **more)
    assert result.stdout, result.stderr
    found: dict[str, list[dict[str, str]]] = {}
    document = json.loads(result.stdout)
    for finding in document["checks"]:
        found.setdefault(finding["subject"], []).append(finding)
        assert bool(finding["advice"]) == (finding["status"] == "problem")
    assert document["ok"] == (result.exit_code == 0)
    return result.exit_code, found


def problems(found: dict[str, list[dict[str, str]]]) -> dict[str, str]:
    return {
        subject: finding["text"]
        for subject, findings in found.items()
        for finding in findings
        if finding["status"] == "problem"
    }


def test_a_healthy_site_passes(site: Site, tmp_path: Path) -> None:
    code, found = doctor(site, "--gateway-config", str(config_file(tmp_path, block())))
    assert problems(found) == {}
    assert code == 0
    assert found.keys() - {"gateway", "live call"} == {
        *("platform", "engine", "storage", "cpex", "plugin", "configuration", "hooks", "plugin mode"),
        *("priority", "settings", "state", "journal", "workers", "fail switch", "versions"),
    }
    for subject in found.keys() - {"gateway", "live call"}:
        assert [finding["status"] for finding in found[subject]] == ["ok"], subject


def test_the_list_for_people_says_what_to_do(site: Site) -> None:
    site.journal.beat("w", heartbeat(fail_on_plugin_error=False))
    result = run("doctor", "--state", str(site.folder))
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("problem  fail switch"))
    assert "PLUGINS_FAIL_ON_PLUGIN_ERROR is not true in worker" in lines[at]
    assert lines[at + 1].strip().startswith("-> set PLUGINS_FAIL_ON_PLUGIN_ERROR=true")
    assert lines[-1] == "1 problem found"


@pytest.mark.parametrize(
    ("changes", "subject", "said"),
    [
        ({"hooks": ["tool_pre_invoke"]}, "hooks", "not listed: tool_post_invoke"),
        ({"hooks": None}, "hooks", "not listed: tool_pre_invoke, tool_post_invoke"),
        ({"mode": "permissive"}, "plugin mode", "permissive: nothing can be blocked"),
        ({"mode": "disabled"}, "plugin mode", "disabled: calls are not screened"),
        ({"mode": "enforce_ignore_error"}, "plugin mode", "enforce_ignore_error"),
        ({"on_error": "ignore"}, "on_error", "ignore: calls pass unscreened"),
        ({"conditions": [{"tools": ["x"]}]}, "conditions", "only calls that match"),
        ({"priority": 40}, "priority", "40: Policy may block after us"),
        ({"priority": None}, "priority", "100: Policy may block after us"),
        ({"priority": "high"}, "priority", "'high' is not a whole number"),
        ({"config": {"mode": "off"}}, "settings", "mode: 'off' is not accepted"),
        ({"config": {"treshold": 1}}, "settings", "treshold: unknown setting (did you mean threshold?)"),
        (
            {"kind": "cpex_tool_firewall.ToolFirewall"},
            "configuration",
            "(found: cpex_tool_firewall.ToolFirewall)",
        ),
    ],
)
def test_each_mistake_in_the_block_is_found(
    site: Site, tmp_path: Path, changes: dict[str, Any], subject: str, said: str
) -> None:
    policy = {
        "name": "Policy",
        "kind": "a.b.C",
        "hooks": ["tool_pre_invoke"],
        "mode": "enforce",
        "priority": 100,
    }
    code, found = doctor(site, "--gateway-config", str(config_file(tmp_path, policy, block(**changes))))
    assert code == 1
    assert list(problems(found)) == [subject]
    assert said in problems(found)[subject]


def test_plugins_that_cannot_block_after_us_are_no_problem(site: Site, tmp_path: Path) -> None:
    others = [
        {"name": "Audit", "kind": "a.B", "hooks": ["tool_pre_invoke"], "mode": "audit", "priority": 999},
        {"name": "Results", "kind": "a.B", "hooks": ["tool_post_invoke"], "mode": "enforce", "priority": 999},
        {"name": "Off", "kind": "a.B", "hooks": ["tool_pre_invoke"], "mode": "disabled", "priority": 999},
    ]
    code, found = doctor(site, "--gateway-config", str(config_file(tmp_path, block(), *others)))
    assert (code, problems(found)) == (0, {})
    beside = {"name": "Beside", "kind": "a.B", "hooks": ["tool_pre_invoke"], "mode": "concurrent"}
    code, found = doctor(site, "--gateway-config", str(config_file(tmp_path, block(), beside)))
    assert code == 0
    assert "Beside (concurrent)" in found["priority"][0]["text"]


def test_two_blocks_no_file_and_no_yaml(site: Site, tmp_path: Path) -> None:
    _, found = doctor(site, "--gateway-config", str(config_file(tmp_path, block(), block(name="again"))))
    assert "2 plugins of kind" in problems(found)["configuration"]
    _, found = doctor(site, "--gateway-config", str(tmp_path / "none.yaml"))
    assert "none.yaml: cannot be read: No such file" in problems(found)["configuration"]
    (tmp_path / "bad.yaml").write_text("plugins: [")
    _, found = doctor(site, env={"PLUGINS_CONFIG_FILE": str(tmp_path / "bad.yaml")})
    assert "bad.yaml: line" in problems(found)["configuration"]


def test_without_a_gateway_the_configuration_and_the_switch_are_asked_of_the_environment(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path / "state")
    code, found = doctor(site)
    assert code == 1
    assert set(problems(found)) == {"configuration", "workers", "fail switch"}
    env = {"PLUGINS_CONFIG_FILE": str(config_file(tmp_path, block())), "PLUGINS_FAIL_ON_PLUGIN_ERROR": "True"}
    code, found = doctor(site, env=env)
    assert set(problems(found)) == {"workers"}
    code, found = doctor(site, env={**env, "PLUGINS_FAIL_ON_PLUGIN_ERROR": "false"})
    assert "is 'false' here" in problems(found)["fail switch"]
    site.close()


def test_state_that_is_absent_or_open_to_others(site: Site, tmp_path: Path) -> None:
    code, found = doctor(site, "--state", str(tmp_path / "absent"))
    assert code == 1
    assert "there is no state folder" in problems(found)["state"]
    assert found["journal"][0]["status"] == "skipped"
    site.folder.chmod(0o755)
    _, found = doctor(site)
    assert "chmod 700" in problems(found)["state"]
    site.folder.chmod(0o700)
    (site.folder / "key").write_bytes(b"short")
    _, found = doctor(site)
    assert "the key has 5 bytes" in problems(found)["state"]


def test_workers_that_are_silent_old_or_in_trouble(site: Site) -> None:
    site.journal.beat("old", heartbeat(version="0.0.9"))
    site.journal.beat("ill", heartbeat(alarms=["journal: the disk is full"]))
    now = site.journal.workers()[0].seen
    site.journal._clock = lambda: now - 30
    site.journal.beat("hangs", heartbeat(host="elsewhere"))
    code, found = doctor(site)
    assert code == 1
    assert set(problems(found)) == {"workers", "versions", "alarm"}
    assert "on elsewhere for 30 s" in problems(found)["workers"]
    assert "workers run 0.0.9" in problems(found)["versions"]
    assert "the disk is full" in problems(found)["alarm"]


@pytest.mark.parametrize(
    ("found", "good"),
    [
        ("0.1.3", True),
        ("0.1.4", True),
        ("0.1.10rc1", True),
        ("0.1.2", False),
        ("0.2.0", False),
        (None, False),
    ],
)
def test_versions_of_cpex(monkeypatch: pytest.MonkeyPatch, found: str | None, good: bool) -> None:
    monkeypatch.setattr(checks, "_version_of", lambda name: found)
    assert (checks.check_cpex().status == "ok") == good


def test_other_machines_and_pythons_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks.check_platform().status == "ok"
    monkeypatch.setattr(checks.platform, "machine", lambda: "aarch64")
    assert "x86_64" in checks.check_platform().advice


def test_a_missing_engine_is_a_finding_not_a_crash(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    real = checks.importlib.import_module

    def without_engine(name: str) -> Any:
        if name.endswith("_native"):
            raise ImportError("libstdc++.so.6: version too old")
        return real(name)

    monkeypatch.setattr(checks.importlib, "import_module", without_engine)
    code, found = doctor(site)
    assert code == 1
    assert "libstdc++.so.6" in problems(found)["engine"]


@pytest.mark.parametrize(
    "arguments",
    [["--url", "http://x"], ["--tool", "x"], ["--url", "http://x", "--tool", "x", "--arguments", "[1]"]],
)
def test_wrong_usage_ends_with_2(site: Site, arguments: list[str]) -> None:
    assert run("doctor", "--state", str(site.folder), *arguments).exit_code == 2


Answer = tuple[int, Any]


class Gateway:
    """Answers /rpc as the gateway does; `screen` is what its plugin would do, `answer` what it says."""

    def __init__(self, answer: Answer, screen: Callable[[], None]) -> None:
        self.asked: list[tuple[str, str | None, Any]] = []
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                gateway.asked.append((self.path, self.headers.get("authorization"), body))
                screen()
                status, document = answer
                data = document if isinstance(document, bytes) else json.dumps(document).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.02])
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


RESULT = {"jsonrpc": "2.0", "id": 1, "result": {"content": []}}


def refusal(code: int, message: str, **data: Any) -> dict[str, Any]:
    return {
        "jsonrpc": "2.0",
        "id": 1,
        "error": {"code": code, "message": message, **({"data": data} if data else {})},
    }


@pytest.mark.parametrize(
    ("answer", "recorded", "status", "said"),
    [
        ((200, RESULT), (TOKEN, "db_query"), "ok", "left a record: allow"),
        (
            (429, refusal(-32099, "no", plugin_error_code="TF_BURST")),
            (TOKEN, "db_query"),
            "ok",
            "left a record",
        ),
        ((200, RESULT), None, "problem", "calls are NOT screened"),
        ((200, RESULT), (OTHER_TOKEN, "db_query"), "problem", "calls are NOT screened"),
        ((200, RESULT), (TOKEN, "delete"), "problem", "calls are NOT screened"),
        ((429, refusal(-32099, "no", plugin_error_code="RATE")), None, "problem", "calls are NOT screened"),
        (
            (429, refusal(-32099, "no", plugin_error_code="TF_BURST")),
            None,
            "problem",
            "was screened (TF_BURST)",
        ),
        (
            (200, refusal(-32003, "Access denied")),
            None,
            "problem",
            "the gateway itself ended the call (-32003: Access denied)",
        ),
        ((401, {"detail": "x"}), None, "problem", "refused the token (401)"),
        ((500, b"<html>"), None, "problem", "(HTTP 500)"),
    ],
)
def test_the_live_call_proves_screening(
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    answer: Answer,
    recorded: tuple[str, str] | None,
    status: str,
    said: str,
) -> None:
    monkeypatch.setattr(live_call, "_RECORD_SECONDS", 0.3)

    def screen() -> None:
        if recorded is None:
            return
        jti = "token-1" if recorded[0] == TOKEN else "token-2"
        record = encode_call(
            ts=1.0,
            worker=7,
            seq=1,
            tenant="t1",
            user="alice",
            tool=recorded[1],
            token=digest(site.state.key, repr(("token", jti))),
        )
        site.journal.append([packed(b"not a record", record)])

    gateway = Gateway(answer, screen)
    try:
        _, found = doctor(site, "--url", gateway.url, "--tool", TOOL, "--arguments", '{"q": 1}',
                          env={"TOOL_FIREWALL_TOKEN": TOKEN})  # fmt: skip
    finally:
        gateway.close()
    (finding,) = found["live call"]
    assert (finding["status"], said in finding["text"]) == (status, True), finding
    ((path, authorization, body),) = gateway.asked
    assert (path, authorization) == ("/rpc", f"Bearer {TOKEN}")
    assert body["params"] == {"name": TOOL, "arguments": {"q": 1}}


def test_a_late_record_is_waited_for_and_the_token_may_come_from_standard_input(site: Site) -> None:
    record = encode_call(ts=1.0, worker=7, seq=1, tenant="", user="a", tool="db_query",
                         token=digest(site.state.key, repr(("token", "token-1"))))  # fmt: skip
    late = threading.Timer(0.6, site.journal.append, [[packed(record)]])
    gateway = Gateway((200, RESULT), late.start)
    try:
        code, found = doctor(site, "--url", gateway.url + "/", "--tool", TOOL, stdin=TOKEN + "\n")
    finally:
        gateway.close()
        late.join()
    assert (code, found["live call"][0]["status"]) == (0, "ok")


def test_no_token_and_no_gateway(site: Site) -> None:
    _, found = doctor(site, "--url", "http://127.0.0.1:9", "--tool", TOOL, stdin="")
    assert problems(found) == {"live call": "no token"}
    _, found = doctor(site, "--url", "http://127.0.0.1:9", "--tool", TOOL, stdin=TOKEN)
    assert "gave no answer (ConnectError" in problems(found)["live call"]
    _, found = doctor(site, "--url", "nonsense", "--tool", TOOL, stdin=TOKEN)
    assert "gave no answer" in problems(found)["live call"]


def test_the_token_never_appears(site: Site) -> None:
    result = run(
        "doctor", "--state", str(site.folder), "--url", "http://127.0.0.1:9", "--tool", TOOL, stdin=TOKEN
    )
    assert TOKEN not in result.output
