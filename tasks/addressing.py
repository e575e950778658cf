"""Addresses queued tasks to agents, just before they are hinted: what is chosen is written first.

Only tasks that say `prefers` or `sticky`, and those of capabilities with a strategy of their own;
for all others the pull decides, and this costs them nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db import transaction

from agents import queues, routes
from agents.routing import Place, Wishes, bind, choose, floor_of, weight_of
from opscore.database import DatabaseError, Row, query
from tasks import durations
from tasks.aftermath import Aftermath, tell
from tasks.expressions import ExpressionError, render
from tasks.held import claimed
from tasks.transitions import addressing
from tasks.transitions.fragments import CLAIMED

#: How long a task that may run elsewhere waits for the agent that was chosen: enough to be
#: taken after a short task or a busy second, little beside the tasks that make a queue long.
PATIENCE_S = 5.0
#: First half of the advisory lock "somebody chooses agents for this queue"; any constant does.
_LOCK_CLASS = 0x0B5F
_MAX_KEY = 300

# Choosing counts what was given before: two at once would both choose the same free agent.
_ONE_AT_A_TIME = """
SELECT pg_advisory_xact_lock(%(class)s::int, hashtext(q)) FROM unnest(%(queues)s::text[]) AS q
"""


def homes(ready: Iterable[tuple[UUID, str, bool]]) -> dict[UUID, str]:
    """Address those of the queued tasks (id, queue, whether it wishes) that want it.

    Returns the queue of the agent for each task that is addressed now. Must be called outside of
    any transaction. A task whose sticky key cannot be evaluated fails.
    """
    special = routes.special()
    wanted = {task_id: queue for task_id, queue, wishes in ready if wishes or queue in special}
    if not wanted:
        return {}
    with transaction.atomic():
        names = sorted(set(wanted.values()))
        query(_ONE_AT_A_TIME, {"class": _LOCK_CLASS, "queues": names})
        choices = _Choices(special)
        choices.make(query(addressing.WISHES, {"ids": sorted(wanted)}))
        choices.write()
    tell(Aftermath(misaddressed=tuple(choices.broken)))
    return choices.homes


@dataclass
class _Choices:
    """The choices for one batch of tasks, whose rows are locked."""

    special: Mapping[str, routes.Chosen]
    homes: dict[UUID, str] = field(default_factory=dict)
    broken: list[tuple[UUID, int, Exception]] = field(default_factory=list)
    """Task, fence, why its sticky key cannot be evaluated."""
    _written: list[dict[str, Any]] = field(default_factory=list)
    _bound: list[dict[str, Any]] = field(default_factory=list)
    _rebound: list[dict[str, Any]] = field(default_factory=list)
    """Those bindings that are new: what waits elsewhere with their keys follows."""
    _turns: dict[tuple[UUID, str], float] = field(default_factory=dict)
    _places: dict[str, list[Place]] = field(default_factory=dict)
    """Queue -> the agents of its capability that live, as they are after the choices so far."""
    _bindings: dict[tuple[str, str], UUID] = field(default_factory=dict)

    def make(self, rows: Sequence[Row]) -> None:
        """Choose for every task."""
        self._places = _places(rows, self.special)
        keys = {row["id"]: key for row in rows if (key := self._key(row))}
        told = {row["id"] for row in rows} - {task_id for task_id, _, _ in self.broken}
        self._bindings = _bindings([(row["queue"], keys.get(row["id"], "")) for row in rows])
        for row in rows:
            if row["id"] in told:
                self._one(row, keys.get(row["id"], ""))

    def write(self) -> None:
        """Write what was chosen."""
        if self._written:
            query(addressing.ADDRESS, {"rows": json.dumps(self._written, default=str)})
        if self._bound:
            bound = {"rows": json.dumps(self._bound, default=str)}
            query(_BIND, bound)
        if self._rebound:
            query(addressing.FOLLOW_KEY, {"rows": json.dumps(self._rebound, default=str)})
        if self._turns:
            # In one order: transactions that write the same rows wait for each other.
            turns = sorted(self._turns.items(), key=lambda entry: entry[0])
            params = {
                "agents": [agent for (agent, _), _ in turns],
                "words": [word for (_, word), _ in turns],
                "turns": [turn for _, turn in turns],
            }
            query(_TAKE_TURNS, params)

    def _key(self, row: Row) -> str:
        try:
            return _sticky_key(row)
        except DatabaseError:
            raise
        except Exception as error:  # noqa: BLE001 - one bad row must not keep its batch from being sent
            self.broken.append((row["id"], row["fence"], error))
            return ""

    def _one(self, row: Row, key: str) -> None:
        places = self._places[row["queue"]]
        kept = next((place for place in places if place.id == row["for_agent"]), None)
        if kept is not None:
            self.homes[row["id"]] = queues.own(kept.id)
            return
        chosen = self.special.get(row["queue"], routes.PULL)
        wishes = Wishes(frozenset(row["requires"]), row["prefers"] or {}, key or str(row["run_id"]))
        place = self._bound_to(row, key, places) if key else None
        is_old = place is not None
        if place is None:
            place = (bind if key else choose)(wishes, places, chosen.strategy)
        if place is not None:
            self._give(row, place, wishes, chosen.strategy, key, is_old=is_old)
        elif row["for_agent"] is not None:
            self._written.append({"id": row["id"], "agent": None})

    def _bound_to(self, row: Row, key: str, places: Sequence[Place]) -> Place | None:
        agent_id = self._bindings.get((row["queue"], key))
        return next((place for place in places if place.id == agent_id), None)

    def _give(
        self, row: Row, place: Place, wishes: Wishes, strategy: str, key: str, *, is_old: bool
    ) -> None:
        places = self._places[row["queue"]]
        after = place.given(floor_of(places))
        places[places.index(place)] = after
        if not is_old:
            self._turns[place.id, row["capability"]] = after.turn
        if key:
            self._bindings[row["queue"], key] = place.id
            ids = {"project_id": row["project_id"], "agent_id": place.id}
            binding = {"queue": row["queue"], "key": key, **ids}
            self._bound.append(binding)
            if not is_old:
                self._rebound.append(binding)
        liked = sorted(label for label in wishes.prefers if label in place.labels)
        routing = {
            "agent": place.name,
            "strategy": strategy,
            **({"prefers": liked, "score": wishes.liking(place.labels)} if wishes.prefers else {}),
            **({"sticky": key} if key else {}),
        }
        self._written.append(
            {
                "id": row["id"],
                "agent": place.id,
                # Without one a sticky task waits for as long as its agent lives.
                "patience_s": None if key else PATIENCE_S,
                "routing": routing,
            }
        )
        self.homes[row["id"]] = queues.own(place.id)


def _sticky_key(row: Row) -> str:
    template = row["sticky"]
    if not template:
        return ""
    scope: Mapping[str, Any] = {}
    if "${{" in template:
        scope = claimed(query(_SCOPE, {"id": row["id"]})[0]).scope
    key = str(render(template, scope, path="sticky"))
    if not key.strip() or len(key) > _MAX_KEY:
        message = f"must be a text of 1 to {_MAX_KEY} characters, not {key!r}"
        raise ExpressionError(message[:400], "sticky")
    return key


_SCOPE = f"""
SELECT {CLAIMED} FROM tasks_task t JOIN tasks_run r ON r.id = t.run_id WHERE t.id = %(id)s
"""  # noqa: S608 - put together from constants


# ------------------------------------------------------------ what there is
def _places(rows: Sequence[Row], special: Mapping[str, routes.Chosen]) -> dict[str, list[Place]]:
    """Return, for each queue, the agents with its capability that live."""
    of_queue = {row["queue"]: (row["project_id"], row["capability"]) for row in rows}
    pairs = sorted(set(of_queue.values()))
    params = {"projects": [pair[0] for pair in pairs], "words": [pair[1] for pair in pairs]}
    found: dict[tuple[int, str], list[Row]] = {pair: [] for pair in pairs}
    for agent in query(_AGENTS, params):
        found[agent["project_id"], agent["capability"]].append(agent)
    return {
        queue: _as_places(pair, found[pair], special.get(queue, routes.PULL))
        for queue, pair in of_queue.items()
    }


def _as_places(pair: tuple[int, str], agents: Sequence[Row], chosen: routes.Chosen) -> list[Place]:
    medians = durations.by_agent(*pair) if chosen.strategy == "fastest" else {}
    places = []
    for agent in agents:
        labels = frozenset(agent["labels"])
        place = Place(
            id=agent["id"],
            name=agent["name"],
            labels=labels,
            load=agent["load"],
            slots=agent["slots"],
            paused=agent["paused"],
            weight=weight_of(chosen.weights, agent["name"], labels),
            turn=agent["turn"],
            median_s=medians.get(agent["id"]),
        )
        places.append(place)
    return places


# An agent that drains, hears nothing or must be killed takes nothing new: it does not live for this.
_AGENTS = """
SELECT w.project_id, w.capability, a.id, a.name, a.labels, COALESCE(u.turn, 0) AS turn,
       a.paused OR COALESCE(a.places, 1) = 0 AS paused,
       least(COALESCE(a.concurrency, CASE WHEN cardinality(s.queues) > 0 THEN 1 END),
             a.places) AS slots,
       ((SELECT count(*) FROM tasks_task h WHERE h.session_id = s.id AND h.status = 'running')
        + (SELECT count(*) FROM (SELECT FROM tasks_task q WHERE q.for_agent = a.id
                                    AND q.status = 'queued' LIMIT 1000) addressed)
       )::int AS load
  FROM unnest(%(projects)s::bigint[], %(words)s::text[]) AS w(project_id, capability)
  JOIN agents_agent a ON a.project_id = w.project_id AND w.capability = ANY(a.capabilities)
   AND a.desired = 'running' AND a.status NOT IN ('draining', 'terminated', 'unresponsive')
  JOIN agents_agentsession s ON s.agent_id = a.id AND s.ended_at IS NULL
   AND s.ready_at IS NOT NULL AND s.condemned = ''
  LEFT JOIN tasks_turn u ON u.agent_id = a.id AND u.capability = w.capability
 ORDER BY a.name
"""


def _bindings(wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], UUID]:
    pairs = sorted({pair for pair in wanted if pair[1]})
    if not pairs:
        return {}
    params = {"queues": [queue for queue, _ in pairs], "keys": [key for _, key in pairs]}
    rows = query(_BINDINGS, params)
    return {(row["queue"], row["key"]): row["agent_id"] for row in rows}


_BINDINGS = """
SELECT b.queue, b.key, b.agent_id
  FROM unnest(%(queues)s::text[], %(keys)s::text[]) AS w(queue, key)
  JOIN tasks_sticky b ON b.queue = w.queue AND b.key = w.key
"""

# A binding that is used all the time is not written all the time.
_BIND = """
INSERT INTO tasks_sticky AS b (project_id, queue, key, agent_id)
SELECT DISTINCT ON (x.queue, x.key) x.project_id, x.queue, x.key, x.agent_id
  FROM jsonb_to_recordset(%(rows)s::jsonb)
       AS x(project_id bigint, queue text, key text, agent_id uuid)
 ORDER BY x.queue, x.key
ON CONFLICT (queue, key) DO UPDATE
   SET agent_id = excluded.agent_id, used_at = now(),
       bound_at = CASE WHEN b.agent_id = excluded.agent_id THEN b.bound_at ELSE now() END
 WHERE b.agent_id <> excluded.agent_id OR b.used_at < now() - interval '1 minute'
"""

_TAKE_TURNS = """
INSERT INTO tasks_turn (agent_id, capability, turn)
SELECT * FROM unnest(%(agents)s::uuid[], %(words)s::text[], %(turns)s::float[])
ON CONFLICT (agent_id, capability) DO UPDATE SET turn = excluded.turn
"""
