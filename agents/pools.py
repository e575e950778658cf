"""Pools: how many agents of each spec a host should keep. The supervisor makes it so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from django.db import transaction
from django.db.models.functions import Now

from agents import news
from agents.autoscale import Autoscale
from agents.models import Agent, Host, Pool
from agents.specs import Spec
from opscore.database import query
from opscore.errors import InvalidError, NotFoundError, Problem
from opscore.models import Event, Project

#: More agents of one spec on one host are a slip of the pen.
MAX_REPLICAS = 1000

_SCALED = """
INSERT INTO agents_pool (host_id, spec, scaled, changed_at)
SELECT id, %(spec)s, %(scaled)s, now() FROM agents_host
 WHERE project_id = %(project)s AND name = %(host)s
ON CONFLICT (host_id, spec) DO UPDATE SET scaled = excluded.scaled, changed_at = now()"""


@dataclass(frozen=True)
class Plan:
    """How large a pool should be, and by which rule; None: by a number."""

    agents: int
    rule: Autoscale | None = None


def scale(host: Host, spec: str, replicas: int | None, actor: str = "") -> Pool:
    """Have the host keep so many agents of the spec, also after restarts; None: as its file says.

    A number stops the autoscale rule of the spec until it is taken back, and ends one that an
    operator has set. Those that are too many finish their tasks first. Raises NotFoundError when
    the host does not offer the spec, InvalidError when its file allows less or it carries less.
    """
    _demand_room(host, spec, replicas or 0, "replicas")
    return _write(host, spec, actor, replicas=replicas, autoscale=None)


def set_rule(host: Host, spec: str, rule: Autoscale, actor: str = "") -> Pool:
    """Have the host keep as many agents of the spec as a rule says, instead of its file.

    It begins with the present size. Raises as `scale` does.
    """
    offer = _offer(host, spec)
    _demand_room(host, spec, rule.max, "autoscale.max")
    pool = Pool.objects.filter(host=host, spec=spec).first()
    present = _present(pool, offer).agents
    scaled = min(max(present, rule.min), rule.max)
    return _write(host, spec, actor, replicas=None, autoscale=asdict(rule), scaled=scaled)


def _write(host: Host, spec: str, actor: str, **said: Any) -> Pool:
    with transaction.atomic():
        pool, _ = Pool.objects.update_or_create(
            host=host, spec=spec, defaults={**said, "changed_at": Now()}
        )
        Event.objects.create(
            project_id=host.project_id,
            kind="pool.scaled",
            actor=actor,
            data={"host": host.name, "spec": spec, **said},
        )
        news.publish()
    return pool


def _offer(host: Host, spec: str) -> Mapping[str, Any]:
    if spec not in host.specs:
        known = ", ".join(sorted(host.specs)) or "none"
        raise NotFoundError(f"The host {host.name!r} offers no spec {spec!r} (it has: {known}).")
    offer: Mapping[str, Any] = host.specs[spec]
    return offer


def largest(host: Host, spec: str) -> int:
    """Return how large a pool the host's file allows and the host carries. Raises NotFoundError."""
    return min(_allowed(host, spec), _room(host, spec))


def demand_place(project: Project, host: str, spec: str) -> None:
    """Raise InvalidError when the host has one agent of the spec more than its file allows.

    Those that were registered by name count beside the pool at its largest.
    """
    found = hold(project, host)
    if found is None or spec not in found.specs:
        return
    plan = _present(Pool.objects.filter(host=found, spec=spec).first(), found.specs[spec])
    size = plan.rule.max if plan.rule else plan.agents
    if size + _named(found, spec) > _most(found, spec):
        message = f"{_file_allows(found, spec)}, this one among them, and {size} in its pool"
        raise InvalidError("This agent cannot be registered.", [Problem(message, "spec")])


def hold(project: Project, host: str) -> Host | None:
    """Return the host, locked: who registers agents by name there does so one after another."""
    if not host:
        return None
    mine = Host.objects.select_for_update(no_key=True).filter(project=project, name=host)
    return mine.first()


def _allowed(host: Host, spec: str) -> int:
    return max(_most(host, spec) - _named(host, spec), 0)


def _most(host: Host, spec: str) -> int:
    return int(_offer(host, spec).get("max_replicas") or MAX_REPLICAS)


def _named(host: Host, spec: str) -> int:
    """Return how many agents of the spec were registered by name, and should run."""
    mine = Agent.objects.filter(project=host.project_id, host=host.name, spec=spec)
    return mine.filter(desired="running", replica=None).count()


def _file_allows(host: Host, spec: str) -> str:
    named = _named(host, spec)
    beside = f": {named} registered by name" if named else ""
    return (
        f"the agents file of {host.name} allows at most {_most(host, spec)} of {spec} "
        f"(max_replicas){beside}"
    )


def _room(host: Host, spec: str) -> int:
    """Return how many agents of a spec the host can have beside all others that it should keep."""
    if host.carries is None:
        return MAX_REPLICAS
    pools = {pool.spec: pool for pool in host.pools.all()}
    others = sum(
        _present(pools.get(name), offer).agents
        for name, offer in host.specs.items()
        if name != spec
    )
    # The platform's own one, and those that were registered by name.
    alone = Agent.objects.filter(project=host.project_id, host=host.name, desired="running")
    others += alone.exclude(spec__in=list(host.specs), replica__isnull=False).count()
    return max(host.carries - others, 0)


def _demand_room(host: Host, spec: str, size: int, path: str) -> None:
    allowed, room = _allowed(host, spec), _room(host, spec)
    if size <= min(allowed, room):
        return
    message = (
        _file_allows(host, spec)
        if allowed <= room
        else f"with its limit of open files (ulimit -n) {host.name} can have {host.carries} agents "
        f"at once: {room} of {spec} beside the others"
    )
    raise InvalidError("The pool cannot become so large.", [Problem(message, path)])


def find_host(project: Project, name: str) -> Host:
    """Return a host of the project by name. Raises NotFoundError."""
    found = Host.objects.filter(project=project, name=name).first()
    if found is None:
        known = ", ".join(Host.objects.filter(project=project).values_list("name", flat=True))
        raise NotFoundError(f"There is no host {name!r} (known: {known or 'none'}).")
    return found


def write_scaled(project: Project, host: str, spec: str, agents: int) -> None:
    """Keep what the autoscale rule has decided, so that a restart goes on from there."""
    query(_SCALED, {"project": project.pk, "host": host, "spec": spec, "scaled": agents})


def plans(project: Project, host: str, specs: Mapping[str, Spec]) -> dict[str, Plan]:
    """Return how many agents of each spec should be: an operator's word, a rule's, the file's."""
    pools = {
        pool.spec: pool for pool in Pool.objects.filter(host__project=project, host__name=host)
    }
    return {
        name: _plan(pools.get(name), spec.replicas, spec.autoscale) for name, spec in specs.items()
    }


def sizes(project: Project, host: str, specs: Mapping[str, Spec]) -> dict[str, int]:
    """Do what `plans` does, without the rules."""
    return {name: plan.agents for name, plan in plans(project, host, specs).items()}


def _plan(pool: Pool | None, replicas: int, files_rule: Autoscale | None) -> Plan:
    if pool is not None and pool.replicas is not None:
        return Plan(pool.replicas)
    rule = (_rule(pool.autoscale) if pool is not None else None) or files_rule
    if rule is None:
        return Plan(replicas)
    scaled = rule.min if pool is None or pool.scaled is None else pool.scaled
    return Plan(min(max(scaled, rule.min), rule.max), rule)


def _present(pool: Pool | None, offer: Mapping[str, Any]) -> Plan:
    return _plan(pool, offer.get("replicas", 1), _rule(offer.get("autoscale")))


def _rule(said: Mapping[str, Any] | None) -> Autoscale | None:
    return Autoscale(**said) if said else None


def shown(host: Host) -> list[dict[str, Any]]:
    """Return the specs of a host with their sizes, as the API shows them."""
    pools = {pool.spec: pool for pool in host.pools.all()}
    counts: dict[str, dict[str, int]] = {}
    agents = Agent.objects.filter(host=host.name, desired="running", project=host.project_id)
    for spec, status in agents.values_list("spec", "status"):
        of_spec = counts.setdefault(spec, {"agents": 0, "active": 0})
        of_spec["agents"] += 1
        of_spec["active"] += status == "active"
    return [
        {
            "name": name,
            **offer,
            **_decided(pools.get(name), offer),
            **counts.get(name, {"agents": 0, "active": 0}),
        }
        for name, offer in sorted(host.specs.items())
    ]


def _decided(pool: Pool | None, offer: Mapping[str, Any]) -> dict[str, Any]:
    rule = _present(pool, offer).rule
    return {
        "set_replicas": pool.replicas if pool else None,
        "set_autoscale": pool.autoscale if pool else None,
        "scaled_replicas": pool.scaled if pool and rule else None,
        "autoscale": asdict(rule) if rule else offer.get("autoscale"),
    }
