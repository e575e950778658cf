"""`/health` and `/ready`: what works and what does not, without a key, within two seconds."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import psycopg
from django.conf import settings
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from opscore import __version__
from opscore.api.endpoint import Endpoint
from opscore.api.schema import name_enum
from opscore.config import load_config

TIMEOUT_S = 2
_PORTS = {"amqp": 5672, "amqps": 5671}
_ENCRYPTED = ("amqps", "rediss")
COMPONENT = ("ok", "down")
PLATFORM = ("ok", "degraded")
name_enum("ComponentStatus", COMPONENT)
name_enum("PlatformStatus", PLATFORM)


class ComponentSerializer(serializers.Serializer[Any]):
    """One service that the platform stands on."""

    status = serializers.ChoiceField(COMPONENT)
    ms = serializers.FloatField(help_text="How long the check took.")


class HealthSerializer(serializers.Serializer[Any]):
    """`status` is `ok` while everything answers, else `degraded`."""

    status = serializers.ChoiceField(PLATFORM)
    version = serializers.CharField()
    components = serializers.DictField(child=ComponentSerializer())


class Health(Endpoint):
    """Is the platform well? Always 200 while the web server works."""

    apart = True
    is_probed = True

    @extend_schema(responses=HealthSerializer, operation_id="health")
    def get(self, request: Request) -> Response:
        """Say how the platform is; needs no key."""
        return Response(present_health())


class Ready(Endpoint):
    """Should traffic come here? 503 while the database or the broker is away."""

    apart = True
    is_probed = True

    @extend_schema(responses={200: HealthSerializer, 503: HealthSerializer}, operation_id="ready")
    def get(self, request: Request) -> Response:
        """Say whether this process can serve requests; needs no key."""
        health = present_health()
        return Response(health, status=200 if health["status"] == "ok" else 503)


def present_health() -> dict[str, Any]:
    """Return status, version and the state of database and broker, within two seconds."""
    database_url = load_config().service_url("database_url")
    # Side by side, and nobody waits for one that is too slow: it ends by its own time limits.
    pool = ThreadPoolExecutor(2, thread_name_prefix="health")
    asked = {
        "database": pool.submit(_component, lambda: _ask_database(database_url)),
        "broker": pool.submit(_component, lambda: _ask_broker(str(settings.CELERY_BROKER_URL))),
    }
    pool.shutdown(wait=False)
    wait(asked.values(), TIMEOUT_S)
    components = {name: _answer(check) for name, check in asked.items()}
    well = all(part["status"] == "ok" for part in components.values())
    return {
        "status": "ok" if well else "degraded",
        "version": __version__,
        "components": components,
    }


def _answer(check: Future[dict[str, Any]]) -> dict[str, Any]:
    return check.result() if check.done() else {"status": "down", "ms": TIMEOUT_S * 1000.0}


def _component(ask: Callable[[], None]) -> dict[str, Any]:
    started = time.monotonic()
    try:
        ask()
        status = "ok"
    except Exception:  # noqa: BLE001 - whatever it is, the service does not answer
        status = "down"
    # Why it is down stands in the log of whoever needed it; strangers need not know.
    return {"status": status, "ms": round((time.monotonic() - started) * 1000, 1)}


def _ask_database(url: str) -> None:
    if not url:
        raise ConnectionError("no URL: libpq would look for a database of its own")
    # A connection of its own: a warm one can hang for minutes on a dead host.
    with psycopg.connect(url, connect_timeout=TIMEOUT_S, autocommit=True) as connection:
        connection.execute(f"SET statement_timeout = {TIMEOUT_S * 1000}")
        connection.execute("SELECT 1")


def _ask_broker(url: str) -> None:
    """Speak just enough of the broker's protocol to know that it is one."""
    with _connected(url) as broker:
        if urlsplit(url).scheme.startswith("amqp"):
            broker.sendall(b"AMQP\x00\x00\x09\x01")
        else:
            broker.sendall(b"PING\r\n")
        # PONG, or -NOAUTH: a server that asks for a password is alive.
        if not broker.recv(16):
            raise ConnectionError("the broker closed the connection")


def _connected(url: str) -> socket.socket:
    parts = urlsplit(url)
    if parts.hostname is None or "socket" in parts.scheme:
        path = parse_qs(parts.query).get("host", [unquote(parts.path)])[0]
        return _on_socket(path)
    port = parts.port or _PORTS.get(parts.scheme, 6379)
    plain = socket.create_connection((parts.hostname, port), timeout=TIMEOUT_S)
    return _encrypted(plain, parts.hostname) if parts.scheme in _ENCRYPTED else plain


def _encrypted(plain: socket.socket, host: str) -> socket.socket:
    context = ssl.create_default_context()
    # Nothing secret is sent here; whom to trust is up to those who send something.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        return context.wrap_socket(plain, server_hostname=host)
    except OSError:
        plain.close()
        raise


def _on_socket(path: str) -> socket.socket:
    broker = socket.socket(socket.AF_UNIX)
    try:
        broker.settimeout(TIMEOUT_S)
        broker.connect(path)
    except OSError:
        broker.close()
        raise
    return broker
