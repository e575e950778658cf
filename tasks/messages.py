"""Messages between agents of a run: durable, at least once, until their time to live is over."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, LiteralString
from uuid import UUID

from agents import endpoints, registry
from agents.exchange import Received
from opscore.config import load_config
from opscore.database import Row, query
from opscore.errors import ConflictError, InvalidError, NotFoundError, Problem, TooLargeError
from opscore.ids import uuid7
from opscore.models import Project
from tasks.dispatch import READY_CHANNEL
from tasks.models import Message, Run
from tasks.states import RUN
from tasks.writers import HELD, HELD_BY_RESULT, WRITABLE, Writer, encoded, refusal

#: The longest time to live.
MAX_TTL_S = 7 * 86400
#: How long an acknowledged message is kept, so that a repeated acknowledgement is answered alike.
KEPT_S = 600
#: Rows that one step of the cleaner deletes at once.
BATCH = 1000


def send(
    project: Project,
    run_id: UUID,
    *,
    to: Mapping[str, str],
    topic: str,
    body: Any,
    writer: Writer,
    ttl_s: float = 3600,
    message_id: UUID | None = None,
) -> Row:
    """Keep a message and wake who waits for it; return its id, sent_at and expires_at.

    `to` is `{"agent": name}` or `{"capability": word}`. Sending the same `message_id` again
    changes nothing. Raises InvalidError, TooLargeError (body, or too many messages that nobody
    acknowledged), NotFoundError, ConflictError when the run or the writer's attempt is over.
    """
    agent_id, capability = _checked(project, to, topic, ttl_s)
    bounds = load_config()
    params = {
        "id": message_id or uuid7(),
        "run": run_id,
        "agent": agent_id,
        "capability": capability,
        "topic": topic,
        "body": encoded(body, "body", bounds.message_bytes, "OPSCORE_MESSAGE_BYTES"),
        "sender": writer.name,
        "ttl_s": ttl_s,
        "max_open": bounds.messages_per_run,
        "channel": READY_CHANNEL,
        "word": _word(agent_id, project.pk, capability),
        **writer.params(),
    }
    rows = query(_SEND[writer.with_result], params)
    if not rows:
        raise _refusal(run_id, writer, topic)
    return {name: rows[0][name] for name in ("id", "sent_at", "expires_at")}


def receive(session_id: UUID, limit: int, lease_s: float) -> list[Received]:
    """Take up to `limit` messages for the session's agent or its capabilities, oldest first.

    What is not acknowledged within `lease_s` seconds, or before the session ends, comes again.
    """
    params = {"session": session_id, "limit": limit, "lease_s": lease_s}
    rows = sorted(query(_RECEIVE, params), key=lambda row: row["id"])
    return [Received(**row) for row in rows]


def words(agent_id: UUID, project_id: int, capabilities: Iterable[str]) -> list[str]:
    """Return the announcements that tell a waiting receiver to look again."""
    return [_word(agent_id), *(_word(None, project_id, word) for word in capabilities)]


def announced(agent_ids: Collection[UUID], offered: Collection[tuple[int, str]]) -> list[str]:
    """Return the announcements of messages that wait, to these agents or capabilities.

    `offered` are pairs of project id and capability.
    """
    params = {
        "agents": list(agent_ids),
        "projects": [project_id for project_id, _ in offered],
        "words": [word for _, word in offered],
    }
    rows = query(_ANNOUNCED, params)
    return [_word(row["agent"], row["project"], row["word"]) for row in rows]


def acknowledge(message_id: UUID, receipt: UUID) -> None:
    """Say that a message is done; repeating it is harmless.

    Raises NotFoundError when there is no such message (its time to live is over), ConflictError
    when it was handed out again: then somebody else does it.
    """
    if query(_ACKNOWLEDGE, {"id": message_id, "receipt": receipt}):
        return
    if not Message.objects.filter(pk=message_id).exists():
        raise NotFoundError(f"There is no message {message_id}; perhaps it has expired.")
    raise ConflictError("The lease was over and the message was handed out again; drop the work.")


def put_back(messages: Iterable[Received]) -> None:
    """Give back messages whose receiver never learned of them: the answer was lost."""
    query(_PUT_BACK, {"receipts": [message.receipt for message in messages]})


def delete_done() -> bool:
    """Delete one batch of acknowledged and expired messages; return whether there may be more.

    An event tells of each that expired without an acknowledgement.
    """
    return len(query(_DELETE, {"kept_s": KEPT_S, "limit": BATCH})) == BATCH


def _checked(
    project: Project, to: Mapping[str, str], topic: str, ttl_s: float
) -> tuple[UUID | None, str]:
    """Return the receiver: an agent's id, or None and a capability. Raises InvalidError."""
    problems = []
    if set(to) not in ({"agent"}, {"capability"}):
        problems.append(Problem('say {"agent": name} or {"capability": word}', "to"))
    elif not all(_is_word(word, 100) for word in to.values()):
        problems.append(Problem("a name or word of 1 to 100 characters is expected", "to"))
    if topic and not _is_word(topic, 100):
        problems.append(Problem("a topic has at most 100 characters", "topic"))
    if not 1 <= ttl_s <= MAX_TTL_S:
        problems.append(Problem(f"must be 1 to {MAX_TTL_S} seconds", "ttl_s"))
    if problems:
        raise InvalidError("The message is not valid.", problems)
    if "capability" in to:
        return None, to["capability"]
    return _receiver(project, to["agent"]), ""


def _receiver(project: Project, name: str) -> UUID:
    """Return the agent of that name. Raises InvalidError where it could never receive."""
    try:
        agent = registry.find(project, name)
    except NotFoundError as error:
        problem = Problem(str(error), "to.agent")
        raise InvalidError("The message is not valid.", [problem]) from None
    if agent.kind == endpoints.KIND:
        why = f"the agent {agent.name!r} is sent its tasks and receives no messages; give it a task"
        raise InvalidError("The message is not valid.", [Problem(why, "to.agent")])
    return agent.pk


def _is_word(text: object, length: int) -> bool:
    return isinstance(text, str) and 0 < len(text) <= length and "\0" not in text


def _refusal(run_id: UUID, writer: Writer, topic: str) -> Exception:
    run = Run.objects.filter(pk=run_id).first()
    limit = load_config().messages_per_run
    if run is not None and run.status not in RUN.terminal:
        unacknowledged = Message.objects.filter(run_id=run_id, acknowledged_at=None).count()
        if unacknowledged >= limit:
            return TooLargeError(
                f"The run has {limit} messages that nobody has acknowledged "
                "(OPSCORE_MESSAGES_PER_RUN)."
            )
    return refusal(run_id, writer, f"message {topic}"[:200])


def _word(agent_id: UUID | None, project_id: int = 0, capability: str = "") -> str:
    return f"message to {agent_id or f'{project_id}/{capability}'}"


# No row: the run or the attempt is over, or there are too many. Receivers wake after the commit.
_SEND = {
    with_result: f"""
WITH {held},
made AS (
  INSERT INTO tasks_message (id, project_id, run_id, to_agent_id, to_capability, topic, body,
                             sender, sent_at, expires_at, deliveries)
  SELECT %(id)s, r.project_id, r.id, %(agent)s, %(capability)s, %(topic)s, %(body)s::jsonb,
         %(sender)s, clock_timestamp(), clock_timestamp() + make_interval(secs => %(ttl_s)s), 0
    FROM tasks_run r
   WHERE r.id = %(run)s AND {WRITABLE}
     AND (SELECT count(*) FROM tasks_message m
           WHERE m.run_id = r.id AND m.acknowledged_at IS NULL) < %(max_open)s
      ON CONFLICT (id) DO UPDATE SET sender = excluded.sender
  RETURNING id, sent_at, expires_at)
SELECT made.*, pg_notify(%(channel)s, %(word)s) FROM made
"""  # noqa: S608 - constants; values are bound
    for with_result, held in ((False, HELD), (True, HELD_BY_RESULT))
}

# Of a message `m`: nobody has it.
_WAITS: LiteralString = """
    m.acknowledged_at IS NULL AND m.expires_at > clock_timestamp()
AND (m.lease_until IS NULL OR m.lease_until < clock_timestamp()
     OR EXISTS (SELECT FROM agents_agentsession x
                 WHERE x.id = m.session_id AND x.ended_at IS NOT NULL))"""

_ANNOUNCED: LiteralString = f"""
SELECT a.agent, 0 AS project, '' AS word FROM unnest(%(agents)s::uuid[]) AS a(agent)
 WHERE EXISTS (SELECT FROM tasks_message m WHERE m.to_agent_id = a.agent AND {_WAITS})
 UNION ALL
SELECT NULL, w.project, w.word
  FROM unnest(%(projects)s::bigint[], %(words)s::text[]) AS w(project, word)
 WHERE EXISTS (SELECT FROM tasks_message m
                WHERE m.project_id = w.project AND m.to_capability = w.word AND {_WAITS})
"""  # noqa: S608 - constants; values are bound

_RECEIVE: LiteralString = f"""
WITH pick AS (
  SELECT m.id
    FROM agents_agentsession s
    JOIN agents_agent a ON a.id = s.agent_id
    JOIN tasks_message m ON m.to_agent_id = a.id
      OR m.project_id = a.project_id AND m.to_capability = ANY(a.capabilities)
   WHERE s.id = %(session)s AND s.ended_at IS NULL
     AND {_WAITS}
   ORDER BY m.id LIMIT %(limit)s
     FOR NO KEY UPDATE OF m SKIP LOCKED)
UPDATE tasks_message m
   SET receipt = gen_random_uuid(), session_id = %(session)s, deliveries = m.deliveries + 1,
       lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
  FROM pick WHERE m.id = pick.id
RETURNING m.id, m.receipt, m.run_id, m.topic, m.body::json, m.sender, m.sent_at, m.deliveries
"""  # noqa: S608 - constants; values are bound

_ACKNOWLEDGE = """
UPDATE tasks_message SET acknowledged_at = COALESCE(acknowledged_at, clock_timestamp())
 WHERE id = %(id)s AND receipt = %(receipt)s
RETURNING id
"""

_PUT_BACK = """
UPDATE tasks_message SET lease_until = NULL, receipt = NULL, deliveries = deliveries - 1
 WHERE receipt = ANY(%(receipts)s::uuid[]) AND acknowledged_at IS NULL
"""

_DELETE = """
WITH gone AS (
  DELETE FROM tasks_message WHERE id = ANY(ARRAY(
    SELECT id FROM tasks_message
     WHERE expires_at < now()
        OR acknowledged_at < now() - make_interval(secs => %(kept_s)s)
     LIMIT %(limit)s
       FOR UPDATE SKIP LOCKED))
  RETURNING id, project_id, run_id, to_agent_id, to_capability, topic, sender, deliveries,
            acknowledged_at),
noted AS (
  INSERT INTO opscore_event (project_id, kind, run_id, agent_id, actor, data)
  SELECT project_id, 'message.expired', run_id, to_agent_id, '',
         jsonb_build_object('id', id, 'topic', topic, 'sender', sender, 'deliveries', deliveries,
                            'capability', to_capability)
    FROM gone WHERE acknowledged_at IS NULL)
SELECT id FROM gone
"""
