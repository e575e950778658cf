"""Workflows: check, draw, upload, list, execute."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from opscore_sdk.asking import Talk, ask, given, part, rows, waiting
from opscore_sdk.wire import Run, Uploaded, Valid, Workflow

YAML = "application/yaml"


def validate(text: str, *, media_type: str = YAML) -> Talk[Valid]:
    """Check a definition; InvalidError lists all problems, the answer has the warnings."""
    answer = yield from ask("POST", "/workflows/validate", text=text, media_type=media_type)
    return Valid.read(answer)


def draw(text: str, *, media_type: str = YAML, notation: str = "text") -> Talk[str]:
    """Return the graph of a definition, not stored; `notation`: text or mermaid."""
    query = {"format": notation}
    path = "/workflows/graph"
    answer = yield from ask("POST", path, text=text, media_type=media_type, query=query)
    return str(answer["graph"])


def graph(ref: str, *, notation: str = "text") -> Talk[str]:
    """Return the graph of a workflow's latest version; `notation`: text or mermaid."""
    path = f"/workflows/{part(ref)}/graph"
    answer = yield from ask("GET", path, query={"format": notation})
    return str(answer["graph"])


def upload(text: str, *, media_type: str = YAML) -> Talk[Uploaded]:
    """Store a definition as a new version, or find the version with this content."""
    answer = yield from ask("POST", "/workflows", text=text, media_type=media_type)
    return Uploaded.read(answer)


def update_workflow(
    ref: str, text: str, *, media_type: str = YAML, if_match: str | None = None
) -> Talk[Uploaded]:
    """Upload the next version of this workflow; ConflictError when `if_match`, the ETag of what
    you read, is not that of the present one.
    """
    headers = {} if if_match is None else {"If-Match": if_match}
    path = f"/workflows/{part(ref)}"
    answer = yield from ask("PUT", path, text=text, media_type=media_type, headers=headers)
    return Uploaded.read(answer)


def upload_file(path: str | Path) -> Talk[Uploaded]:
    """Upload a file; `.json` is JSON, everything else YAML. Raises OSError too."""
    text = Path(path).read_text("utf-8")
    return (yield from upload(text, media_type=media_type_of(path)))


def workflow(ref: str) -> Talk[Workflow]:
    """Return a workflow by id or name, with versions and latest definition."""
    answer = yield from ask("GET", f"/workflows/{part(ref)}")
    return Workflow.read(answer)


def workflows(*, limit: int = 50, name: str | None = None) -> Talk[list[Workflow]]:
    """Return the newest workflows; `name`: a part of the name."""
    return (yield from rows("/workflows", Workflow.read, limit, {"name": name}))


def execute(
    ref: str,
    *,
    inputs: Mapping[str, Any] | None = None,
    version: str | None = None,
    priority: int | None = None,
    fairness_key: str | None = None,
    idempotency_key: str | None = None,
    wait_s: float | None = None,
) -> Talk[Run]:
    """Start a run of a workflow, by id or name; without `version` of the latest one.

    With `wait_s` the answer waits so many seconds (at most 60) for the run's end.

    `fairness_key` says whose work it is, such as a customer; default: the API key's name. Where
    the work of several waits for the same agents, they take turns.
    """
    said = given(version=version, priority=priority, fairness_key=fairness_key)
    body = {"inputs": dict(inputs or {}), **said}
    path = f"/workflows/{part(ref)}/execute"
    once = {"idempotency_key": idempotency_key, **waiting(wait_s)}
    answer = yield from ask("POST", path, body=body, **once)
    return Run.read(answer)


def media_type_of(path: str | Path) -> str:
    """Return how a definition's file is uploaded: `.json` as JSON, all else as YAML."""
    return "application/json" if Path(path).suffix.lower() == ".json" else YAML
