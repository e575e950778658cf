"""The examples of the API document are answers that the API gives.

`OPSCORE_TEST_RECORD=1 pytest tests/api/test_examples.py` writes them anew; `make openapi` then.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

import pytest

from agents.models import Agent, Host
from opscore.api.examples import FILE
from opscore.models import Project
from tests.api.fuzz_world import DEAD_HOST, HOST, SPEC, SUPERVISED, World
from tests.api.test_fuzz import operations
from tests.live_server import Server

#: What is another one in each answer, and nothing for a public document.
_SECRET = re.compile("ok_[0-9a-z]+_|whsec_")


BODIES: Mapping[str, Any] = {
    "POST /api/v1/apply": {
        "files": [{"path": "pay.yaml", "text": "name: pay\ntasks: {a: {capability: pay}}"}]
    },
    "PUT /api/v1/capabilities/{name}/route": {"strategy": "least_loaded"},
    "PUT /api/v1/hosts/{name}/specs/{spec}": {"replicas": 2},
    "POST /api/v1/keys": {"name": "ci", "scopes": ["read", "write"]},
    "POST /api/v1/tasks": {"capability": "review", "inputs": {"repo": "shop"}, "priority": 7},
    "POST /api/v1/tasks/bulk": {"tasks": [{"capability": "review", "inputs": {"repo": "shop"}}]},
    "POST /api/v1/tasks/{task_id}/logs": {"fence": 1, "lines": ["Reading 3 files"]},
    "POST /api/v1/tasks/{task_id}/approval": {"decision": "approve", "comment": "Good."},
    "PUT /api/v1/runs/{run_id}/context/{key}": {"value": {"files": ["a.py"]}},
}


@pytest.mark.slow
def test_examples_are_answers(server: Server, project: Project) -> None:
    Agent.objects.create(project=project, name=SUPERVISED, kind="worker", host=HOST)
    specs = {SPEC: {"kind": "worker", "capabilities": ["review"], "labels": [], "replicas": 1}}
    for name in (HOST, DEAD_HOST):
        Host.objects.create(project=project, name=name, specs=specs)
    with server.client() as client:
        answers = dict(recorded(World(client)))
    if os.environ.get("OPSCORE_TEST_RECORD"):
        FILE.write_text(json.dumps(dict(sorted(answers.items())), indent=1) + "\n")
    kept = json.loads(FILE.read_text())
    assert shapes(kept) == shapes(answers)
    assert set(wanted().values()) == set(kept)


def wanted() -> dict[str, str]:
    """Return operation -> component of its answer, or of one row of it."""
    found = {}
    for label, operation in operations():
        for status, answer in operation["responses"].items():
            schema = answer.get("content", {}).get("application/json", {}).get("schema", {})
            name = schema.get("$ref", "").rpartition("/")[2]
            if name and status.startswith("2"):
                found[label] = re.sub(r"^Paginated(\w+)List$", r"\1", name)
    return found


def recorded(world: World) -> Iterator[tuple[str, Any]]:
    """Ask everything once, what changes something first; yield component and answer."""
    described, numbers = dict(operations()), count(1)
    added: dict[str, str] = {}
    names = wanted()
    for label in sorted({*names, *BODIES}, key=lambda label: (label.startswith("GET"), label)):
        method, path = label.split()
        body = None
        if "requestBody" in described[label]:
            body = BODIES.get(label) or world.body(label, {}, next(numbers))
        # Where something was just added, a list shows it.
        own = added.get(path) or world.fitting(path)
        answer = world.client.request(method, own, json=body)
        print(label, answer.status_code, answer.text[:200])  # what pytest shows when it fails
        shown = answer.json() if answer.is_success and answer.content else {}
        if method == "POST" and answer.is_success:
            added[path] = own
            added[path.removesuffix("/{name}")] = own.removesuffix("/go")
        if label == "POST /api/v1/pauses":
            world.resume(shown["workflow"])  # else nothing that follows would begin
        if shown:
            for row in shown["results"][:1] if "next" in shown else [shown]:
                yield names[label], tidy(row)


def tidy(shown: Any) -> Any:
    """Return an answer with nothing in it that somebody could take for a secret."""
    if isinstance(shown, list):
        return [tidy(one) for one in shown]
    if isinstance(shown, dict):
        return {name: tidy(value) for name, value in shown.items()}
    begins = _SECRET.match(shown) if isinstance(shown, str) else None
    return f"{begins[0]}…" if begins else shown


def shapes(answers: dict[str, Any]) -> dict[str, list[str]]:
    return {name: sorted(answer) for name, answer in answers.items()}
