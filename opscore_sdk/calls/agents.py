"""Agents, and what concerns the whole platform: health, events, pauses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opscore_sdk.asking import Talk, ask, part, rows
from opscore_sdk.wire import Event, PausedWorkflow, RegisteredAgent


def agents(*, limit: int = 200, **filters: str) -> Talk[list[RegisteredAgent]]:
    """Return the newest agents; filters: status, kind, capability."""
    return (yield from rows("/agents", RegisteredAgent.read, limit, filters))


def agent(ref: str) -> Talk[RegisteredAgent]:
    """Return an agent by id or name."""
    answer = yield from ask("GET", f"/agents/{part(ref)}")
    return RegisteredAgent.read(answer)


def register_agent(
    name: str,
    kind: str,
    *,
    spec: str = "",
    capabilities: Sequence[str] = (),
    labels: Sequence[str] = (),
    concurrency: int | None = None,
) -> Talk[RegisteredAgent]:
    """Register an agent; one of this name and kind that exists is updated.

    It is never given more than `concurrency` tasks at once; None: as many as it claims.
    """
    body: dict[str, Any] = {"name": name, "kind": kind}
    body |= {"spec": spec} if spec else {}
    body |= {"capabilities": list(capabilities)} if capabilities else {}
    body |= {"labels": list(labels)} if labels else {}
    body |= {"concurrency": concurrency} if concurrency else {}
    answer = yield from ask("POST", "/agents", body=body)
    return RegisteredAgent.read(answer)


def restart_agent(ref: str) -> Talk[RegisteredAgent]:
    """Have an agent's process replaced after its present task."""
    return (yield from _change("POST", ref, "/restart"))


def pause_agent(ref: str) -> Talk[RegisteredAgent]:
    """Have an agent take nothing new; what it has it finishes."""
    return (yield from _change("POST", ref, "/pause"))


def resume_agent(ref: str) -> Talk[RegisteredAgent]:
    """Have a paused agent take tasks again."""
    return (yield from _change("POST", ref, "/resume"))


def stop_agent(ref: str, *, force: bool = False) -> Talk[RegisteredAgent]:
    """Have an agent stop after its present task; `force`: at once, its tasks run elsewhere."""
    answer = yield from ask("POST", f"/agents/{part(ref)}/stop", body={"force": force})
    return RegisteredAgent.read(answer)


def drain_agent(ref: str) -> Talk[RegisteredAgent]:
    """Have an agent take nothing new, finish what it has, then end."""
    return (yield from _change("POST", ref, "/drain"))


def agent_logs(ref: str, *, lines: int = 100) -> Talk[dict[str, Any]]:
    """Return the end of an agent's output: `lines`, and whether that is `fresh`."""
    path = f"/agents/{part(ref)}/logs"
    answer: dict[str, Any] = yield from ask("GET", path, query={"lines": lines})
    return answer


def hosts(*, limit: int = 200) -> Talk[list[dict[str, Any]]]:
    """Return the hosts with the specs that they offer and the sizes of their pools."""
    return (yield from rows("/hosts", dict, limit, {}))


def host(name: str) -> Talk[dict[str, Any]]:
    """Return a host with the specs that it offers and the sizes of their pools."""
    answer: dict[str, Any] = yield from ask("GET", f"/hosts/{part(name)}")
    return answer


def forget_host(name: str) -> Talk[None]:
    """Remove a dead host with its pools; its agents are terminated. ConflictError: it lives."""
    yield from ask("DELETE", f"/hosts/{part(name)}")


def scale(host: str, spec: str, replicas: int) -> Talk[dict[str, Any]]:
    """Have a host keep so many agents of a spec."""
    body: dict[str, Any] = {"replicas": replicas}
    answer: dict[str, Any] = yield from ask("PUT", _pool(host, spec), body=body)
    return answer


def autoscale(
    host: str, spec: str, *, least: int, most: int, queue_wait_s: float = 5.0
) -> Talk[dict[str, Any]]:
    """Have a host keep `least` to `most` agents of a spec: more when a task waits so long."""
    body = {"autoscale": {"min": least, "max": most, "queue_wait_s": queue_wait_s}}
    answer: dict[str, Any] = yield from ask("PUT", _pool(host, spec), body=body)
    return answer


def unscale(host: str, spec: str) -> Talk[dict[str, Any]]:
    """Have a host keep as many agents of a spec as its own file says."""
    answer: dict[str, Any] = yield from ask("DELETE", _pool(host, spec))
    return answer


def retire_agent(ref: str) -> Talk[RegisteredAgent]:
    """Have an agent stop after its present task and stay away."""
    return (yield from _change("DELETE", ref, ""))


def change_secret(ref: str) -> Talk[str]:
    """Return the new secret of an agent of kind http; it counts at once."""
    answer = yield from ask("POST", f"/agents/{part(ref)}/secret")
    return str(answer["secret"])


def capabilities() -> Talk[list[dict[str, Any]]]:
    """Return the capabilities with their agents, their tasks and their strategies."""
    answer = yield from ask("GET", "/capabilities")
    return list(answer["capabilities"])


def route(capability: str) -> Talk[dict[str, Any]]:
    """Return the route of a capability; NotFoundError: it has none, the pull decides."""
    answer: dict[str, Any] = yield from ask("GET", _route(capability))
    return answer


def set_route(
    capability: str, strategy: str, weights: Mapping[str, int] | None = None
) -> Talk[dict[str, Any]]:
    """Choose the strategy of a capability: least_loaded, round_robin, fastest, sticky, weighted.

    `weights` belong to `weighted`: agent or label -> 1 to 100.
    """
    body = {"strategy": strategy, **({"weights": dict(weights)} if weights else {})}
    answer: dict[str, Any] = yield from ask("PUT", _route(capability), body=body)
    return answer


def drop_route(capability: str) -> Talk[None]:
    """Let whoever is free first take a capability's tasks again."""
    yield from ask("DELETE", _route(capability))


def health() -> Talk[dict[str, Any]]:
    """Return status, version and the state of database and broker; needs no key."""
    answer: dict[str, Any] = yield from ask("GET", "/health")
    return answer


def events(*, limit: int = 50, **filters: str) -> Talk[list[Event]]:
    """Return the newest events; filters: kind, run, task, agent."""
    return (yield from rows("/events", Event.read, limit, filters))


def pauses(*, limit: int = 50) -> Talk[list[PausedWorkflow]]:
    """Return which workflows are paused."""
    return (yield from rows("/pauses", PausedWorkflow.read, limit, {}))


def pause_all(workflow: str = "", *, reason: str = "") -> Talk[PausedWorkflow]:
    """Start nothing new in all runs of a workflow; without one, in the whole project."""
    body = {"workflow": workflow, "reason": reason}
    answer = yield from ask("POST", "/pauses", body={k: v for k, v in body.items() if v})
    return PausedWorkflow.read(answer)


def resume_all(workflow: str = "") -> Talk[None]:
    """End what `pause_all` began; harmless when it was not paused."""
    yield from ask("POST", "/resume", body={"workflow": workflow} if workflow else {})


def _pool(host: str, spec: str) -> str:
    return f"/hosts/{part(host)}/specs/{part(spec)}"


def _route(capability: str) -> str:
    return f"/capabilities/{part(capability)}/route"


def _change(method: str, ref: str, verb: str) -> Talk[RegisteredAgent]:
    answer = yield from ask(method, f"/agents/{part(ref)}{verb}")
    return RegisteredAgent.read(answer)
