"""Routes of the in-memory platform: what the agents of a run share."""

from __future__ import annotations

import re
from typing import Any

from opscore_sdk.testing.records import TaskRecord
from opscore_sdk.testing.refusals import Refused, anything, checked, number, text
from opscore_sdk.testing.routing import Asked, Reply, find, page, route
from opscore_sdk.testing.task_routes import find_run

_PROOF = re.compile(r"([0-9a-fA-F-]{36})/([0-9]{1,9})")
_MAX_VERSION = 2**63 - 1
_MAX_TTL_S = 7 * 86400


@route("GET", "/runs/{run_id}/context")
def _entries(asked: Asked, run_id: str) -> Reply:
    find_run(asked, run_id)
    return Reply(200, {"entries": asked.sharing.entries(run_id)})


@route("GET", "/runs/{run_id}/context/{key}")
def _entry(asked: Asked, run_id: str, key: str) -> Reply:
    find_run(asked, run_id)
    return Reply(200, asked.sharing.get(run_id, key))


@route("PUT", "/runs/{run_id}/context/{key}")
def _put_entry(asked: Asked, run_id: str, key: str) -> Reply:
    version = number(0, _MAX_VERSION, whole=True)
    said = checked(asked.body, {"value": anything}, if_version=version)
    actor = _writer(asked, find_run(asked, run_id))
    entry, is_new = asked.sharing.put(run_id, key, said, actor)
    return Reply(201 if is_new else 200, entry)


@route("DELETE", "/runs/{run_id}/context/{key}")
def _delete_entry(asked: Asked, run_id: str, key: str) -> Reply:
    _writer(asked, find_run(asked, run_id))
    asked.sharing.delete(run_id, key, _if_version(asked))
    return Reply(204)


@route("GET", "/runs/{run_id}/messages")
def _messages(asked: Asked, run_id: str) -> Reply:
    find_run(asked, run_id)
    rows = [message.as_row() for message in asked.sharing.of(run_id)]
    return page(f"/runs/{run_id}/messages", rows, asked.query)


@route("POST", "/runs/{run_id}/messages")
def _send(asked: Asked, run_id: str) -> Reply:
    fields = {"topic": text(100), "body": anything, "ttl_s": number(1, _MAX_TTL_S)}
    said = checked(asked.body, {"to": _receiver}, **fields)
    actor = _writer(asked, find_run(asked, run_id))
    name = said["to"].get("agent")
    if name is not None and name not in asked.engine.agents:
        raise Refused(
            400, "The message is not valid.", {"to.agent": f"There is no agent {name!r}."}
        )
    message = asked.sharing.send(run_id, said, actor)
    row = message.as_row()
    return Reply(201, {field: row[field] for field in ("id", "sent_at", "expires_at")})


def _writer(asked: Asked, run: TaskRecord) -> str:
    """Return who writes: the agent of the attempt that a header names, else the key.

    Refused: the run, or the attempt, is over.
    """
    if run.has_ended:
        detail = f"The run is {run.status}; its context and messages are read-only."
        raise Refused(409, detail)
    proof = asked.headers.get("opscore-attempt")
    if proof is None:
        return asked.actor
    found = _PROOF.fullmatch(proof)
    if found is None:
        wrong = {"Opscore-Attempt": "expected <task id>/<fence> as the claim gave them"}
        raise Refused(400, "The attempt cannot be read.", wrong)
    task: TaskRecord = find(asked.engine.tasks, found[1], "task")
    if not asked.engine.holds(task.id, int(found[2])) or task.session is None:
        detail = "This attempt is over: it was given to another agent, cancelled, or reported."
        raise Refused(409, detail, code="attempt_over")
    return f"agent:{task.session.agent.name}"


def _if_version(asked: Asked) -> int | None:
    said = asked.query.get("if_version")
    if said is not None and not (said.isascii() and said.isdigit() and len(said) < 19):
        raise Refused(400, "The entry is kept.", {"if_version": "is no version"})
    return None if said is None else int(said)


def _receiver(value: Any) -> str:
    good = isinstance(value, dict) and set(value) in ({"agent"}, {"capability"})
    good = good and all(isinstance(word, str) and 0 < len(word) <= 100 for word in value.values())
    return "" if good else 'say {"agent": name} or {"capability": word}'
