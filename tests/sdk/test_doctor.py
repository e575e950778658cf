"""`opscore doctor` and `opscore apply`: against a stub, nobody, and the live platform."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

import opscore_sdk
from opscore_sdk.outside import OutsideError, look
from tests.sdk.conftest import Stub

KEY = {"name": "first", "prefix": "abc", "scopes": ["admin"], "expires_at": None}


def health(version: str = opscore_sdk.__version__, database: str = "ok") -> dict[str, Any]:
    parts = {"database": {"status": database, "ms": 1}, "broker": {"status": "ok", "ms": 1}}
    return {"status": "ok", "version": version, "components": parts}


def finding(
    part: str, status: str = "ok", message: str = "well", advice: str = ""
) -> dict[str, Any]:
    return {"part": part, "status": status, "message": message, "advice": advice}


def well(stub: Stub, *findings: dict[str, Any], key: dict[str, Any] = KEY) -> None:
    stub.on("GET /health", health())
    stub.on("GET /ready", health())
    stub.on("GET /diagnostics", {"key": key, "findings": list(findings)})


def told(done: Any) -> dict[str, str]:
    """Part -> its last status."""
    return {row["part"]: row["status"] for row in json.loads(done.stdout)["findings"]}


def test_a_healthy_platform_ends_with_0(stub: Stub, asking: Any) -> None:
    well(stub, finding("beat"), finding("agents", "ok", "3 active"))
    done = asking("doctor")
    assert done.returncode == 0, done.stdout
    assert "ok    agents        3 active" in done.stdout
    assert done.stdout.endswith("checks are well.\n")
    rows = told(asking("doctor", "--json"))
    assert set(rows) >= {
        "client",
        "address",
        "server",
        "TLS",
        "clock",
        "versions",
        "ready",
        "key",
        "beat",
    }
    assert set(rows.values()) == {"ok"}


def test_what_fails_ends_with_1_and_says_what_to_do(stub: Stub, asking: Any) -> None:
    well(stub, finding("agents", "fail", "lint-1 was given up", "restart it"), finding("x", "warn"))
    done = asking("doctor")
    assert done.returncode == 1
    assert "fail  agents        lint-1 was given up\n" in done.stdout
    assert "→ restart it" in done.stdout
    assert "1 of " in done.stdout.splitlines()[-1]
    assert json.loads(asking("doctor", "--json").stdout)["ok"] is False


def test_warnings_alone_end_with_0(stub: Stub, asking: Any) -> None:
    well(stub, finding("beat", "warn", "silent", "start it"))
    done = asking("doctor")
    assert (done.returncode, "→ start it" in done.stdout) == (0, True)


def test_a_server_that_is_down_is_said_and_the_client_shown(stub: Stub, asking: Any) -> None:
    done = asking("doctor", OPSCORE_API_URL="http://127.0.0.1:9")
    assert done.returncode == 1
    assert f"opscore-sdk {opscore_sdk.__version__}" in done.stdout
    assert "Nobody answers at 127.0.0.1:9" in done.stdout
    assert done.stderr == ""


def test_without_any_address_the_client_is_shown(asking: Any) -> None:
    done = asking("doctor", OPSCORE_API_URL="", OPSCORE_API_KEY="")
    assert done.returncode == 1
    assert "OPSCORE_API_URL is not set" in done.stdout


def test_something_else_that_answers_is_no_platform(stub: Stub, asking: Any) -> None:
    stub.on("GET /health", ["hello"])
    done = asking("doctor")
    assert (done.returncode, "is no Ops-Core" in done.stdout) == (1, True)


@pytest.mark.parametrize(
    ("status", "part", "expected"),
    [
        (401, "key", (1, "fail")),
        (403, "key", (0, "warn")),
        (404, "platform", (0, "warn")),
        (500, "platform", (1, "fail")),
    ],
)
def test_what_the_key_may_not_see(
    stub: Stub, asking: Any, status: int, part: str, expected: tuple[int, str]
) -> None:
    stub.on("GET /health", health())
    stub.on("GET /ready", health())
    stub.on("GET /diagnostics", {"detail": "No, not with this one."}, status)
    done = asking("doctor", "--json", OPSCORE_API_KEY="ok_abcdef_verysecret")
    assert (done.returncode, told(done)[part]) == expected
    assert "verysecret" not in done.stdout


def test_a_key_that_expires_soon_is_warned_of(stub: Stub, asking: Any) -> None:
    soon = (datetime.now(UTC) + timedelta(days=3)).isoformat()
    well(stub, key={**KEY, "expires_at": soon})
    done = asking("doctor")
    assert "warn  key" in done.stdout
    assert "opscore key rotate abc" in done.stdout


def test_parts_versions_and_clocks_that_are_wrong(stub: Stub, asking: Any) -> None:
    late = format_datetime(datetime.now(UTC) + timedelta(minutes=5), usegmt=True)
    stub.on("GET /health", health("9.1.0", database="down"), 200, X_Date=late)
    stub.on("GET /ready", {"detail": "the database is away"}, 503)
    stub.on("GET /diagnostics", {"detail": "The database does not answer."}, 503)
    rows = told(done := asking("doctor", "--json"))
    assert done.returncode == 1
    assert (rows["versions"], rows["server's database"], rows["ready"]) == ("warn", "fail", "fail")


def test_the_server_s_clock_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    def get(url: str, **_: Any) -> httpx.Response:
        late = format_datetime(datetime.now(UTC) + timedelta(minutes=5), usegmt=True)
        return httpx.Response(200, json=health(), headers={"Date": late})

    monkeypatch.setattr(httpx, "get", get)
    seen = look("http://127.0.0.1:1")
    assert seen.apart_s is not None
    assert 290 < seen.apart_s < 310


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://nowhere.invalid", "No address is known"),
        ("http://127.0.0.1:9", "Nobody answers"),
    ],
)
def test_why_a_server_cannot_be_reached(url: str, said: str) -> None:
    with pytest.raises(OutsideError, match=said) as raised:
        look(url)
    assert raised.value.advice


def test_http_where_tls_is_spoken(stub: Stub) -> None:
    with pytest.raises(OutsideError, match="does not speak TLS"):
        look(stub.url.replace("http://", "https://"))


SETTINGS = "schedules:\n  nightly: {workflow: review, cron: '0 3 * * *'}\n"
WORKFLOW = "name: review\ntasks: {a: {capability: add}}\n"


@pytest.mark.django_db(transaction=True)
def test_the_live_platform_is_examined(opscore: Any) -> None:
    done = opscore("doctor", "--json")
    rows = told(done)
    assert rows["key"] == rows["database"] == rows["migrations"] == rows["queues"] == "ok"
    assert done.returncode == 0


@pytest.mark.django_db(transaction=True)
def test_files_are_applied(opscore: Any, tmp_path: Path) -> None:
    folder = tmp_path / "platform"
    (folder / ".hidden").mkdir(parents=True)
    (folder / ".hidden" / "x.yaml").write_text("no: thing\n")
    (folder / "a.yaml").write_text(SETTINGS)
    (folder / "b.yml").write_text(WORKFLOW)
    dry = opscore("apply", "platform", "--dry-run")
    assert (dry.returncode, dry.stdout.splitlines()) == (
        0,
        [
            "workflow review would be created",
            "schedule nightly would be created",
            "2 to create, 0 to change; nothing was changed, 0 as they were.",
        ],
    )
    done = opscore("apply", "platform")
    assert done.stdout.splitlines()[0] == "workflow review created (version 1)"
    again = opscore("apply", "platform", "platform/a.yaml", "--json")
    assert {one["change"] for one in json.loads(again.stdout)["changes"]} == {"unchanged"}
    (folder / "a.yaml").write_text(SETTINGS.replace("0 3", "0 4"))
    changed = opscore("apply", "platform/a.yaml")
    assert changed.stdout.splitlines()[0] == "schedule nightly changed"
    assert "    -cron: 0 3 * * *" in changed.stdout.splitlines()
    assert opscore("schedule", "pause", "nightly").stdout == "nightly is paused\n"
    assert "paused" in opscore("schedule", "show", "nightly").stdout


@pytest.mark.django_db(transaction=True)
def test_what_cannot_be_applied_is_named_with_its_line(opscore: Any, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(SETTINGS.replace("cron:", "corn:"))
    (tmp_path / "b.yaml").write_text("x: 1\n")
    done = opscore("apply", "a.yaml", "b.yaml")
    assert done.returncode == 2
    assert any(
        line.startswith("a.yaml:2: schedules.nightly.corn: ") for line in done.stderr.splitlines()
    )
    assert any(line.startswith("b.yaml:1: ") for line in done.stderr.splitlines())
    (tmp_path / "empty").mkdir()
    assert "holds no .yaml" in opscore("apply", "empty").stderr
    missing = opscore("apply", "nothing.yaml")
    assert (missing.returncode, "cannot be read" in missing.stderr) == (2, True)
