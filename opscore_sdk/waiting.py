"""Commands that start a run and may wait for its end: `run`, `rerun`; `submit` waits alike."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from opscore_sdk import report
from opscore_sdk.client import Client, media_type_of
from opscore_sdk.errors import (
    InvalidError,
    OpsCoreError,
    Problem,
    ServerError,
    UnreachableError,
    WaitTimeoutError,
)
from opscore_sdk.inside import Inside
from opscore_sdk.progress import follow
from opscore_sdk.statuses import DONE, FAILED, INTERRUPTED, REFUSED, UsageError
from opscore_sdk.verbs import as_json, text_of
from opscore_sdk.wire import Run, Uploaded

#: What the platform says of a text where the schema has no text.
_NO_TEXT = ("is not of type", "is not valid under any of")


def run(client: Client, options: argparse.Namespace) -> int:
    """Upload a definition and execute exactly this version."""
    inputs = inputs_of(options)
    uploaded = client.upload(text_of(options.file), media_type=media_type_of(options.file))
    return _started(client, options, lambda: _execute(client, options, uploaded, inputs))


def rerun(client: Client, options: argparse.Namespace) -> int:
    """Start a new run that reuses what an ended one has completed."""
    inputs = None if options.inputs is None else as_json(options.inputs, "--inputs")
    if inputs is not None and not isinstance(inputs, dict):
        raise UsageError("--inputs: a JSON object is expected.")
    return _started(
        client, options, lambda: client.rerun(options.run, from_tasks=options.tasks, inputs=inputs)
    )


def _execute(
    client: Client, options: argparse.Namespace, uploaded: Uploaded, inputs: dict[str, Any]
) -> Run:
    try:
        return client.execute(
            uploaded.name,
            inputs=inputs,
            version=uploaded.version,
            priority=options.priority,
            fairness_key=options.fairness_key,
        )
    except InvalidError as error:
        for hint in _hints(options.input, error.errors):
            error.add_note(hint)
        raise


def _hints(pairs: Iterable[str], errors: Iterable[Problem]) -> Iterator[str]:
    """Yield what to write instead of each `--input` whose schema wants something but a text."""
    misfits = {
        problem.path for problem in errors if any(word in problem.message for word in _NO_TEXT)
    }
    for pair in pairs:
        name, text = _pair(pair, "--input")
        if misfits & {f"inputs.{name}", f'inputs["{name}"]'}:
            meant = shlex.quote(f"{name}={text if _is_other_json(text) else 'JSON'}")
            yield f"--input gives a text; for another value: --input-json {meant}"


def _is_other_json(text: str) -> bool:
    try:
        return not isinstance(json.loads(text), str)
    except (ValueError, RecursionError):
        return False


def _started(client: Client, options: argparse.Namespace, start: Callable[[], Run]) -> int:
    run = start()
    if not options.wait:
        report.started(run, as_json=options.json)
        _warn_of_missing(client, run)
        return DONE
    # Before anything else can go wrong: with its id a run cannot get lost.
    report.say(f"run {run.id} of {run.workflow} {run.version}; see it: opscore status {run.id}")
    _warn_of_missing(client, run)
    return wait(client, run.id, options, lambda run: report.ended(run, as_json=options.json))


def wait(
    client: Client, run_id: str, options: argparse.Namespace, show: Callable[[Run], None]
) -> int:
    """Show a run's progress until it has ended, then what came out."""
    snapshots = client.follow(
        run_id,
        every_s=options.every_s,
        timeout_s=options.timeout_s,
        patience_s=options.patience,
    )
    try:
        run = follow(snapshots, inner=Inside(client))
    except KeyboardInterrupt:
        report.say(f"The run goes on: opscore status {run_id}")
        return INTERRUPTED
    except (WaitTimeoutError, UnreachableError, ServerError) as error:
        report.say(f"opscore: {error} See: opscore status {run_id}")
        return REFUSED
    show(run)
    return DONE if run.status == "completed" else FAILED


def _warn_of_missing(client: Client, run: Run) -> None:
    """Say which capabilities nobody offers now. A hint: when it cannot be had, nothing is lost."""
    wanted: dict[str, list[str]] = {}
    for task in run.tasks:
        if task.capability and not task.has_ended:
            wanted.setdefault(task.capability, []).append(task.key)
    try:
        agents = client.agents(limit=1000) if wanted else []
    except OpsCoreError:
        return
    offered = {word for agent in agents if agent.is_at_hand for word in agent.capabilities}
    for word in sorted(set(wanted) - offered):
        report.warn(f"no agent offers {word!r} now; until one does, {_waits(wanted[word])}")


def _waits(keys: Iterable[str]) -> str:
    first, *others = keys
    return f"{first} and {len(others)} more tasks wait" if others else f"{first} waits"


def inputs_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return what --input and --input-json say; raises UsageError."""
    inputs: dict[str, Any] = {}
    for pair in options.input:
        name, value = _pair(pair, "--input")
        inputs[name] = value
    for pair in options.input_json:
        name, value = _pair(pair, "--input-json")
        inputs[name] = as_json(value, f"--input-json {name}")
    return inputs


def _pair(text: str, option: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise UsageError(f"{option} {text}: expected name=value.")
    return name, value
