"""Pools: how many agents of each spec a host should keep. The supervisor makes it so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.db.models.functions import Now

from agents import news
from agents.models import Agent, Host, Pool
from agents.specs import Spec
from opscore.database import query
from opscore.errors import NotFoundError
from opscore.models import Event, Project

#: More agents of one spec on one host are a slip of the pen.
MAX_REPLICAS = 1000

_SCALED = """
INSERT INTO agents_pool (host_id, spec, scaled, changed_at)
SELECT id, %(spec)s, %(scaled)s, now() FROM agents_host
 WHERE project_id = %(project)s AND name = %(host)s
ON CONFLICT (host_id, spec) DO UPDATE SET scaled = excluded.scaled, changed_at = now()"""


def scale(host: Host, spec: str, replicas: int | None, actor: str = "") -> Pool:
    """Have the host keep so many agents of the spec, also after restarts; None: as its file says.

    A number stops the autoscale rule of the spec until it is taken back. Those that are too
    many finish their tasks first. Raises NotFoundError when the host does not offer the spec.
    """
    if spec not in host.specs:
        known = ", ".join(sorted(host.specs)) or "none"
        raise NotFoundError(f"The host {host.name!r} offers no spec {spec!r} (it has: {known}).")
    with transaction.atomic():
        pool, _ = Pool.objects.update_or_create(
            host=host, spec=spec, defaults={"replicas": replicas, "changed_at": Now()}
        )
        Event.objects.create(
            project_id=host.project_id,
            kind="pool.scaled",
            actor=actor,
            data={"host": host.name, "spec": spec, "replicas": replicas},
        )
        news.publish()
    return pool


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


def sizes(project: Project, host: str, specs: Mapping[str, Spec]) -> dict[str, int]:
    """Return how many agents of each spec should be: an operator's word, the rule's, the file's."""
    pools = {
        pool.spec: pool for pool in Pool.objects.filter(host__project=project, host__name=host)
    }
    return {name: _size(spec, pools.get(name)) for name, spec in specs.items()}


def _size(spec: Spec, pool: Pool | None) -> int:
    if pool is not None and pool.replicas is not None:
        return pool.replicas
    if pool is not None and pool.scaled is not None and spec.autoscale is not None:
        return min(max(pool.scaled, spec.autoscale.min), spec.autoscale.max)
    return spec.replicas


def held(project: Project, host: str) -> frozenset[str]:
    """Return the specs whose size an operator has set: no rule may change it."""
    set_by_hand = Pool.objects.filter(
        host__project=project, host__name=host, replicas__isnull=False
    )
    return frozenset(set_by_hand.values_list("spec", flat=True))


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
            "set_replicas": pools[name].replicas if name in pools else None,
            "scaled_replicas": pools[name].scaled if name in pools else None,
            **counts.get(name, {"agents": 0, "active": 0}),
        }
        for name, offer in sorted(host.specs.items())
    ]
