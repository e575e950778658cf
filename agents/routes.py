"""Routes: which strategy a capability has. Read before every hint, so kept for a second."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from django.db import transaction
from django.db.models.functions import Now

from agents.models import Route
from agents.queues import queue_name
from agents.routing import DEFAULT, MAX_WEIGHT, STRATEGIES
from opscore.database import query
from opscore.errors import InvalidError, NotFoundError, Problem
from opscore.models import Event, Project

_CACHE_S = 1.0
#: Weights that one route may have.
MAX_WEIGHTS = 1000
_WORD_LENGTH = 100
_MAX_CAPABILITY = 80

_SPECIAL = """
SELECT r.strategy, r.weights::json, p.slug, r.capability,
       ARRAY(SELECT q.name FROM agents_queue q
              WHERE q.project_id = r.project_id AND q.capability = r.capability) AS queues
  FROM agents_route r JOIN opscore_project p ON p.id = r.project_id
 WHERE r.strategy <> %(default)s
"""


@dataclass(frozen=True)
class Chosen:
    """The strategy of a queue whose tasks are addressed."""

    strategy: str
    weights: Mapping[str, int]


#: What a queue has whose capability has no route.
PULL = Chosen(DEFAULT, MappingProxyType({}))
_kept: tuple[float, Mapping[str, Chosen]] = (float("-inf"), {})


def special() -> Mapping[str, Chosen]:
    """Return queue -> strategy of those whose tasks are addressed; at most a second old."""
    global _kept  # noqa: PLW0603 - one cache for the process
    read_at, found = _kept
    if time.monotonic() - read_at < _CACHE_S:
        return found
    found = {}
    for row in query(_SPECIAL, {"default": DEFAULT}):
        for name in (queue_name(row["slug"], row["capability"]), *row["queues"]):
            found[name] = Chosen(row["strategy"], row["weights"])
    _kept = (time.monotonic(), found)
    return found


def forget() -> None:
    """Empty this process's memory of routes; others notice a change within a second."""
    global _kept  # noqa: PLW0603 - one cache for the process
    _kept = (float("-inf"), {})


def put(
    project: Project, capability: str, strategy: str, weights: Mapping[str, int], actor: str = ""
) -> Route:
    """Choose the strategy of a capability, for what is queued from now on.

    Raises InvalidError for an unknown strategy or weights that are none.
    """
    check(capability, strategy, weights)
    with transaction.atomic():
        route, _ = Route.objects.update_or_create(
            project=project,
            capability=capability,
            defaults={"strategy": strategy, "weights": dict(weights), "changed_at": Now()},
        )
        _note(project, "route.changed", actor, capability, strategy=strategy)
    forget()
    route.refresh_from_db()
    return route


def drop(project: Project, capability: str, actor: str = "") -> None:
    """Let the pull decide again. Raises NotFoundError when there is no route."""
    with transaction.atomic():
        if not Route.objects.filter(project=project, capability=capability).delete()[0]:
            raise _no_route(capability)
        _note(project, "route.dropped", actor, capability)
    forget()


def find(project: Project, capability: str) -> Route:
    """Return the route of a capability; raises NotFoundError."""
    found = Route.objects.filter(project=project, capability=capability).first()
    if found is None:
        raise _no_route(capability)
    return found


def check(capability: str, strategy: str, weights: Mapping[str, int]) -> None:
    """Raise InvalidError with all that is wrong."""
    problems = []
    if strategy not in STRATEGIES:
        known = ", ".join(STRATEGIES)
        problems.append(Problem(f"unknown strategy {strategy!r}; one of {known}", "strategy"))
    if not capability.strip() or len(capability) > _MAX_CAPABILITY:
        problems.append(Problem("a word of 1 to 80 characters is expected", "capability"))
    if weights and strategy != "weighted":
        problems.append(Problem("weights belong to the strategy `weighted`", "weights"))
    if len(weights) > MAX_WEIGHTS:
        problems.append(Problem(f"at most {MAX_WEIGHTS} are allowed", "weights"))
    problems += [
        Problem(f"an agent's name or a label, and 1 to {MAX_WEIGHT} are expected", f"weights.{key}")
        for key, weight in list(weights.items())[:MAX_WEIGHTS]
        if not _is_weight(weight) or not key.strip() or len(key) > _WORD_LENGTH
    ]
    if problems:
        raise InvalidError("This route is not valid.", problems)


def _is_weight(weight: Any) -> bool:
    return type(weight) is int and 1 <= weight <= MAX_WEIGHT


def _no_route(capability: str) -> NotFoundError:
    return NotFoundError(
        f"The capability {capability!r} has no route: whoever is free first takes its tasks."
    )


def _note(project: Project, kind: str, actor: str, capability: str, **data: str) -> None:
    Event.objects.create(
        project=project, kind=kind, actor=actor, data={"capability": capability, **data}
    )
