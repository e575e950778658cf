"""Requests that a machine thought of: no fault, and no answer that the API document denies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from agents.models import Agent, Host
from opscore.config import ROOT
from opscore.models import Project
from tests.api.fuzz_world import DEAD_HOST, HOST, SPEC, SUPERVISED, World
from tests.live_server import Server

DOCUMENT = yaml.load((ROOT / "docs/openapi.yaml").read_text(), yaml.CSafeLoader)
#: Generated requests for each operation, beside those at the edges of what its schema allows.
#: 2 make 5,700 requests, most of them at the edges; 25 make more than 9,000.
EXAMPLES = os.environ.get("OPSCORE_TEST_FUZZ_EXAMPLES", "25")
MAX_GROWTH_MIB = 50
#: They have no end.
_NO_STREAMS = ("--exclude-path-regex", "/stream$")
FUZZ = [
    sys.executable,
    "-m",
    "schemathesis.cli",
    "--config-file",
    str(ROOT / "tests/api/fuzz.toml"),
]


@pytest.fixture
def world(server: Server) -> Iterator[World]:
    with server.client() as client:
        yield World(client)


def memory_of(server: Server) -> int:
    """Return how many MiB of memory the web server's processes have."""
    port = server.url.rpartition(":")[2]
    # Children of other tests may have ended, and wait for being collected.
    children = psutil.process_iter(["ppid", "cmdline"])
    mine = [child for child in children if child.info["ppid"] == os.getpid()]
    [main] = [child for child in mine if {"granian", port} <= set(child.info["cmdline"] or ())]
    [worker] = main.children()
    return (main.memory_info().rss + worker.memory_info().rss) >> 20


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_operation_answers_as_the_document_says(
    server: Server, project: Project, tmp_path: Path
) -> None:
    Agent.objects.create(project=project, name=SUPERVISED, kind="worker", host=HOST)
    specs = {SPEC: {"kind": "worker", "capabilities": [], "labels": [], "replicas": 1}}
    for name in (HOST, DEAD_HOST):
        Host.objects.create(project=project, name=name, specs=specs)
    counts = tmp_path / "counts.json"
    fuzz = {"FUZZ_URL": server.url, "FUZZ_KEY": server.key, "FUZZ_COUNTS": str(counts)}
    before = memory_of(server)
    done = subprocess.run(
        [*FUZZ, "run", f"{server.url}/api/v1/schema", "--max-examples", EXAMPLES, *_NO_STREAMS],
        cwd=tmp_path,
        env={**os.environ, **fuzz, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    grown = memory_of(server) - before
    assert done.returncode == 0, done.stdout + done.stderr
    answers = json.loads(counts.read_text())
    print(f"{sum(sum(c.values()) for c in answers.values())} requests, {grown} MiB more")
    succeeded = {label for label, codes in answers.items() if any(c < "300" for c in codes)}
    asked = {label for label, _ in operations() if not label.endswith("/stream")}
    only_refused = asked - succeeded
    assert not only_refused
    assert grown < MAX_GROWTH_MIB


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name, as `GET /api/v1/tasks`, and the description of each operation."""
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


# ------------------------------------------------------------ bad bodies
#: JSON texts in the place of one field.
BAD_VALUES: Mapping[str, str] = {
    "deep list": "[" * 100_000 + "]" * 100_000,
    "deep map": '{"a":' * 1_000 + "1" + "}" * 1_000,
    "never closed": "[" * 100_000,
    "NaN": "NaN",
    "infinity": "-Infinity",
    "float too large": "1e400",
    "integer of 64 bits and more": str(2**63),
    "integer of 30 digits": "9" * 30,
    "negative integer of 30 digits": "-" + "9" * 30,
    "integer of 5000 digits": "9" * 5000,
    "NUL": '"a\\u0000b"',
    "NUL in a key": '{"a\\u0000b": 1}',
    "half a surrogate pair": '"a\\ud800b"',
    "half a surrogate pair in a key": '{"a\\udfffb": 1}',
    "long text": '"' + "x" * 100_000 + '"',
    "odd text": '"\\u202e\\ufeff\\u0085\\ud83d\\ude00${{ inputs }}%s%00\'"',
    "blank": '" "',
    "time out of range": '"0001-01-01T00:00:00+14:00"',
    "last moment of all": '"9999-12-31T23:59:59.999999-14:00"',
    "null": "null",
    "boolean": "false",
    "empty list": "[]",
    "nested empty lists": "[[], {}, [null]]",
    "empty map": "{}",
}
_BOMB = "".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]\n" for n in range(1, 10))
#: Whole bodies with the media type that they claim.
BAD_BODIES: Mapping[str, tuple[str, bytes]] = {
    "nothing": ("application/json", b""),
    "no JSON": ("application/json", b"{"),
    "two values": ("application/json", b"{} {}"),
    "a list": ("application/json", b"[]"),
    "a text": ("application/json", b'"text"'),
    "a number": ("application/json", b"0"),
    "a NUL byte": ("application/json", b"\x00"),
    "invalid UTF-8": ("application/json", b'{"a": "\xff\xfe"}'),
    "overlong UTF-8": ("application/json", b'{"a": "\xc0\xaf"}'),
    "a surrogate in UTF-8": ("application/json", b'{"\xed\xa0\x80": 1}'),
    "UTF-16": ("application/json; charset=utf-16", '{"a": 1}'.encode("utf-16")),
    "a key twice": ("application/json", b'{"name": 1, "name": 2, "fence": 1, "fence": 2}'),
    "YAML": ("application/yaml", b"name: x"),
    "YAML aliases": ("application/yaml", f"x0: &x0 boom\n{_BOMB}".encode()),
    "YAML alias of itself": ("application/yaml", b"&a [*a]"),
    "YAML tag": ("application/yaml", b"!!python/object/apply:os.abort []"),
    "YAML of many documents": ("text/yaml", b"---\n{}\n" * 1000),
    "deep YAML": ("application/x-yaml", b"[" * 50_000),
    "YAML of invalid UTF-8": ("application/yaml", b"name: \xff"),
    "form": ("application/x-www-form-urlencoded", b"a=b&a=c"),
    "form with files": ("multipart/form-data; boundary=x", b"--x\r\n\r\n--x--"),
    "form without a boundary": ("multipart/form-data", b"--x"),
    "text": ("text/plain", b"{}"),
    "no type": ("", b"{}"),
    "no known type": ("application/\xe9;;=;charset", b"{}"),
    "unknown character set": ("application/json; charset=nothing", b"{}"),
}


def with_body() -> list[str]:
    """Return the names of the operations that take a body."""
    return [label for label, operation in operations() if "requestBody" in operation]


@pytest.mark.parametrize("label", with_body())
def test_bad_value_in_any_field_is_an_error_of_the_client(
    server: Server, world: World, label: str
) -> None:
    good = world.body(label, example(schema_of(label)), 1)
    with server.client() as client:
        send = Sender(client, world, label, "application/json")
        for name in [*good, "unknown"]:
            for bad, value in BAD_VALUES.items():
                fields = {key: json.dumps(other) for key, other in good.items()} | {name: value}
                body = "{" + ", ".join(f'"{key}": {text}' for key, text in fields.items()) + "}"
                send(body.encode(), f"{name} = {bad}")


@pytest.mark.parametrize("bad", BAD_BODIES)
def test_bad_body_is_an_error_of_the_client(server: Server, world: World, bad: str) -> None:
    kind, body = BAD_BODIES[bad]
    with server.client() as client:
        for label in with_body():
            Sender(client, world, label, kind)(body, label)


class Sender:
    """Sends bodies to one operation, whose path names a thing in the right state for it."""

    def __init__(self, client: httpx.Client, world: World, label: str, kind: str) -> None:
        self._client = client
        self._world = world
        self._method, self._template = label.split()
        self._path = world.fitting(self._template)
        self._headers = [(b"Content-Type", kind.encode("latin-1"))] if kind else []

    def __call__(self, body: bytes, what: str) -> None:
        answer = self._client.request(self._method, self._path, content=body, headers=self._headers)
        assert answer.status_code < 500, f"{what}: {answer.text}"
        if answer.is_success:
            # It was not so bad, and what it met is in another state now.
            self._path = self._world.fitting(self._template)
        else:
            assert answer.headers["Content-Type"] == "application/problem+json", what
            assert answer.json()["status"] == answer.status_code, what


def schema_of(label: str) -> dict[str, Any]:
    """Return the schema of an operation's body."""
    operation = dict(operations())[label]
    found: dict[str, Any] = operation["requestBody"]["content"]["application/json"]["schema"]
    return found


def example(schema: Mapping[str, Any]) -> Any:
    """Return a value that meets a schema, with every field."""
    if "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if "allOf" in schema:
        return example(schema["allOf"][0])
    if "oneOf" in schema:
        return example(schema["oneOf"][0])
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("format") == "uuid":
        return "00000000-0000-0000-0000-000000000001"
    kinds = schema.get("type", "object")
    # ["string", "null"]: what may be null too.
    kind = kinds[0] if isinstance(kinds, list) else kinds
    if kind == "object":
        return {name: example(inner) for name, inner in schema.get("properties", {}).items()}
    simple = {"string": "x", "integer": 1, "number": 0, "boolean": True}
    return [example(schema["items"])] if kind == "array" else simple[kind]
