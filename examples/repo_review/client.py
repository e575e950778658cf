"""Runs the review over the API, as any program could: the SDK and a key are all it needs."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from examples.repo_review.markdown import visible
from opscore_sdk import Client
from opscore_sdk.wire import Run, RunTask

WORKFLOW = Path(__file__).with_name("workflow.yaml")
#: Tasks that slow motion makes long enough to be hit in the middle.
_LONG_TASKS = ("history", "metrics")


class KillError(Exception):
    """No agent process could be killed; the message says why."""


def start(client: Client, repo: Path, **inputs: Any) -> Run:
    """Upload the workflow and start a run of exactly this version."""
    uploaded = client.upload_file(WORKFLOW)
    return client.execute(
        uploaded.name, version=uploaded.version, inputs={"repo": str(repo), **inputs}
    )


class Assassin:
    """Kills, once, the process of an agent that is in the middle of a task."""

    def __init__(self, client: Client, say: Callable[[str], None]) -> None:
        self._client = client
        self._say = say
        self.victim_id = ""
        """The task that lost its agent; '' while nobody was killed."""

    def look_at(self, run: Run) -> None:
        """Kill when the moment has come; raises KillError when it has passed."""
        if self.victim_id:
            return
        if run.has_ended:
            raise KillError(
                "The run ended before an agent could be killed in the middle of a task."
            )
        for task in run.tasks:
            if task.key in _LONG_TASKS and task.status == "running" and self._kill(task):
                return

    def outcome(self) -> str:
        """Say what the platform recorded; raises KillError when it did not notice."""
        task = self._client.task(self.victim_id)
        lost = [attempt for attempt in task.attempts if attempt.outcome == "lost"]
        if not task.losses or not lost:
            raise KillError(f"The platform has no record that {task.key} lost its agent.")
        return (
            f"{task.key} ran twice: its agent was killed under it and it was given to "
            f"{task.agent_name} again (losses: {task.losses}, attempt: {task.attempt})."
        )

    def _kill(self, task: RunTask) -> bool:
        session_id = self._client.task(task.id).raw["session_id"]
        sessions = self._client.agent(task.agent_name).raw["sessions"]
        pids = [row["pid"] for row in sessions if row["id"] == session_id and not row["ended_at"]]
        if not pids or not _is_ours(pids[0]):
            return False
        os.kill(pids[0], signal.SIGKILL)
        self.victim_id = task.id
        self._say(
            f"*** SIGKILL to agent {task.agent_name} (process {pids[0]}) "
            f"in the middle of task {task.key} ***"
        )
        return True


def _is_ours(pid: int) -> bool:
    """Only a process that this one started, directly or not, may be killed."""
    try:
        return os.getpid() in {parent.pid for parent in psutil.Process(pid).parents()}
    except psutil.NoSuchProcess:
        return False


def summary(run: Run, report: Path) -> Iterator[str]:
    """Yield what is to be read on a terminal after a run that completed."""
    found = run.outputs["summary"]
    hotspots = found["hotspots"]
    yield ""
    yield f"Hot spots. {found['meaning']}"
    yield f"  {'score':>5}  {'churn':>5}  {'complexity':>10}  {'tests':<5}  file"
    for row in hotspots:
        tests = {True: "yes", False: "none", None: "?"}[row["tested"]]
        yield (
            f"  {row['score']:>5.2f}  {row['commits']:>5}  {row['complexity']:>10}"
            f"  {tests:<5}  {visible(row['path'])}"
        )
    if not hotspots:
        yield "  none: no source file makes a decision"
    yield ""
    yield f"Report  {report}"
    yield f"Run     {run.id}, {len(run.tasks)} tasks in {_seconds(run):.1f} s"
    yield f"Work    {_work(run)}"


def failures(run: Run) -> Iterator[str]:
    """Yield why a run did not complete, a sentence for each task that failed."""
    failed = [task for task in run.tasks if task.status == "failed"]
    for task in failed:
        agent = f" (agent {task.agent_name})" if task.agent_name else ""
        yield f"{task.key}{agent}: {(task.error or {}).get('message', 'no reason given')}"
    if not failed:
        yield f"The run is {run.status}: {(run.error or {}).get('message', 'no reason given')}"


def _seconds(run: Run) -> float:
    if run.created_at is None or run.completed_at is None:
        return 0.0
    return (run.completed_at - run.created_at).total_seconds()


def _work(run: Run) -> str:
    done: dict[str, list[str]] = {}
    for task in run.tasks:
        if task.agent_name:
            done.setdefault(task.agent_name, []).append(task.key)
    return "; ".join(f"{agent}: {', '.join(keys)}" for agent, keys in done.items())
