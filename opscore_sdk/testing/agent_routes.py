"""Routes of the in-memory platform: agents and their sessions."""

from __future__ import annotations

import re
from typing import Any

from opscore_sdk.testing.records import AgentRecord, SessionRecord
from opscore_sdk.testing.refusals import Refused, checked, number, one_of, text, words
from opscore_sdk.testing.routing import FENCE, MAX_NUMBER, Asked, Reply, find, page, route

CLAIM_WAIT_MAX_S = 30.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,99}")
_KINDS = ("remote", "process", "http", "a2a", "mcp")


@route("GET", "/health")
def _health(asked: Asked) -> Reply:
    part = {"status": "ok", "ms": 0.0}
    parts = {"database": part, "broker": part}
    return Reply(200, {"status": "ok", "version": "memory", "components": parts})


@route("GET", "/agents")
def _agents(asked: Asked) -> Reply:
    engine, query = asked.engine, asked.query
    rows = [agent.as_dict(engine.running(agent)) for agent in engine.agents.values()]
    for name in ("status", "kind"):
        if name in query:
            rows = [row for row in rows if row[name] in query[name].split(",")]
    if "capability" in query:
        rows = [row for row in rows if query["capability"] in row["capabilities"]]
    return page("/agents", rows, query)


@route("POST", "/agents")
def _register(asked: Asked) -> Reply:
    said = checked(
        asked.body,
        {"name": text(100), "kind": one_of(*_KINDS)},
        spec=text(100),
        capabilities=words,
        labels=words,
        concurrency=number(1, 1000, whole=True),
    )
    if not _NAME.fullmatch(said["name"]):
        rule = "1 to 100 letters, digits, '_', '.', '@' or '-', a letter or digit first"
        raise Refused(400, "This agent cannot be registered.", {"name": f"a name is {rule}"})
    offered = said.get("capabilities", []), said.get("labels", []), said.get("concurrency")
    agent, created = asked.engine.register(said["name"], said["kind"], *offered)
    return Reply(201 if created else 200, _shown(asked, agent))


@route("GET", "/agents/{ref}")
def _agent(asked: Asked, ref: str) -> Reply:
    return Reply(200, _shown(asked, _find_agent(asked, ref)))


@route("DELETE", "/agents/{ref}")
def _retire(asked: Asked, ref: str) -> Reply:
    return _ended(asked, ref, "retired")


@route("POST", "/agents/{ref}/stop")
def _stop(asked: Asked, ref: str) -> Reply:
    return _ended(asked, ref, "stopped")


def _ended(asked: Asked, ref: str, reason: str) -> Reply:
    agent = _find_agent(asked, ref)
    for session in asked.engine.open_sessions(agent):
        asked.engine.end_session(session, f"the agent was {reason}")
    agent.desired, agent.status, agent.reason = "stopped", "terminated", reason
    return Reply(202, _shown(asked, agent))


@route("POST", "/agents/{ref}/pause")
def _pause(asked: Asked, ref: str) -> Reply:
    agent = _find_agent(asked, ref)
    agent.paused = True
    return Reply(200, _shown(asked, agent))


@route("POST", "/agents/{ref}/resume")
def _resume(asked: Asked, ref: str) -> Reply:
    agent = _find_agent(asked, ref)
    agent.paused = False
    return Reply(200, _shown(asked, agent))


@route("POST", "/agents/{ref}/restart")
def _restart(asked: Asked, ref: str) -> Reply:
    agent = _find_agent(asked, ref)
    detail = f"Ops-Core did not start the agent {agent.name!r}; restart it where it runs."
    raise Refused(409, detail)


# Sessions


@route("POST", "/agents/{ref}/sessions")
def _begin(asked: Asked, ref: str) -> Reply:
    said = checked(asked.body, {}, host=text(100), pid=number(1, MAX_NUMBER, whole=True))
    agent = _find_agent(asked, ref)
    session = asked.engine.begin(agent, said.get("host", ""), said.get("pid"))
    body = {
        "session_id": session.id,
        "heartbeat_s": round(asked.engine.session_ttl_s / 3, 2),
        "claim_wait_max_s": CLAIM_WAIT_MAX_S,
    }
    return Reply(201, body)


@route("DELETE", "/sessions/{session_id}")
def _end(asked: Asked, session_id: str) -> Reply:
    session = find(asked.engine.sessions, session_id, "session")
    asked.engine.end_session(session, "ended by its executor", status="terminated")
    return Reply(204)


@route("POST", "/sessions/{session_id}/claim")
def _claim(asked: Asked, session_id: str) -> Reply:
    limit, wait = number(1, 100, whole=True), number(0, CLAIM_WAIT_MAX_S)
    said = checked(asked.body, {}, limit=limit, wait_s=wait)
    session, engine = _open(asked, session_id), asked.engine
    # A claim that waits is a sign of life.
    session.seen_at = engine.now()
    tasks = engine.claim(session, said.get("limit", 1))
    held = [(task, task.fence) for task in tasks]

    def undo() -> None:
        for task, fence in held:
            if engine.holds(task.id, fence):
                engine.put_back(task)

    body = {"tasks": [task.as_claimed() for task in tasks]}
    return Reply(200, body, 0.0 if tasks else said.get("wait_s", 0.0), undo)


@route("POST", "/sessions/{session_id}/heartbeat")
def _heartbeat(asked: Asked, session_id: str) -> Reply:
    said = checked(asked.body, {}, tasks=_held_tasks)
    session, engine = _open(asked, session_id), asked.engine
    session.seen_at = engine.now()
    mine = {task.id: task.fence for task in engine.held_by(session)}
    told = said.get("tasks")
    if told is not None:
        before = engine.now() - engine.session_ttl_s / 3
        for task in engine.held_by(session):
            lost = task.id not in {row["id"] for row in told}
            if lost and (task.started_at or 0.0) < before:
                engine.put_back(task)
    gone = [row["id"] for row in told or () if mine.get(row["id"]) != row["fence"]]
    return Reply(200, {"cancelled": gone})


@route("POST", "/sessions/{session_id}/messages/receive")
def _receive(asked: Asked, session_id: str) -> Reply:
    fields = {
        "limit": number(1, 100, whole=True),
        "wait_s": number(0, CLAIM_WAIT_MAX_S),
        "lease_s": number(1, 3600),
    }
    said = checked(asked.body, {}, **fields)
    session = _open(asked, session_id)
    session.seen_at = asked.engine.now()
    found = asked.sharing.receive(session, said.get("limit", 1), said.get("lease_s", 30))
    held = [(message, message.receipt) for message in found]

    def undo() -> None:
        for message, receipt in held:
            asked.sharing.put_back(message, receipt)

    body = {"messages": [message.as_dict() for message in found]}
    return Reply(200, body, 0.0 if found else said.get("wait_s", 0.0), undo)


@route("POST", "/sessions/{session_id}/messages/{message_id}/ack")
def _ack(asked: Asked, session_id: str, message_id: str) -> Reply:
    said = checked(asked.body, {"receipt": text(200)})
    _open(asked, session_id)
    asked.sharing.acknowledge(message_id, said["receipt"])
    return Reply(204)


def _shown(asked: Asked, agent: AgentRecord) -> dict[str, Any]:
    mine = [session for session in asked.engine.sessions.values() if session.agent is agent]
    sessions = [session.as_dict() for session in mine[-10:][::-1]]
    row = agent.as_dict(asked.engine.running(agent))
    return {**row, "endpoint": None, "sessions": sessions}


def _find_agent(asked: Asked, ref: str) -> AgentRecord:
    by_id = {agent.id: agent for agent in asked.engine.agents.values()}
    found = asked.engine.agents.get(ref) or by_id.get(ref)
    if found is None:
        raise Refused(404, f"There is no agent {ref!r}.")
    return found


def _open(asked: Asked, session_id: str) -> SessionRecord:
    session: SessionRecord = find(asked.engine.sessions, session_id, "session")
    if session.ended_at is not None:
        raise Refused(409, f"The session {session_id} has ended; begin a new one.")
    return session


def _held_tasks(value: Any) -> str:
    rows = value if isinstance(value, list) else [None]
    good = all(
        isinstance(row, dict) and set(row) == {"id", "fence"} and not FENCE(row["fence"])
        for row in rows
    )
    return "" if good else "a list of {id, fence} is expected"
