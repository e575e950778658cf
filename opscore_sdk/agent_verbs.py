"""Commands about agents and the hosts that run them: each takes the client and its options."""

from __future__ import annotations

import argparse
from typing import Any

from opscore_sdk import report
from opscore_sdk.client import Client
from opscore_sdk.statuses import DONE, UsageError
from opscore_sdk.wire import RegisteredAgent

_POOLS = {
    "host": "host",
    "live": "live",
    "spec": "name",
    "kind": "kind",
    "active": "active",
    "agents": "agents",
    "file": "replicas",
    "set": "set_replicas",
    "scaled": "scaled_replicas",
    "capabilities": "capabilities",
}


_CAPABILITIES = {
    "capability": "name",
    "strategy": "strategy",
    "weights": "weights",
    "queued": "queued",
    "running": "running",
    "live": "live",
    "agents": "agents",
}


def capabilities(client: Client, options: argparse.Namespace) -> int:
    """Show the capabilities with their agents, their tasks and their strategies."""
    found = client.capabilities()
    report.rows(found, _CAPABILITIES, "No agent offers anything yet.", as_json=options.json)
    return DONE


def route(client: Client, options: argparse.Namespace) -> int:
    """Show, choose or drop the strategy of a capability."""
    name = options.capability
    if options.drop:
        client.drop_route(name)
        said = f"{name}: no strategy any more; whoever is free first takes a task"
        report.done(said, {"capability": name}, as_json=options.json)
        return DONE
    if options.strategy is None:
        shown = client.route(name)
    else:
        shown = client.set_route(name, options.strategy, _weights(options.weight))
    said = f"{name}: {shown['strategy']}"
    if shown["weights"]:
        said += f" ({', '.join(f'{key} {weight}' for key, weight in shown['weights'].items())})"
    report.done(said, shown, as_json=options.json)
    return DONE


def _weights(said: list[str]) -> dict[str, int]:
    pairs = [text.partition("=") for text in said]
    for name, _, weight in pairs:
        if not name or not weight.isascii() or not weight.isdigit():
            raise UsageError(f"--weight takes AGENT=NUMBER or LABEL=NUMBER, not {name!r}.")
    return {name: int(weight) for name, _, weight in pairs}


def drain(client: Client, options: argparse.Namespace) -> int:
    """Have an agent take nothing new, finish what it has, then end."""
    said = "takes nothing new, finishes what it has, then ends"
    return _changed(client.drain_agent(options.agent), said, options)


def stop(client: Client, options: argparse.Namespace) -> int:
    """Stop an agent."""
    changed = client.stop_agent(options.agent, force=options.force)
    kindly = "finishes its task, then ends and stays away"
    said = "ends at once; what it has runs elsewhere" if options.force else kindly
    return _changed(changed, said, options)


def restart(client: Client, options: argparse.Namespace) -> int:
    """Have an agent's process replaced."""
    said = "gets a new process once it has finished its task"
    return _changed(client.restart_agent(options.agent), said, options)


def agent(client: Client, options: argparse.Namespace) -> int:
    """Register, pause or resume an agent."""
    name = options.name
    if options.change != "register" and (options.spec or options.capability or options.label):
        raise UsageError("--spec, --capability and --label go with register.")
    if options.change == "pause":
        return _changed(client.pause_agent(name), "takes nothing new", options)
    if options.change == "resume":
        return _changed(client.resume_agent(name), "takes tasks again", options)
    kind = _kind_of(client, options.spec) if options.spec else "remote"
    found = client.register_agent(
        name, kind, spec=options.spec, capabilities=options.capability, labels=options.label
    )
    said = "its supervisor starts it" if options.spec else "it may begin a session"
    return _changed(found, f"is registered, {said}", options)


def hosts(client: Client, options: argparse.Namespace) -> int:
    """Show the hosts, what they offer and the sizes of their pools."""
    if options.forget:
        client.forget_host(options.forget)
        report.done(f"{options.forget} forgotten", {}, as_json=options.json)
        return DONE
    found = client.hosts(limit=options.limit)
    if options.json:
        report.rows(found, {}, "", as_json=True)
        return DONE
    report.rows(_pools_of(found), _POOLS, "There are no hosts yet.", as_json=False)
    return DONE


def scale(client: Client, options: argparse.Namespace) -> int:
    """Have a host keep so many agents of a spec, or as many as a rule says."""
    spec, wait_s = options.spec, options.queue_wait
    counts = _counts(options.replicas)
    host = options.host or _only_host(client, spec)
    if not counts:
        answer, said = client.unscale(host, spec), "as its file says"
    elif len(counts) == 1:
        answer, said = client.scale(host, spec, counts[0]), _agents(counts[0])
    else:
        least, most = counts
        answer = client.autoscale(host, spec, least=least, most=most, queue_wait_s=wait_s)
        said = f"{least} to {_agents(most)}, more when a task waits {wait_s:g} s"
    if not answer.get("live", True):
        said += "; the host does not live: it begins when its supervisor does"
    report.done(f"{spec} on {host}: {said}", answer, as_json=options.json)
    return DONE


def _counts(text: str) -> list[int]:
    """Return one number, both ends of a range, or nothing for `file`."""
    parts = [] if text == "file" else text.split("..")
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() for part in parts):
        raise UsageError(f"A number of agents, MIN..MAX or `file` is expected, not {text!r}.")
    return [int(part) for part in parts]


def _agents(count: int) -> str:
    return "1 agent" if count == 1 else f"{count} agents"


def _only_host(client: Client, spec: str) -> str:
    named = [pool["host"] for pool in _offers(client, spec)]
    if len(named) != 1:
        raise UsageError(f"Say --host: the hosts that offer {spec!r} are: {', '.join(named)}.")
    return str(named[0])


def _kind_of(client: Client, spec: str) -> str:
    return str(_offers(client, spec)[0]["kind"])


def _offers(client: Client, spec: str) -> list[dict[str, Any]]:
    """Return the pools of a spec. Raises UsageError with the specs that there are."""
    pools = _pools_of(client.hosts())
    found = [pool for pool in pools if pool["name"] == spec]
    if not found:
        known = ", ".join(sorted({pool["name"] for pool in pools})) or "none"
        raise UsageError(f"No host offers a spec {spec!r}; there are: {known}.")
    return found


def _said(is_so: bool) -> str:
    return "yes" if is_so else "no"


def _pools_of(hosts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            **spec,
            "host": host["name"],
            "live": _said(host.get("live", True)),
            "capabilities": ", ".join(spec["capabilities"]),
        }
        for host in hosts
        for spec in host["specs"]
    ]


def _changed(agent: RegisteredAgent, said: str, options: argparse.Namespace) -> int:
    text = f"{agent.name}: {said} (now: {agent.status})"
    report.done(text, agent.raw, as_json=options.json)
    return DONE
