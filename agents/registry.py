"""Registry: which agents should exist. Supervisors and the agents themselves make it so."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import F, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from agents import news, pools, sessions, transitions
from agents.models import Agent, AgentSession, Host
from agents.specs import RESERVED
from agents.states import KINDS, SUPERVISED
from opscore.config import load_config
from opscore.database import after_commit, query
from opscore.errors import ConflictError, InvalidError, NotFoundError, Problem
from opscore.models import Project

#: Agent names are file names and host parts of Celery node names too.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,99}")
_WORD_LENGTH = 80


@dataclass(frozen=True)
class _Wish:
    """What `register` was asked for, checked and completed."""

    kind: str
    spec: str
    host: str
    capabilities: list[str]
    labels: list[str]
    concurrency: int | None = None


def register(
    project: Project,
    *,
    name: str,
    kind: str,
    spec: str = "",
    capabilities: Sequence[str] = (),
    labels: Sequence[str] = (),
    concurrency: int | None = None,
    actor: str = "",
) -> tuple[Agent, bool]:
    """Make sure that this agent exists and should run; True: it is new.

    Kinds that a supervisor starts are chosen by `spec`, a name in some host's file of
    agent specs, take capabilities and labels from there when none are given, and their
    concurrency always. `concurrency` is the most tasks that any other has at once; None: it
    decides itself.
    Raises InvalidError (bad words, unknown spec, more than `max_replicas` of the host's file) and
    ConflictError (the name is an agent of another kind or spec).
    """
    _check_words(name, kind, capabilities, labels)
    if kind in SUPERVISED and concurrency is not None:
        problem = Problem(f"for {kind} the spec says it", "concurrency")
        raise InvalidError("This agent cannot be registered.", [problem])
    said = _Wish(kind, spec, "", list(capabilities), list(labels), concurrency)
    wish = _wish(project, said) if kind in SUPERVISED else replace(said, spec="")
    try:
        with transaction.atomic():
            # Hosts before agents: everybody locks them in this order.
            pools.hold(project, wish.host)
            agent = _create(project, name, wish, actor)
            pools.demand_place(project, agent.host, agent.spec)
            return agent, True
    except IntegrityError:
        return _renew(project, name, wish, actor), False


def enrol(
    project: Project,
    name: str,
    capabilities: Sequence[str],
    actor: str = "",
    *,
    concurrency: int | None = None,
) -> tuple[Agent, bool]:
    """Register a worker that somebody started by hand; no supervisor will touch it.

    Raises InvalidError and ConflictError as `register` does.
    """
    _check_words(name, "worker", capabilities, ())
    wish = _Wish("worker", "", "", list(capabilities), [], concurrency)
    try:
        with transaction.atomic():
            return _create(project, name, wish, actor), True
    except IntegrityError:
        return _renew(project, name, wish, actor), False


def retire(agent: Agent, actor: str = "") -> None:
    """Have the agent stop: a supervised one finishes its task first, others end at once.

    Raises ConflictError for the platform's own agents.
    """
    _refuse_platform(agent, "stopped")
    with transaction.atomic():
        is_supervised = is_watched(agent)
        if not is_supervised:
            # Sessions before agents: everybody locks them in this order.
            sessions.end(_open_sessions(agent), "the agent was retired", lost=False)
        Agent.objects.filter(pk=agent.pk).update(desired="stopped")
        transitions.note([agent.pk], "agent.retired", actor=actor)
        if is_supervised:
            news.publish()
        else:
            transitions.change([agent.pk], "terminated", reason="retired", actor=actor)


def drain(agent: Agent, actor: str = "") -> None:
    """Have the agent take nothing new, finish what it has, then end. Harmless when it drains.

    `health.finish_drains` ends those that no supervisor watches. Raises ConflictError for the
    platform's own agents.
    """
    _refuse_platform(agent, "stopped")
    if is_watched(agent):
        retire(agent, actor)
        return
    with transaction.atomic():
        Agent.objects.filter(pk=agent.pk).update(desired="stopped")
        if _open_sessions(agent):
            transitions.change([agent.pk], "draining", reason="asked to finish", actor=actor)
        else:
            transitions.change([agent.pk], "terminated", reason="retired", actor=actor)


def stop(agent: Agent, actor: str = "") -> None:
    """End the agent at once; what it has is given back and runs elsewhere.

    A supervised one is killed with all that it started.
    """
    with transaction.atomic():
        if is_watched(agent):
            sessions.condemn(_open_sessions(agent), "stopped by force")
        retire(agent, actor)


def is_watched(agent: Agent) -> bool:
    """Tell whether a supervisor that lives has this agent."""
    return agent.kind in SUPERVISED and _host_is_alive(agent)


def pause(agent: Agent, actor: str = "") -> None:
    """Have the agent take nothing new; what it has it finishes. Harmless when it is paused.

    A worker that somebody started by hand notices it with its next beat. Raises ConflictError
    for the platform's own agents.
    """
    _refuse_platform(agent, "paused")
    _set_paused(agent, paused=True, kind="agent.paused", actor=actor)


def resume(agent: Agent, actor: str = "") -> None:
    """Have a paused agent take tasks again, those first that waited for it alone."""
    with transaction.atomic():
        if not _set_paused(agent, paused=False, kind="agent.resumed", actor=actor):
            return
        if AgentSession.objects.filter(agent=agent, ended_at=None, ready_at__isnull=False):
            after_commit(lambda: sessions.announce_ready(agent.pk))


def _refuse_platform(agent: Agent, done: str) -> None:
    if agent.spec == RESERVED:
        raise ConflictError(
            f"The agent {agent.name!r} does the platform's own work; it cannot be {done}."
        )


def _set_paused(agent: Agent, *, paused: bool, kind: str, actor: str) -> bool:
    with transaction.atomic():
        changed = Agent.objects.filter(pk=agent.pk).exclude(paused=paused).update(paused=paused)
        if changed:
            transitions.note([agent.pk], kind, actor=actor)
            news.publish()
    return bool(changed)


def restart(agent: Agent, actor: str = "") -> None:
    """Have the supervisor replace the agent's process, after its present task.

    Also wakes an agent that was given up (`error`) or stopped. Raises ConflictError for
    agents that Ops-Core does not start.
    """
    if agent.kind not in SUPERVISED or not agent.host:
        raise ConflictError(
            f"Ops-Core did not start the agent {agent.name!r}; restart it where it runs."
        )
    with transaction.atomic():
        Agent.objects.filter(pk=agent.pk).update(desired="running", generation=F("generation") + 1)
        transitions.note([agent.pk], "agent.restart_requested", actor=actor)
        news.publish()


def find(project: Project, ref: str | UUID) -> Agent:
    """Return the agent with this id or name; NotFoundError suggests names that are close."""
    mine = Agent.objects.select_related("project").filter(project=project)
    found = mine.filter(name=str(ref)).first() or _by_id(mine, ref)
    if found is not None:
        return found
    names = mine.values_list("name", flat=True)
    close = difflib.get_close_matches(str(ref), list(names), n=3)
    hint = f" Did you mean {', '.join(close)}?" if close else ""
    raise NotFoundError(f"There is no agent {str(ref)!r}.{hint}")


def offered_specs(project: Project) -> dict[str, dict[str, Any]]:
    """Return what live hosts offer: spec name -> kind, capabilities, labels, hosts."""
    offered: dict[str, dict[str, Any]] = {}
    for host in live_hosts(project):
        for name, spec in host.specs.items():
            entry = offered.setdefault(name, {**spec, "hosts": []})
            entry["hosts"].append(host.name)
    return offered


def _check_words(name: str, kind: str, capabilities: Sequence[str], labels: Sequence[str]) -> None:
    problems = []
    if not NAME.fullmatch(name):
        rule = "1 to 100 letters, digits, '_', '.', '@' or '-', a letter or digit first"
        problems.append(Problem(f"a name is {rule}", "name"))
    if kind not in KINDS:
        problems.append(Problem(f"unknown kind {kind!r}; one of {', '.join(KINDS)}", "kind"))
    for field, words in (("capabilities", capabilities), ("labels", labels)):
        problems += [
            Problem(f"a word of 1 to {_WORD_LENGTH} characters is expected", f"{field}[{place}]")
            for place, word in enumerate(words)
            if not word.strip() or len(word) > _WORD_LENGTH
        ]
    if problems:
        raise InvalidError("This agent cannot be registered.", problems)


def _wish(project: Project, said: _Wish) -> _Wish:
    """Complete what was asked for by the spec; raises InvalidError."""
    offered = offered_specs(project)
    chosen = offered.get(said.spec)
    if chosen is None or chosen["kind"] != said.kind:
        names = sorted(word for word, found in offered.items() if found["kind"] == said.kind)
        known = f"offered now: {', '.join(names)}" if names else "no live host offers any"
        message = f"no live host offers a {said.kind} spec {said.spec!r}; {known}"
        raise InvalidError("This agent cannot be registered.", [Problem(message, "spec")])
    foreign = sorted(set(said.capabilities) - set(chosen["capabilities"]))
    if foreign:
        message = f"the spec {said.spec!r} does not have: {', '.join(foreign)}"
        raise InvalidError("This agent cannot be registered.", [Problem(message, "capabilities")])
    return _Wish(
        said.kind,
        said.spec,
        _least_loaded(chosen["hosts"]),
        said.capabilities or chosen["capabilities"],
        said.labels or chosen["labels"],
        chosen.get("concurrency", 1),
    )


def _create(project: Project, name: str, wish: _Wish, actor: str) -> Agent:
    agent = Agent.objects.create(
        project=project,
        name=name,
        kind=wish.kind,
        spec=wish.spec,
        host=wish.host,
        capabilities=wish.capabilities,
        labels=wish.labels,
        concurrency=wish.concurrency,
    )
    transitions.note([agent.pk], "agent.registered", actor=actor)
    news.publish()
    return agent


def _renew(project: Project, name: str, wish: _Wish, actor: str) -> Agent:
    with transaction.atomic():
        pools.hold(project, wish.host)
        agent = Agent.objects.select_for_update().get(project=project, name=name)
        if (agent.kind, agent.spec, bool(agent.host)) != (wish.kind, wish.spec, bool(wish.host)):
            what = f"{agent.kind} {agent.spec}".strip()
            raise ConflictError(f"The name {name!r} belongs to another agent already ({what}).")
        agent.capabilities, agent.labels = wish.capabilities, wish.labels
        agent.concurrency = wish.concurrency
        was_wanted, agent.desired = agent.desired == "running", "running"
        if wish.host and not _host_is_alive(agent):
            agent.host = wish.host
        agent.save(update_fields=["capabilities", "labels", "concurrency", "desired", "host"])
        if not was_wanted:
            pools.demand_place(project, agent.host, agent.spec)
        transitions.note([agent.pk], "agent.registered", actor=actor)
        news.publish()
    return agent


def _by_id(mine: Any, ref: str | UUID) -> Agent | None:
    try:
        key = ref if isinstance(ref, UUID) else UUID(ref)
    except ValueError:
        return None
    found: Agent | None = mine.filter(pk=key).first()
    return found


def _open_sessions(agent: Agent) -> list[UUID]:
    return list(
        AgentSession.objects.filter(agent=agent, ended_at=None).values_list("id", flat=True)
    )


def live_hosts(project: Project | None = None) -> QuerySet[Host]:
    """Return the hosts whose supervisor lives, by name."""
    since = Now() - timedelta(seconds=load_config().session_ttl_s)
    live = Host.objects.filter(pid__isnull=False, seen_at__gt=since).order_by("name")
    return live if project is None else live.filter(project=project)


def is_live(host: Host) -> bool:
    """Tell whether a host's supervisor lives."""
    since = timezone.now() - timedelta(seconds=load_config().session_ttl_s)
    return host.pid is not None and host.seen_at > since


def forget_host(host: Host) -> None:
    """Remove a host that is dead, with its pools; its agents are terminated.

    Raises ConflictError when it lives.
    """
    with transaction.atomic():
        Host.objects.select_for_update().get(pk=host.pk)
        if live_hosts().filter(pk=host.pk).exists():
            raise ConflictError(f"The host {host.name!r} lives: stop its supervisor first.")
        left = Agent.objects.filter(host=host.name, kind__in=SUPERVISED)
        ids = list(left.exclude(status="terminated").values_list("pk", flat=True))
        left.update(desired="stopped")
        reason = "its host was forgotten"
        live = AgentSession.objects.filter(agent__in=ids, ended_at=None)
        sessions.end(live.values_list("id", flat=True), reason)
        transitions.change(ids, "terminated", reason=reason)
        host.delete()


def _host_is_alive(agent: Agent) -> bool:
    # A host belongs to one project, but runs the agents of all.
    return live_hosts().filter(name=agent.host).exists()


def _least_loaded(hosts: list[str]) -> str:
    counts = query(
        """SELECT host, count(*) AS agents FROM agents_agent
           WHERE host = ANY(%(hosts)s::text[]) AND desired = 'running' GROUP BY host""",
        {"hosts": hosts},
    )
    load = {row["host"]: row["agents"] for row in counts}
    return min(hosts, key=lambda name: (load.get(name, 0), name))
