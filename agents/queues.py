"""Queues: one for each capability plus label set, and the names that brokers know them by."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from django.db import transaction

from agents import news
from agents.models import Queue
from opscore.database import after_commit, query
from opscore.errors import InvalidError
from opscore.models import Project
from opscore.schedule import OWN_QUEUE as OWN

#: Length of `Queue.name`; RabbitMQ takes at most 255 bytes.
MAX_NAME = 200
#: Queues with labels that a project may have; every supervisor reads them all, twice a second.
MAX_QUEUES = 1000
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")
_known: set[str] = set()

_INSERT = """
WITH added AS (
    INSERT INTO agents_queue (name, project_id, capability, labels)
    SELECT x.name, %(project)s, x.capability, x.labels
    FROM jsonb_to_recordset(%(rows)s::jsonb) AS x(name text, capability text, labels varchar[])
    ORDER BY x.name
    ON CONFLICT (name) DO NOTHING RETURNING 1)
SELECT (SELECT count(*) FROM added) AS added,
       (SELECT count(*) FROM agents_queue WHERE project_id = %(project)s) AS had"""


@dataclass(frozen=True)
class Offer:
    """A queue that exists, as far as matching needs it."""

    name: str
    project_id: int
    capability: str
    labels: frozenset[str]

    def serves(self, project_id: int, capabilities: Iterable[str], labels: Iterable[str]) -> bool:
        """Tell whether an agent with these words may take tasks from this queue."""
        return (
            self.project_id == project_id
            and self.capability in capabilities
            and self.labels <= frozenset(labels)
        )


def queue_name(project_slug: str, capability: str, requires: Iterable[str] = ()) -> str:
    """Return the queue's name: `default.code_review` or `default.train+cuda.gpu`.

    Different arguments give different names; the order and number of equal labels do not
    count. Only letters, digits and `_ - . + ~` occur. A name that would be too long for
    a broker ends in its SHA-256 instead.
    """
    name = f"{_safe(project_slug)}.{_safe(capability)}"
    if labels := sorted({_safe(label) for label in requires}):
        name += "+" + ".".join(labels)
    if len(name) <= MAX_NAME:
        return name
    # "~~" cannot come out of _safe: an escape is "~" and two hex digits.
    return f"{name[:100]}~~{hashlib.sha256(name.encode()).hexdigest()}"


def _safe(word: str) -> str:
    return _UNSAFE.sub(lambda found: "".join(f"~{byte:02x}" for byte in found[0].encode()), word)


def own(agent_id: object) -> str:
    """Return the name of the queue that only this agent consumes: what is addressed to it.

    No queue of a capability is named like that: `@` never comes out of `_safe`.
    """
    return f"{OWN}{agent_id}"


def is_own(name: str) -> bool:
    """Tell whether a queue belongs to one agent."""
    return name.startswith(OWN)


def ensure(project: Project, capability: str, requires: Sequence[str] = ()) -> str:
    """Return the queue's name and make sure that agents can find the queue.

    For several queues in one transaction use `ensure_all`. Raises InvalidError as it does.
    """
    return ensure_all(project, [(capability, requires)])[0]


def ensure_all(project: Project, wanted: Iterable[tuple[str, Sequence[str]]]) -> list[str]:
    """Do what `ensure` does for many pairs of capability and required labels, in one statement.

    Returns the names in the order of `wanted`. Raises InvalidError when the project would have
    more than MAX_QUEUES queues with labels.
    """
    named = [(queue_name(project.slug, word, labels), word, labels) for word, labels in wanted]
    new = {
        name: (word, sorted(set(labels)))
        for name, word, labels in named
        if labels and name not in _known
    }
    if new:
        _insert(project, new)
        # Not before the commit: a rollback takes the rows away again.
        after_commit(lambda: _known.update(new))
    return [name for name, _, _ in named]


def _insert(project: Project, new: Mapping[str, tuple[str, list[str]]]) -> None:
    # In one order: transactions that insert the same names wait for each other.
    rows = [
        {"name": name, "capability": new[name][0], "labels": new[name][1]} for name in sorted(new)
    ]
    with transaction.atomic():
        counts = query(_INSERT, {"project": project.pk, "rows": json.dumps(rows)})[0]
        if not counts["added"]:
            return
        if counts["had"] + counts["added"] > MAX_QUEUES:
            raise InvalidError(
                f"The project {project.slug} would have more than {MAX_QUEUES} different pairs of "
                "capability and required labels. Put what differs from task to task into the "
                "inputs."
            )
        news.publish()


def offers() -> list[Offer]:
    """Return every queue that exists."""
    rows = Queue.objects.values_list("name", "project_id", "capability", "labels")
    return [Offer(name, project, word, frozenset(labels)) for name, project, word, labels in rows]


def matching(
    project: Project, capabilities: Sequence[str], labels: Sequence[str] = ()
) -> list[str]:
    """Return all queues that such an agent may serve; always those of its bare capabilities."""
    return select(project.pk, project.slug, capabilities, labels, offers())


def select(
    project_id: int,
    project_slug: str,
    capabilities: Sequence[str],
    labels: Sequence[str],
    offered: Iterable[Offer],
) -> list[str]:
    """Do what `matching` does on queues already read: no query."""
    bare = {queue_name(project_slug, word) for word in capabilities}
    fitting = {offer.name for offer in offered if offer.serves(project_id, capabilities, labels)}
    return sorted(bare | fitting)


def forget() -> None:
    """Empty this process's memory of queues that exist (tests change the database)."""
    _known.clear()
