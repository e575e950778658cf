"""The client: one method for each thing that the API does."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx

from opscore_sdk.errors import WaitTimeoutError
from opscore_sdk.transport import Transport
from opscore_sdk.wire import Agent, Run, Task, Uploaded, Valid, Workflow


class Client:
    """A synchronous client of one platform; use it as a context manager or call `close`.

    Example:
        with Client("http://127.0.0.1:8000", api_key="ok_…") as client:
            run = client.execute("review", inputs={"repo": "."})
            print(client.wait(run.id).outputs)

    Every method raises `ApiError` (see `opscore_sdk.errors`) when the platform refuses, and
    `UnreachableError` when nobody answers; connection errors are retried for about three
    seconds first, safely: a POST carries an `Idempotency-Key`.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        timeout_s: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._ask = Transport(base_url, api_key, timeout_s=timeout_s, transport=transport)
        self.address = self._ask.address

    def close(self) -> None:
        """Close the connection."""
        self._ask.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def health(self) -> dict[str, Any]:
        """Return status, version and the state of database and broker; needs no key."""
        answer: dict[str, Any] = self._ask.ask("GET", "/health")
        return answer

    # Workflows

    def validate(self, text: str, *, media_type: str = "application/yaml") -> Valid:
        """Check a definition; InvalidError lists all problems, the answer has the warnings."""
        answer = self._ask.ask("POST", "/workflows/validate", text=text, media_type=media_type)
        return Valid.read(answer)

    def draw(
        self, text: str, *, media_type: str = "application/yaml", notation: str = "text"
    ) -> str:
        """Return the graph of a definition, not stored; `notation`: text or mermaid."""
        answer = self._ask.ask(
            "POST", "/workflows/graph", text=text, media_type=media_type, query={"format": notation}
        )
        return str(answer["graph"])

    def graph(self, ref: str, *, notation: str = "text") -> str:
        """Return the graph of a workflow's latest version; `notation`: text or mermaid."""
        path = f"/workflows/{_part(ref)}/graph"
        return str(self._ask.ask("GET", path, query={"format": notation})["graph"])

    def upload(self, text: str, *, media_type: str = "application/yaml") -> Uploaded:
        """Store a definition as a new version, or find the version with this content."""
        answer = self._ask.ask("POST", "/workflows", text=text, media_type=media_type)
        return Uploaded.read(answer)

    def upload_file(self, path: str | Path) -> Uploaded:
        """Upload a file; `.json` is JSON, everything else YAML. Raises OSError too."""
        return self.upload(Path(path).read_text("utf-8"), media_type=media_type_of(path))

    def workflow(self, ref: str) -> Workflow:
        """Return a workflow by id or name, with versions and latest definition."""
        return Workflow.read(self._ask.ask("GET", f"/workflows/{_part(ref)}"))

    def workflows(self, *, limit: int = 50) -> list[Workflow]:
        """Return the newest workflows."""
        return [Workflow.read(row) for row in self._list("/workflows", limit, {})]

    def execute(
        self,
        ref: str,
        *,
        inputs: Mapping[str, Any] | None = None,
        version: str | None = None,
        priority: int | None = None,
        idempotency_key: str | None = None,
    ) -> Run:
        """Start a run of a workflow, by id or name; without `version` of the latest one."""
        body: dict[str, Any] = {"inputs": dict(inputs or {})}
        body |= {} if version is None else {"version": version}
        body |= {} if priority is None else {"priority": priority}
        answer = self._ask.ask(
            "POST", f"/workflows/{_part(ref)}/execute", body=body, idempotency_key=idempotency_key
        )
        return Run.read(answer)

    # Runs

    def run(self, run_id: str) -> Run:
        """Return a run with its tasks and outputs."""
        return self._run(run_id)

    def runs(
        self,
        *,
        status: str | None = None,
        workflow: str | None = None,
        parent: str | None = None,
        limit: int = 50,
    ) -> list[Run]:
        """Return the newest runs; `status` may be several words, separated by commas.

        `parent` is the id of a run, for those that its tasks started, or `none`, for those that
        no task did.
        """
        query = {"status": status, "workflow": workflow, "parent": parent}
        return [Run.read(row) for row in self._list("/runs", limit, query)]

    def cancel_run(self, run_id: str) -> Run:
        """Cancel a run; ConflictError when it has ended."""
        return Run.read(self._ask.ask("PUT", f"/runs/{_part(run_id)}/cancel"))

    def pause_run(self, run_id: str) -> Run:
        """Have a run start nothing new; ConflictError when it has ended."""
        return Run.read(self._ask.ask("POST", f"/runs/{_part(run_id)}/pause"))

    def resume_run(self, run_id: str) -> Run:
        """Have a paused run go on; ConflictError when it has ended."""
        return Run.read(self._ask.ask("POST", f"/runs/{_part(run_id)}/resume"))

    def rerun(
        self,
        run_id: str,
        *,
        from_tasks: Sequence[str] = (),
        inputs: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> Run:
        """Start a new run that reuses the results of an ended one.

        `from_tasks` are keys of tasks that run again with all that depends on them; none
        means what has not completed. `inputs` None: those of the old run.
        """
        body: dict[str, Any] = {"from": list(from_tasks)} if from_tasks else {}
        body |= {} if inputs is None else {"inputs": dict(inputs)}
        path = f"/runs/{_part(run_id)}/rerun"
        return Run.read(self._ask.ask("POST", path, body=body, idempotency_key=idempotency_key))

    def signal(
        self, run_id: str, name: str, data: Any = None, *, idempotency_key: str | None = None
    ) -> Any:
        """Send a signal with any JSON to a run; return what the platform answers.

        Its `warning` is a sentence when no task of the run waits for this name or can.
        """
        path = f"/runs/{_part(run_id)}/signals/{_part(name)}"
        payload = json.dumps(data)
        return self._ask.ask("POST", path, text=payload, idempotency_key=idempotency_key)

    def watch(
        self,
        run_id: str,
        *,
        every_s: float = 0.5,
        timeout_s: float | None = None,
        patience_s: float = 0.0,
    ) -> Iterator[Run]:
        """Yield the run now and every `every_s` seconds, until it has ended (the last one).

        For `patience_s` seconds at a time it stays, although the platform does not answer. Raises
        WaitTimeoutError after `timeout_s`; the run goes on.
        """
        give_up_at = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = max(give_up_at - time.monotonic(), 0.0)
            run = self._run(run_id, patience_s=min(patience_s, left_s))
            yield run
            if run.has_ended:
                return
            if timeout_s is not None and time.monotonic() + every_s > give_up_at:
                raise WaitTimeoutError(
                    f"The run {run_id} has not ended after {timeout_s:g} s; it goes on."
                )
            time.sleep(every_s)

    def wait(
        self,
        run_id: str,
        *,
        every_s: float = 0.5,
        timeout_s: float | None = None,
        patience_s: float = 0.0,
    ) -> Run:
        """Wait as `watch` does until a run has ended and return it, whatever its status."""
        *_, last = self.watch(run_id, every_s=every_s, timeout_s=timeout_s, patience_s=patience_s)
        return last

    def _run(self, run_id: str, *, patience_s: float = 0.0) -> Run:
        return Run.read(self._ask.ask("GET", f"/runs/{_part(run_id)}", patience_s=patience_s))

    # Tasks

    def submit(
        self,
        capability: str,
        *,
        inputs: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        **options: Any,
    ) -> Task:
        """Submit one task on its own; options: requires, priority, retry, timeout_s, key."""
        body = {"capability": capability, "inputs": dict(inputs or {}), **options}
        answer = self._ask.ask("POST", "/tasks", body=body, idempotency_key=idempotency_key)
        return Task.read(answer)

    def task(self, task_id: str) -> Task:
        """Return everything about a task."""
        return Task.read(self._ask.ask("GET", f"/tasks/{_part(task_id)}"))

    def tasks(self, *, limit: int = 50, **filters: str) -> list[Task]:
        """Return the newest tasks; filters: status, run, workflow, capability, agent."""
        return [Task.read(row) for row in self._list("/tasks", limit, filters)]

    def cancel_task(self, task_id: str) -> Task:
        """Cancel a task; ConflictError when it has ended."""
        return Task.read(self._ask.ask("PUT", f"/tasks/{_part(task_id)}/cancel"))

    def logs(self, task_id: str, *, limit: int = 200) -> list[dict[str, Any]]:
        """Return the latest log lines of a task, oldest first."""
        return self._list(f"/tasks/{_part(task_id)}/logs", limit, {})[::-1]

    # Approvals and schedules

    def approvals(self, *, limit: int = 50, **filters: str) -> list[dict[str, Any]]:
        """Return the tasks that wait for a person's decision, newest first."""
        return self._list("/approvals", limit, filters)

    def approve(self, task_id: str, comment: str = "") -> Task:
        """Let a task that waits for an approval go on; ConflictError when it was decided."""
        return self._decide(task_id, "approve", comment)

    def reject(self, task_id: str, comment: str = "") -> Task:
        """Refuse what a task asks for; ConflictError when it was decided."""
        return self._decide(task_id, "reject", comment)

    def _decide(self, task_id: str, decision: str, comment: str) -> Task:
        body = {"decision": decision, "comment": comment}
        return Task.read(self._ask.ask("POST", f"/tasks/{_part(task_id)}/approval", body=body))

    def schedules(self, *, limit: int = 50, **filters: str) -> list[dict[str, Any]]:
        """Return the schedules that start runs, newest first."""
        return self._list("/schedules", limit, filters)

    # Agents and events

    def agents(self, *, limit: int = 200, **filters: str) -> list[Agent]:
        """Return the newest agents; filters: status, kind, capability."""
        return [Agent.read(row) for row in self._list("/agents", limit, filters)]

    def agent(self, ref: str) -> Agent:
        """Return an agent by id or name."""
        return Agent.read(self._ask.ask("GET", f"/agents/{_part(ref)}"))

    def register_agent(
        self,
        name: str,
        kind: str,
        *,
        spec: str = "",
        capabilities: Sequence[str] = (),
        labels: Sequence[str] = (),
    ) -> Agent:
        """Register an agent; one of this name and kind that exists is updated."""
        body: dict[str, Any] = {"name": name, "kind": kind}
        body |= {"spec": spec} if spec else {}
        body |= {"capabilities": list(capabilities)} if capabilities else {}
        body |= {"labels": list(labels)} if labels else {}
        return Agent.read(self._ask.ask("POST", "/agents", body=body))

    def restart_agent(self, ref: str) -> Agent:
        """Have an agent's process replaced after its present task."""
        return Agent.read(self._ask.ask("POST", f"/agents/{_part(ref)}/restart"))

    def pause_agent(self, ref: str) -> Agent:
        """Have an agent take nothing new; what it has it finishes."""
        return Agent.read(self._ask.ask("POST", f"/agents/{_part(ref)}/pause"))

    def resume_agent(self, ref: str) -> Agent:
        """Have a paused agent take tasks again."""
        return Agent.read(self._ask.ask("POST", f"/agents/{_part(ref)}/resume"))

    def stop_agent(self, ref: str) -> Agent:
        """Have an agent stop after its present task."""
        return Agent.read(self._ask.ask("DELETE", f"/agents/{_part(ref)}"))

    def events(self, *, limit: int = 50, **filters: str) -> list[dict[str, Any]]:
        """Return the newest events; filters: kind, run, task, agent."""
        return self._list("/events", limit, filters)

    def _list(self, path: str, limit: int, query: Mapping[str, Any]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        query = {name: value for name, value in query.items() if value is not None}
        while len(rows) < limit:
            page = self._ask.ask("GET", path, query={**query, "limit": min(limit - len(rows), 200)})
            rows += page["results"]
            if not page["next"]:
                break
            query = {**query, "after": parse_qs(urlsplit(page["next"]).query)["after"][0]}
        return rows


def media_type_of(path: str | Path) -> str:
    """Return how a definition's file is uploaded: `.json` as JSON, all else as YAML."""
    return "application/json" if Path(path).suffix.lower() == ".json" else "application/yaml"


def _part(text: str) -> str:
    return quote(text, safe="")
