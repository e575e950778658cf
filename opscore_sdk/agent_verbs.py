"""Commands about agents and the hosts that run them: each takes the client and its options."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from opscore_sdk import report
from opscore_sdk.client import Client
from opscore_sdk.statuses import DONE, UsageError
from opscore_sdk.wire import RegisteredAgent

_POOLS = {
    "host": "host",
    "spec": "name",
    "kind": "kind",
    "active": "active",
    "agents": "agents",
    "file": "replicas",
    "set": "set_replicas",
    "scaled": "scaled_replicas",
    "capabilities": "capabilities",
}


def logs(client: Client, options: argparse.Namespace) -> int:
    """Show the end of what an agent wrote to stdout and stderr, or of a task's log."""
    if (options.agent is None) == (options.task is None):
        raise UsageError("Say either --agent NAME or --task ID.")
    if options.task is not None:
        lines = client.logs(options.task, limit=options.lines)
        return _lines([line.text for line in lines], [line.raw for line in lines], options)
    answer = client.agent_logs(options.agent, lines=options.lines)
    if not answer["fresh"]:
        told = answer["written_at"] or "never"
        report.warn(f"its supervisor does not answer; these lines were told: {told}")
    return _lines(answer["lines"], answer, options)


def drain(client: Client, options: argparse.Namespace) -> int:
    """Have an agent take nothing new, finish what it has, then end."""
    return _changed(client.drain_agent, options)


def stop(client: Client, options: argparse.Namespace) -> int:
    """Stop an agent."""
    return _changed(lambda name: client.stop_agent(name, force=options.force), options)


def restart(client: Client, options: argparse.Namespace) -> int:
    """Have an agent's process replaced."""
    return _changed(client.restart_agent, options)


def hosts(client: Client, options: argparse.Namespace) -> int:
    """Show the hosts, what they offer and the sizes of their pools."""
    found = client.hosts(limit=options.limit)
    if options.json:
        report.rows(found, {}, "", as_json=True)
        return DONE
    report.rows(_pools_of(found), _POOLS, "There are no hosts yet.", as_json=False)
    return DONE


def scale(client: Client, options: argparse.Namespace) -> int:
    """Have a host keep so many agents of a spec."""
    replicas = None if options.replicas == "file" else _count(options.replicas)
    host = options.host or _only_host(client, options.spec)
    if replicas is None:
        answer = client.unscale(host, options.spec)
    else:
        answer = client.scale(host, options.spec, replicas)
    said = "as its file says" if replicas is None else f"{replicas} agents"
    report.done(f"{options.spec} on {host}: {said}", answer, as_json=options.json)
    return DONE


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise UsageError(f"A number of agents or `file` is expected, not {text!r}.")
    return int(text)


def _only_host(client: Client, spec: str) -> str:
    named = [pool["host"] for pool in _pools_of(client.hosts()) if pool["name"] == spec]
    if len(named) != 1:
        found = ", ".join(named) or "none"
        raise UsageError(f"Say --host: the hosts that offer {spec!r} are: {found}.")
    return str(named[0])


def _pools_of(hosts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {**spec, "host": host["name"], "capabilities": ", ".join(spec["capabilities"])}
        for host in hosts
        for spec in host["specs"]
    ]


def _changed(change: Callable[[str], RegisteredAgent], options: argparse.Namespace) -> int:
    agent = change(options.agent)
    report.done(f"{agent.name} {agent.status}", agent.raw, as_json=options.json)
    return DONE


def _lines(lines: list[str], answer: Any, options: argparse.Namespace) -> int:
    report.done("\n".join(lines), answer, as_json=options.json)
    return DONE
