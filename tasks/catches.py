"""`catch`: what makes a task's result when it has failed for good."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agents import queues
from opscore.models import Project
from tasks.held import Claimed
from tasks.retries import RetryPolicy, concerns


def catches(task: Claimed, error: Mapping[str, Any]) -> bool:
    """Tell whether the task catches this error; what catches is not caught again."""
    catch = task.flow.catch
    if catch is None or "caught" in task.names:
        return False
    return concerns(error, on=catch.on, unless=catch.unless)


def instead(task: Claimed) -> dict[str, Any]:
    """Return what the task is from now on: the work of its `catch`."""
    catch = task.flow.catch
    assert catch is not None  # noqa: S101 - asked by the caller
    project = Project.objects.get(pk=task.project_id)
    return {
        "uses": "agent",
        "capability": catch.capability,
        "requires": sorted(set(catch.requires)),
        "queue": queues.ensure(project, catch.capability, catch.requires),
        "inputs": dict(catch.inputs),
        "retry": RetryPolicy().as_dict(),
        # What failed is not taken back either.
        "flow": {},
        "direct": True,
    }


def original(task: Claimed) -> dict[str, Any]:
    """Return what the task was, so that a re-run begins with it again."""
    return {
        "uses": task.uses,
        "capability": task.capability,
        "requires": list(task.requires),
        "queue": task.queue,
        "inputs": dict(task.template),
        "retry": task.retry.as_dict(),
        "flow": task.flow.as_dict(),
        "direct": not task.flow.is_limited and task.uses == "agent",
    }
