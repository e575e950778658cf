"""What a support person would ask for, of agents, their hosts and their breakers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from django.db.models import Count

from agents import registry
from agents.models import Agent, Breaker, Host
from opscore.diagnosis import SHOWN, Check, Finding, listed
from opscore.models import Project

_LOOK = "see `opscore agents NAME` and `opscore logs --agent NAME`"


def hosts(project: Project) -> Iterator[Finding]:
    """Say which hosts live."""
    found = list(Host.objects.filter(project=project).order_by("name"))
    live = [host.name for host in found if registry.is_live(host)]
    if live:
        yield Finding("hosts", "ok", f"alive: {listed(live)}")
    for host in found:
        if host.name not in live:
            message = f"{host.name} is silent since {host.seen_at:%Y-%m-%d %H:%M:%S} UTC"
            advice = f"start its supervisor, or: opscore hosts --forget {host.name}"
            yield Finding("hosts", "fail" if not live else "warn", message, advice)
    if not found:
        advice = "start one (`manage.py supervise`), or agents that come over HTTP"
        yield Finding("hosts", "warn", "no supervisor was ever here", advice)


def agents(project: Project) -> Iterator[Finding]:
    """Say how agents are, and who of them needs somebody."""
    there = Agent.objects.filter(project=project).exclude(status="terminated")
    counts = there.order_by("status").values_list("status").annotate(number=Count("pk"))
    said = ", ".join(f"{number} {status}" for status, number in counts)
    if said:
        yield Finding("agents", "ok", said)
    else:
        yield Finding("agents", "warn", "none is there", "start a supervisor, or register one")
    for agent in there.filter(status="error").order_by("name")[:SHOWN]:
        advice = f"{_LOOK}; once it is mended: opscore restart {agent.name}"
        yield Finding("agents", "fail", f"{agent.name} was given up: {_reason(agent)}", advice)
    for agent in there.filter(status="unresponsive").order_by("name")[:SHOWN]:
        yield Finding("agents", "warn", f"{agent.name} does not answer: {_reason(agent)}", _LOOK)
    paused = list(there.filter(paused=True).order_by("name").values_list("name", flat=True))
    if paused:
        advice = "opscore agent resume NAME"
        yield Finding("agents", "warn", f"paused by hand: {listed(paused)}", advice)


def _reason(agent: Agent) -> str:
    return agent.reason.partition("\n")[0][:300] or "nobody said why"


def breakers(project: Project) -> Iterator[Finding]:
    """Say which circuit breakers hold tasks back."""
    shut = list(Breaker.objects.filter(project=project).exclude(state="closed")[:SHOWN])
    for one in shut:
        until = f" until {one.until:%Y-%m-%d %H:%M:%S} UTC" if one.until else ""
        message = f"that of the {one.kind} {one.name} is {one.state}{until}: {one.reason[:200]}"
        flag = " --agent" if one.kind == "agent" else ""
        advice = f"opscore breaker close {one.name}{flag}, or wait for its probe"
        yield Finding("breakers", "warn", message, advice)
    if not shut:
        yield Finding("breakers", "ok", "all are closed")


CHECKS: Sequence[Check] = (hosts, agents, breakers)
