"""Health, the API's document, and static files."""

from __future__ import annotations

import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from django.core.management import call_command
from django.db import transaction
from django.test import Client

from opscore.api import document
from opscore.api.threads import THREADS
from opscore.config import ROOT, load_config
from opscore.database import query
from tests.conftest import WaitUntil
from tests.live_server import Server

pytestmark = pytest.mark.django_db


def test_health_names_the_parts_and_needs_no_key(client: Client) -> None:
    for path in ("/health", "/api/v1/ready"):
        answer = client.get(path)
        assert answer.status_code == 200
        body = answer.json()
        assert body["status"] == "ok"
        assert body["version"]
        assert {name: part["status"] for name, part in body["components"].items()} == {
            "database": "ok",
            "broker": "ok",
        }


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:1/0", "redis+socket:///nowhere.sock", "amqp://x.invalid//"]
)
def test_a_broker_that_is_away_makes_it_degraded_but_never_an_error(
    client: Client, settings: Any, url: str
) -> None:
    settings.CELERY_BROKER_URL = url
    health, ready = client.get("/health"), client.get("/ready")
    assert (health.status_code, ready.status_code) == (200, 503)
    assert health.json()["status"] == "degraded"
    assert health.json()["components"]["broker"]["status"] == "down"
    assert "127.0.0.1" not in health.content.decode()


@pytest.mark.parametrize("scheme", ["rediss", "amqps"])
def test_a_broker_behind_tls_is_asked_in_tls(client: Client, settings: Any, scheme: str) -> None:
    first = ThreadPoolExecutor(1)
    with socket.create_server(("127.0.0.1", 0)) as broker, first:
        settings.CELERY_BROKER_URL = f"{scheme}://127.0.0.1:{broker.getsockname()[1]}"

        def hear() -> bytes:
            asker, _ = broker.accept()
            with asker:
                return asker.recv(1)

        heard = first.submit(hear)
        assert client.get("/ready").status_code == 503
        assert heard.result(5) == b"\x16", "no handshake"


def test_services_that_say_nothing_are_down_after_two_seconds(
    client: Client, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        settings.CELERY_BROKER_URL = f"redis://{address}"
        monkeypatch.setattr(load_config(), "database_url", f"postgresql://{address}/x")
        began = time.monotonic()
        parts = client.get("/health").json()["components"]
    assert {part["status"] for part in parts.values()} == {"down"}
    assert time.monotonic() - began < 3


def test_a_database_that_is_away_makes_it_degraded(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_config(), "database_url", "postgresql://127.0.0.1:1/x")
    assert client.get("/health").json()["components"]["database"]["status"] == "down"


def test_document_is_complete_and_the_one_in_docs(tmp_path: Path) -> None:
    made = tmp_path / "openapi.yaml"
    call_command("spectacular", "--validate", "--fail-on-warn", "--file", str(made))
    written = ROOT / "docs" / "openapi.yaml"
    assert made.read_text() == written.read_text(), (
        "run: python manage.py spectacular --file docs/openapi.yaml"
    )


def test_document_says_what_bodies_and_lists_take() -> None:
    document = yaml.safe_load((ROOT / "docs" / "openapi.yaml").read_text())
    submit = document["components"]["schemas"]["Submit"]
    assert submit["additionalProperties"] is False
    assert re.fullmatch(submit["properties"]["capability"]["pattern"], "a")
    assert not re.search(submit["properties"]["capability"]["pattern"], " \t\x1f")
    assert "additionalProperties" not in document["components"]["schemas"]["TaskDetail"]
    parameters = {
        (path, parameter["name"]): parameter["schema"]
        for path, methods in document["paths"].items()
        for operation in methods.values()
        for parameter in operation.get("parameters", [])
    }
    assert parameters["/api/v1/tasks", "after"] == {"type": "string", "format": "uuid"}
    assert parameters["/api/v1/events", "after"] == {"type": "integer"}
    assert "waiting" in parameters["/api/v1/tasks", "status"]["items"]["enum"]
    assert re.fullmatch(parameters["/api/v1/tasks", "Idempotency-Key"]["pattern"], "a-1")


def test_document_and_its_page_are_served_without_key_and_from_here(client: Client) -> None:
    assert b"openapi: 3.1" in client.get("/api/v1/schema").content
    for path, word in (("/api/v1/docs", "swagger-ui"), ("/api/v1/redoc", "redoc.standalone.js")):
        page = client.get(path)
        assert page["Content-Type"].startswith("text/html")
        text = page.content.decode()
        assert word in text
        assert "https://" not in text
        for file in re.findall(r'(?:src|href)="(/static/[^"]+)"', text):
            assert client.get(file).status_code == 200, file
        assert client.post(path).status_code == 405


def test_pages_of_the_document_may_run_their_scripts(client: Client) -> None:
    for path, workers in (("/api/v1/docs", ""), ("/api/v1/redoc", "'self' blob:")):
        rules = client.get(path)["Content-Security-Policy"].split("; ")
        assert "script-src 'self'" in rules
        assert (f"worker-src {workers}" in rules) is bool(workers)


def test_document_is_made_once_and_in_the_format_that_is_asked_for(client: Client) -> None:
    document._rendered.cache_clear()
    for _ in range(3):
        assert client.get("/api/v1/schema").content.startswith(b"openapi: 3.1")
    assert document._rendered.cache_info().misses == 1
    for answer in (
        client.get("/api/v1/schema?format=json"),
        client.get("/api/v1/schema", headers={"Accept": "application/json"}),
    ):
        shown = answer.json()
        assert shown["components"]["securitySchemes"]["ApiKey"]["scheme"] == "bearer"
    wrong = client.get("/api/v1/schema?format=xml")
    assert (wrong.status_code, wrong.json()["code"]) == (400, "invalid")
    assert client.get("/api/v1/schema", headers={"Accept": "text/html"}).status_code == 200


@pytest.mark.django_db(transaction=True)
def test_stuck_requests_end_and_do_not_hide_that_the_platform_is_well(
    server: Server, wait_until: WaitUntil
) -> None:
    waiting = "SELECT count(*) AS n FROM pg_locks WHERE NOT granted"
    with server.client() as client, ThreadPoolExecutor(THREADS) as pool:
        with transaction.atomic():
            query("LOCK TABLE workflows_workflow", {})
            stuck = [pool.submit(client.get, "/workflows") for _ in range(THREADS)]
            wait_until(lambda: query(waiting, {})[0]["n"] == THREADS)
            assert client.get("/health", timeout=3).json()["status"] == "ok"
            answers = [one.result() for one in stuck]
        assert {answer.status_code for answer in answers} == {503}
        assert client.get("/workflows").status_code == 200


def test_static_files_come_without_debug_and_are_cached(client: Client) -> None:
    path = "/static/unfold/css/styles.css"
    first = client.get(path)
    assert first.status_code == 200
    assert first["Content-Type"].startswith("text/css")
    again = client.get(path, headers={"If-Modified-Since": first["Last-Modified"]})
    assert (again.status_code, again.content) == (304, b"")
    for bad in ("/static/nothing.css", "/static/unfold", "/static/../opscore/settings.py"):
        assert client.get(bad).status_code == 404
    assert client.post(path).status_code in {403, 404}


def test_root_leads_to_the_admin_and_the_admin_to_its_login(client: Client) -> None:
    assert client.get("/")["Location"] == "/admin/"
    assert "/admin/login/" in client.get("/admin/")["Location"]


@pytest.mark.django_db(transaction=True)
def test_pages_leave_no_connection_behind(server: Server) -> None:
    def see() -> int:
        # Any session makes Django look it up.
        page = httpx.get(f"{server.url}/admin/login/", headers={"Cookie": f"sessionid={'x' * 32}"})
        assert page.status_code == 200
        sql = "SELECT count(*) AS open FROM pg_stat_activity WHERE datname = current_database()"
        return int(query(sql, {})[0]["open"])

    before = see()
    assert max(see() for _ in range(10)) <= before + 1
