"""What the engine asks of the broker itself: has it lost its memory, how much lies in it?"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import redis
from django.conf import settings

from opscore.celery import amqp_lengths
from opscore.logs import get_logger
from opscore.schedule import PLATFORM_QUEUE

log = get_logger(__name__)

#: Lies beside the queues; when it is gone, so are they.
EPOCH_KEY = "opscore:epoch"


def lost_memory() -> bool:
    """Tell whether the broker was wiped since anybody last called `remember`.

    Redis only: a key beside the queues is missing. A first start counts as a wipe, which is
    harmless. RabbitMQ keeps its queues; lost messages are hinted again by age.
    """
    client = _client()
    try:
        return client is not None and not client.exists(EPOCH_KEY)
    except redis.RedisError as error:
        log.warning("broker.away", error=str(error))
        return False


def lengths(queues: Iterable[str]) -> dict[str, int]:
    """Return how many messages lie in each queue; {} when the broker does not answer."""
    try:
        client = _client()
        return _redis_lengths(client, list(queues)) if client else amqp_lengths(queues)
    except Exception as error:  # noqa: BLE001 - whatever a client raises: the answer is optional
        log.warning("broker.away", error=str(error))
        return {}


def drop(names: Iterable[str]) -> None:
    """Delete queues with all that lies in them; RabbitMQ lets those of single agents expire."""
    names = list(names)
    client = _client()
    if client is None or not names:
        return
    try:
        client.delete(*(each for name in names for each in _lists_of(name)))
        # What kombu remembers of every queue that was ever declared.
        client.srem(f"_kombu.binding.{PLATFORM_QUEUE}", *map(_binding_of, names))
    except redis.RedisError as error:
        log.warning("broker.away", error=str(error))


def _lists_of(name: str) -> list[str]:
    """Return the ten lists of a queue, one for each priority; kombu's name of the first is bare."""
    return [name, *(f"{name}\x06\x16{priority}" for priority in range(1, 10))]


def _binding_of(name: str) -> str:
    return f"{name}\x06\x16\x06\x16{name}"


def _redis_lengths(client: Any, queues: list[str]) -> dict[str, int]:
    with client.pipeline(transaction=False) as pipe:
        for name in queues:
            for each in _lists_of(name):
                pipe.llen(each)
        found = pipe.execute()
    return {name: sum(found[place * 10 : place * 10 + 10]) for place, name in enumerate(queues)}


def remember() -> None:
    """Mark the broker's memory; the mark is lost with it."""
    try:
        _client().set(EPOCH_KEY, "1")
    except redis.RedisError as error:
        log.warning("broker.away", error=str(error))


@cache
def _client() -> Any:
    url = str(settings.CELERY_BROKER_URL)
    if not url.startswith(("redis", "unix", "valkey")):
        return None
    return redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5)
