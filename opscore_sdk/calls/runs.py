"""Runs: show, control, run again, signals, shared context, messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opscore_sdk.asking import Talk, as_json, ask, given, part, rows, waiting
from opscore_sdk.deadline import Deadline
from opscore_sdk.protocol import Entry
from opscore_sdk.wire import Explanation, Run, Signal

#: Seconds that one answer waits for an end.
_LONG_S = 20.0


def run(run_id: str, *, wait_s: float | None = None) -> Talk[Run]:
    """Return a run with its tasks: when it has ended, or after `wait_s` seconds (at most 60)."""
    return (yield from _run(run_id, 0.0, wait_s))


def runs(
    *,
    status: str | None = None,
    workflow: str | None = None,
    parent: str | None = None,
    limit: int = 50,
) -> Talk[list[Run]]:
    """Return the newest runs; `status` may be several words, separated by commas.

    `parent` is the id of a run, for those that its tasks started, or `none`, for those that
    no task did.
    """
    query = {"status": status, "workflow": workflow, "parent": parent}
    return (yield from rows("/runs", Run.read, limit, query))


def wait(
    run_id: str,
    *,
    every_s: float = 0.5,
    timeout_s: float | None = None,
    patience_s: float = 0.0,
) -> Talk[Run]:
    """Wait until a run has ended and return it, whatever its status.

    The answers wait for the end themselves; `every_s` is the pause before the next question. For
    `patience_s` seconds at a time it stays, although the platform does not answer. Raises
    WaitTimeoutError after `timeout_s`; the run goes on.
    """
    clock = Deadline(timeout_s)
    while True:
        seen = yield from _run(run_id, min(patience_s, clock.left_s), min(clock.left_s, _LONG_S))
        if seen.has_ended:
            return seen
        yield from clock.pause(every_s, run_id)


def cancel_run(run_id: str, *, force: bool = False) -> Talk[Run]:
    """Cancel a run; `force` leaves out its undo and finally. ConflictError when it has ended."""
    body = {"force": True} if force else None
    answer = yield from ask("PUT", f"/runs/{part(run_id)}/cancel", body=body)
    return Run.read(answer)


def pause_run(run_id: str) -> Talk[Run]:
    """Have a run start nothing new; ConflictError when it has ended."""
    answer = yield from ask("POST", f"/runs/{part(run_id)}/pause")
    return Run.read(answer)


def resume_run(run_id: str) -> Talk[Run]:
    """Have a paused run go on; ConflictError when it has ended."""
    answer = yield from ask("POST", f"/runs/{part(run_id)}/resume")
    return Run.read(answer)


def rerun(
    run_id: str,
    *,
    from_tasks: Sequence[str] = (),
    inputs: Mapping[str, Any] | None = None,
    idempotency_key: str | None = None,
) -> Talk[Run]:
    """Start a new run that reuses the results of an ended one.

    `from_tasks` are keys of tasks that run again with all that depends on them; none
    means what has not completed. `inputs` None: those of the old run.
    """
    body: dict[str, Any] = {"from": list(from_tasks)} if from_tasks else {}
    body |= {} if inputs is None else {"inputs": dict(inputs)}
    path = f"/runs/{part(run_id)}/rerun"
    answer = yield from ask("POST", path, body=body, idempotency_key=idempotency_key)
    return Run.read(answer)


def redrive(
    *,
    workflow: str | None = None,
    error_type: str | None = None,
    capability: str | None = None,
    since: str | None = None,
    until: str | None = None,
    limit: int | None = None,
    idempotency_key: str | None = None,
) -> Talk[list[Run]]:
    """Start failed runs again, each once, oldest first; `since` and `until` are ISO 8601."""
    body = given(
        workflow=workflow,
        error_type=error_type,
        capability=capability,
        since=since,
        until=until,
        limit=limit,
    )
    answer = yield from ask("POST", "/runs/redrive", body=body, idempotency_key=idempotency_key)
    return [Run.read({"status": "created", **row}) for row in answer["runs"]]


def signal(
    run_id: str, name: str, data: Any = None, *, idempotency_key: str | None = None
) -> Talk[Any]:
    """Send a signal with any JSON to a run; return what the platform answers.

    Its `warning` is a sentence when no task of the run waits for this name or can.
    """
    path = f"/runs/{part(run_id)}/signals/{part(name)}"
    text = as_json(data)
    return (yield from ask("POST", path, text=text, idempotency_key=idempotency_key))


def signals(run_id: str, *, limit: int = 50) -> Talk[list[Signal]]:
    """Return what was told to a run, newest first."""
    return (yield from rows(f"/runs/{part(run_id)}/signals", Signal.read, limit, {}))


# What the agents of one run share


def shared(run_id: str) -> Talk[list[Entry]]:
    """Return the entries of a run's shared context."""
    answer = yield from ask("GET", f"/runs/{part(run_id)}/context")
    return [Entry.read(row) for row in answer["entries"]]


def get_shared(run_id: str, key: str) -> Talk[Entry]:
    """Return one entry of a run's shared context; NotFoundError when there is none."""
    answer = yield from ask("GET", _entry(run_id, key))
    return Entry.read(answer)


def put_shared(
    run_id: str,
    key: str,
    value: Any,
    *,
    if_version: int | None = None,
    attempt: str | None = None,
) -> Talk[Entry]:
    """Write an entry; `if_version`: only over this version, 0 only when there is none.

    `attempt` is the `proof` of a claimed task on whose behalf it is written: others see the
    agent's name, and ConflictError with code `attempt_over` tells that the attempt is over.
    Raises VersionConflictError when somebody was faster.
    """
    body = {"value": value, **given(if_version=if_version)}
    # Sent twice it could meet its own first write: the caller decides about another try.
    once = if_version is not None
    path, headers = _entry(run_id, key), _proof(attempt)
    answer = yield from ask("PUT", path, body=body, headers=headers, repeatable=not once)
    return Entry.read(answer)


def delete_shared(
    run_id: str, key: str, *, if_version: int | None = None, attempt: str | None = None
) -> Talk[None]:
    """Delete an entry, with `if_version` only this version; NotFoundError when there is none.

    `attempt` and VersionConflictError as for `put_shared`.
    """
    query = given(if_version=if_version)
    yield from ask("DELETE", _entry(run_id, key), query=query, headers=_proof(attempt))


def send_message(
    run_id: str,
    body: Any,
    *,
    agent: str | None = None,
    capability: str | None = None,
    topic: str = "",
    ttl_s: float | None = None,
    idempotency_key: str | None = None,
    attempt: str | None = None,
) -> Talk[str]:
    """Send any JSON to one agent of a run, or to whoever has a capability; return its id.

    It is kept for `ttl_s` seconds (default 3600) and delivered at least once. `attempt` as for
    `put_shared`: an answer finds its way back only to a message that was sent with it.
    """
    message = {
        "to": given(agent=agent, capability=capability),
        "topic": topic,
        "body": body,
        **given(ttl_s=ttl_s),
    }
    path = f"/runs/{part(run_id)}/messages"
    answer = yield from ask(
        "POST", path, body=message, idempotency_key=idempotency_key, headers=_proof(attempt)
    )
    return str(answer["id"])


def messages(run_id: str, *, limit: int = 50) -> Talk[list[dict[str, Any]]]:
    """Return the newest messages of a run that were not deleted yet."""
    return (yield from rows(f"/runs/{part(run_id)}/messages", dict, limit, {}))


def why_run(run_id: str) -> Talk[list[Explanation]]:
    """Return why the live tasks of a run are where they are."""
    answer = yield from ask("GET", f"/runs/{part(run_id)}/why")
    return [Explanation.read(row) for row in answer["tasks"]]


def _run(run_id: str, patience_s: float, wait_s: float | None = None) -> Talk[Run]:
    path = f"/runs/{part(run_id)}"
    answer = yield from ask("GET", path, patience_s=patience_s, **waiting(wait_s))
    return Run.read(answer)


def _proof(attempt: str | None) -> dict[str, str]:
    return given(**{"Opscore-Attempt": attempt})


def _entry(run_id: str, key: str) -> str:
    return f"/runs/{part(run_id)}/context/{part(key)}"
