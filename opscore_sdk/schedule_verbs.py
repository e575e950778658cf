"""Commands about one schedule: each takes the client and its options."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from opscore_sdk import report
from opscore_sdk.client import Client
from opscore_sdk.statuses import DONE, UsageError
from opscore_sdk.wire import Schedule

_SLOTS = {"at": "at", "cause": "cause", "outcome": "outcome", "run": "run_id", "reason": "reason"}


def schedule(client: Client, options: argparse.Namespace) -> int:
    """Show a schedule with its latest slots, or change it."""
    has_range = options.from_ is not None and options.to_ is not None
    if (options.from_ or options.to_) and options.change != "backfill":
        raise UsageError("--from and --to go with backfill.")
    if options.change == "backfill" and not has_range:
        raise UsageError("backfill needs --from TIME and --to TIME.")
    return _CHANGES[options.change](client, options)


def _show(client: Client, options: argparse.Namespace) -> int:
    found = client.schedule(options.schedule)
    if options.json:
        report.value(found.raw)
        return DONE
    times = ", ".join(f"{at.astimezone():%Y-%m-%d %H:%M:%S}" for at in found.next_times)
    when = found.cron or f"every {found.every_s} s"
    said = f"{found.name}: {found.workflow}, {when} ({found.timezone})"
    following = "paused" if found.paused else f"next: {times}"
    report.done(f"{said}\n  {following}", None, as_json=False)
    slots = [slot.raw for slot in client.slots(options.schedule, limit=10)]
    report.rows(slots, _SLOTS, "No slot has come yet.", as_json=False)
    return DONE


def _pause(client: Client, options: argparse.Namespace) -> int:
    return _told(client.pause_schedule(options.schedule), "is paused", options)


def _resume(client: Client, options: argparse.Namespace) -> int:
    found = client.resume_schedule(options.schedule)
    return _told(found, f"goes on; next: {found.next_at}", options)


def _trigger(client: Client, options: argparse.Namespace) -> int:
    slot = client.trigger_schedule(options.schedule)
    said = f"{slot.outcome}; see: opscore watch {slot.run_id}" if slot.run_id else slot.outcome
    report.done(f"{options.schedule} {said}", slot.raw, as_json=options.json)
    return DONE


def _backfill(client: Client, options: argparse.Namespace) -> int:
    done = client.backfill_schedule(options.schedule, options.from_, options.to_)
    said = f"{options.schedule}: {done.slots} slots, {done.created} of them run now"
    report.done(said, done.raw, as_json=options.json)
    return DONE


def _delete(client: Client, options: argparse.Namespace) -> int:
    client.delete_schedule(options.schedule)
    said = f"{options.schedule} is deleted; its runs stay"
    report.done(said, {"name": options.schedule}, as_json=options.json)
    return DONE


def _told(found: Schedule, said: str, options: argparse.Namespace) -> int:
    report.done(f"{found.name} {said}", found.raw, as_json=options.json)
    return DONE


_CHANGES: dict[str, Callable[[Client, argparse.Namespace], int]] = {
    "show": _show,
    "pause": _pause,
    "resume": _resume,
    "trigger": _trigger,
    "backfill": _backfill,
    "delete": _delete,
}
