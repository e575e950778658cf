"""Turns a plan into Celery canvases: the one file that imports chain, group and chord.

A message carries ids only: the task, its attempt, and the numbers that this canvas delivers next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from celery import chain, chord, group
from celery.canvas import Signature
from django.conf import settings

from opscore.celery import app
from tasks.segments import Chord, Plan, Segment
from tasks.topology import Address

RUN_TASK = "tasks.run_task"


def broker_priority(priority: int) -> int:
    """Translate 0-9 with 9 first into the broker's scale: Redis serves 0 first."""
    on_redis = not str(settings.CELERY_BROKER_URL).startswith("amqp")
    return 9 - priority if on_redis else priority


def send(plan: Plan, addresses: Mapping[int, Address]) -> None:
    """Send every canvas of a plan. Raises what the broker's client raises."""
    canvases = list(compile_plan(plan, addresses.__getitem__))
    canvas = canvases[0] if len(canvases) == 1 else group(canvases)
    # One connection for all messages of a wide group, instead of one checkout for each.
    with app.producer_pool.acquire(block=True, timeout=5) as producer:
        canvas.apply_async(producer=producer)


def compile_plan(plan: Plan, address: Callable[[int], Address]) -> Iterator[Signature]:
    """Yield one canvas for each part of the plan."""
    for part in plan:
        if isinstance(part, Chord):
            yield _chord(part, address)
        else:
            yield _segment(part, address, then=())


def _chord(part: Chord, address: Callable[[int], Address]) -> Signature:
    join = part.body.run[0]
    header = [_segment(branch, address, then=(join,)) for branch in part.header]
    return chord(header, _segment(part.body, address, then=()))


def _segment(part: Segment, address: Callable[[int], Address], then: tuple[int, ...]) -> Signature:
    steps = [
        _step(address(number), carry=(following,))
        for number, following in zip(part.run, part.run[1:], strict=False)
    ]
    steps.append(_step(address(part.run[-1]), carry=then or _heads(part.tail)))
    if isinstance(part.tail, Chord):
        steps.append(_chord(part.tail, address))
    elif part.tail:
        branches = [_segment(branch, address, then=()) for branch in part.tail]
        steps.append(branches[0] if len(branches) == 1 else group(branches))
    return steps[0] if len(steps) == 1 else chain(*steps)


def _heads(tail: tuple[Segment, ...] | Chord) -> tuple[int, ...]:
    branches = tail.header if isinstance(tail, Chord) else tail
    return tuple(branch.run[0] for branch in branches)


def _step(address: Address, carry: tuple[int, ...]) -> Signature:
    signature: Signature = app.signature(
        RUN_TASK,
        args=(str(address.id), address.attempt, list(carry)),
        immutable=True,
        options={
            "task_id": str(address.id),
            "queue": address.queue,
            "priority": broker_priority(address.priority),
            # Said here because the process that sends need not have imported the job; without
            # it every message would open a result channel that nobody reads or closes.
            "ignore_result": True,
        },
    )
    return signature
