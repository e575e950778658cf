"""Things for made-up requests to meet: without them nearly every answer would be a 404."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import httpx
import yaml

#: An agent that only a supervisor could have made; the test writes its row.
SUPERVISED = "supervised"
#: A host and what it offers, as only its supervisor could have told; the test writes its row.
HOST = "elsewhere"
DEAD_HOST = "gone"
SPEC = "made"
_FLOW = """
name: flow
tasks:
  paid: {uses: signal, with: {name: go}}
  ok: {needs: paid, uses: approval, with: {message: "Ship it?"}}
  ship: {needs: ok, capability: ship}
"""
_GATE = """
name: gate
tasks:
  ok: {uses: approval, with: {message: "Ship it?"}}
"""


@dataclass
class World:
    """Makes agents, sessions, tasks, runs and schedules in whatever state, over HTTP."""

    client: httpx.Client
    _session: str = ""
    _message: str = ""
    _receipt: str = ""
    _delivery: str = ""
    _numbers: count[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        for text in (_FLOW, _GATE):
            self._send("POST", "workflows", text, kind="application/yaml")
        self._session = self.session()
        self._message, self._receipt = self._received()

    def path_parameters(self, path: str, pick: int) -> dict[str, str]:
        """Return what the placeholders of a path may stand for: `pick` chooses the state.

        An even one chooses the state in which the operation can succeed.
        """
        if "{" not in path:
            return {}
        words = path.split("/")
        if words[3:] == ["hosts", "{name}"]:
            # One that may be forgotten: the other is needed to the end.
            return {"name": DEAD_HOST}
        makers = _MAKERS[words[3]]
        number = pick // 2 if pick % 2 else _FITTING.get(words[-1], 0)
        name = path.partition("{")[2].partition("}")[0]
        others = {"name": "go", "key": "plan", "spec": SPEC, "version": "latest"}
        if words[-1] == "ack":
            others["message_id"] = self._message
        found = {**others, name: makers[number % len(makers)](self)}
        return {**found, "delivery_id": self._delivery} if "{delivery_id}" in path else found

    def fitting(self, path: str) -> str:
        """Return the path with things in the state in which the operation can succeed."""
        for name, value in self.path_parameters(path, 0).items():
            path = path.replace(f"{{{name}}}", value)
        return path

    def body(self, label: str, made_up: Mapping[str, Any], pick: int) -> dict[str, Any]:
        """Return a body with values that mean something to the operation."""
        if label == "PUT /api/v1/workflows/{ref}":
            return {**yaml.safe_load(_FLOW), "description": f"made {pick}"}
        if label in _TAKES_DEFINITION:
            return {"name": f"made-{pick}", "tasks": {"a": {"capability": "work"}}}
        if label.endswith("/ack"):
            return {"receipt": self._receipt}
        return {**made_up, **(_MEANT[label](pick) if label in _MEANT else {})}

    def resume(self, workflow: str) -> None:
        """End a pause of a workflow, or of everything."""
        self._send("POST", "resume", {"workflow": workflow} if workflow else {})

    # ---------------------------------------------------------------- agents
    def agent(self) -> str:
        """Return the name of a new agent that polls."""
        body = {"name": f"agent-{next(self._numbers)}", "kind": "remote", "capabilities": ["work"]}
        return str(self._send("POST", "agents", body)["name"])

    def supervised_agent(self) -> str:
        """Return the name of an agent that Ops-Core starts."""
        return SUPERVISED

    def session(self) -> str:
        """Return the id of a new agent's session."""
        return str(self._send("POST", f"agents/{self.agent()}/sessions", {})["session_id"])

    def http_agent(self) -> str:
        """Return the name of a new agent that is sent its tasks."""
        name = f"http-{next(self._numbers)}"
        body = {"name": name, "kind": "http", "url": "http://agent.invalid/", "capabilities": ["x"]}
        return str(self._send("POST", "agents", body)["name"])

    def key(self) -> str:
        """Return the prefix of a new API key."""
        return str(self._send("POST", "keys", {"name": "made up"})["prefix"])

    def host(self) -> str:
        """Return the name of a host with a spec."""
        return HOST

    def capability(self) -> str:
        """Return a capability with a route."""
        self._send("PUT", "capabilities/routed/route", {"strategy": "round_robin"})
        return "routed"

    def _received(self) -> tuple[str, str]:
        """Return a message that the session has, and the receipt for it."""
        to = {"to": {"capability": "work"}, "body": 1}
        run = self.waiting_run()
        self._send("POST", f"runs/{run}/messages", to)
        path = f"sessions/{self._session}/messages/receive"
        [message] = self._send("POST", path, {"lease_s": 3600})["messages"]
        return str(message["id"]), str(message["receipt"])

    # ---------------------------------------------------------------- tasks
    def queued_task(self) -> str:
        """Return the id of a task that nobody is able to do."""
        return str(self._send("POST", "tasks", {"capability": "nobody"})["id"])

    def running_task(self) -> str:
        """Return the id of a task that a session holds, with fence 1."""
        made = self._send("POST", "tasks", {"capability": "work", "priority": 9})
        claim = self._send("POST", f"sessions/{self._session}/claim", {"limit": 100})
        assert made["id"] in [task["id"] for task in claim["tasks"]]
        return str(made["id"])

    def task_for_a_signal(self) -> str:
        """Return the id of a task that waits for a signal."""
        return self._task_of(self.waiting_run(), "paid")

    def task_for_approval(self) -> str:
        """Return the id of a task that waits for a decision."""
        return self._task_of(self._execute("gate"), "ok")

    def ended_task(self) -> str:
        """Return the id of a cancelled task."""
        task = self.queued_task()
        self._send("PUT", f"tasks/{task}/cancel")
        return task

    # ---------------------------------------------------------------- runs
    def waiting_run(self) -> str:
        """Return the id of a run that waits for a signal, with a plan in its context."""
        run = self._execute("flow")
        self._send("PUT", f"runs/{run}/context/plan", {"value": 1})
        return run

    def paused_run(self) -> str:
        """Return the id of a paused run."""
        run = self.waiting_run()
        self._send("POST", f"runs/{run}/pause")
        return run

    def cancelled_run(self) -> str:
        """Return the id of a cancelled run."""
        run = self.waiting_run()
        self._send("PUT", f"runs/{run}/cancel", {"force": True})
        return run

    def failed_run(self) -> str:
        """Return the id of a failed run."""
        run = self._execute("gate")
        decision = {"decision": "reject", "comment": "no"}
        self._send("POST", f"tasks/{self._task_of(run, 'ok')}/approval", decision)
        return run

    # ---------------------------------------------------------------- definitions
    def secret(self) -> str:
        """Return the name of a new secret."""
        name = f"TOKEN_{next(self._numbers) % 50}"
        self._send("PUT", f"secrets/{name}", {"value": "not so secret"})
        return name

    def schedule(self) -> str:
        """Return the name of a new schedule."""
        body = {"name": f"every-{next(self._numbers)}", "workflow": "flow", "every_s": 3600}
        return str(self._send("POST", "schedules", body)["name"])

    def webhook(self) -> str:
        """Return the name of a new webhook, which leads to nowhere, with a delivery."""
        for old in self._send("GET", "webhooks")["results"][20:]:
            self._send("DELETE", f"webhooks/{old['id']}")
        name = f"hook-{next(self._numbers)}"
        self._send("POST", "webhooks", {"name": name, "url": "http://hooks.invalid/"})
        self._delivery = str(self._send("POST", f"webhooks/{name}/test")["id"])
        return name

    def workflow(self) -> str:
        """Return the name of a workflow."""
        return "flow"

    def _execute(self, workflow: str) -> str:
        return str(self._send("POST", f"workflows/{workflow}/execute", {})["id"])

    def _task_of(self, run: str, key: str) -> str:
        tasks = self._send("GET", f"runs/{run}")["tasks"]
        return str(next(task["id"] for task in tasks if task["key"] == key))

    def _send(
        self, method: str, path: str, body: Any = None, kind: str = "application/json"
    ) -> Mapping[str, Any]:
        how: dict[str, Any] = {"content": body} if isinstance(body, str) else {"json": body}
        headers = {"Content-Type": kind}
        answer = self.client.request(method, f"/api/v1/{path}", headers=headers, **how)
        assert answer.is_success, f"{method} {path}: {answer.text}"
        found: Mapping[str, Any] = answer.json() if answer.content else {}
        return found


_TAKES_DEFINITION = {f"POST /api/v1/workflows{path}" for path in ("", "/validate", "/graph")}
_TIMING = {"version": None, "slot_input": None, "timezone": "UTC", "workflow": "flow"}
_MEANT: Mapping[str, Callable[[int], dict[str, Any]]] = {
    "PUT /api/v1/secrets/{name}": lambda pick: {"value": f"made-up-{pick}"},
    "POST /api/v1/agents": lambda pick: {"name": f"made-{pick}", "kind": "remote"},
    "POST /api/v1/schedules": lambda pick: {
        **_TIMING,
        "name": f"made-{pick}",
        "cron": None,
        "every_s": 60,
    },
    "PATCH /api/v1/schedules/{ref}": lambda pick: {
        **_TIMING,
        "name": f"made-{pick}",
        "cron": "@daily",
        "every_s": None,
    },
    "POST /api/v1/schedules/{ref}/backfill": lambda _: {
        "from": "2026-01-01T00:00:00Z",
        "to": "2026-01-01T12:00:00Z",
    },
    "POST /api/v1/tasks/{task_id}/logs": lambda _: {"fence": 1},
    "POST /api/v1/tasks/{task_id}/report": lambda _: {
        "fence": 1,
        "error": {"type": "broken", "message": ""},
    },
    "POST /api/v1/tasks/{task_id}/progress": lambda _: {"fence": 1},
    "POST /api/v1/tasks/{task_id}/heartbeat": lambda _: {"fence": 1},
    "PUT /api/v1/runs/{run_id}/context/{key}": lambda pick: {"if_version": 1},
    "POST /api/v1/runs/{run_id}/messages": lambda pick: {
        "to": {"capability": "work"} if pick % 4 == 1 else {"agent": "agent-0"},
        "ttl_s": 60,
    },
    "POST /api/v1/runs/{run_id}/rerun": lambda _: {"from": ["ok"]},
    "POST /api/v1/webhooks": lambda pick: {
        "name": f"made-{pick}",
        "url": "http://hooks.invalid/",
        "events": ["run.*"],
    },
    "PATCH /api/v1/webhooks/{ref}": lambda pick: {
        "name": f"made-{pick}",
        "url": "http://hooks.invalid/",
        "events": ["*"],
    },
    "POST /api/v1/workflows/{ref}/execute": lambda _: {"version": None},
}
_MAKERS: Mapping[str, list[Callable[[World], str]]] = {
    "agents": [World.agent, World.supervised_agent, World.http_agent],
    "breakers": [lambda _: "resource"],
    "hosts": [World.host],
    "keys": [World.key],
    "capabilities": [World.capability],
    "sessions": [World.session],
    "tasks": [
        World.running_task,
        World.queued_task,
        World.task_for_a_signal,
        World.task_for_approval,
        World.ended_task,
    ],
    "runs": [World.waiting_run, World.failed_run, World.cancelled_run, World.paused_run],
    "schedules": [World.schedule],
    "secrets": [World.secret],
    "webhooks": [World.webhook],
    "workflows": [World.workflow],
}
#: Last word of a path -> the maker, where it is not the first one.
_FITTING = {"restart": 1, "secret": 2, "rerun": 1, "signal": 2, "approval": 3}
