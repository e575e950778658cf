"""Asks workers through their own queues whether they hear, if the broker itself does."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from agents import queues
from opscore.celery import app, take_back

#: The Celery function that answers by being run.
QUESTION = "agents.hear"
_BROKER_S = 3.0


def ask(agent_ids: Iterable[UUID]) -> None:
    """Send a question to each of these agents.

    Raises whatever the broker's client raises, or UnavailableError when the broker takes messages
    and gives none back: then none of the questions counts.
    """
    with app.connection_for_write(connect_timeout=_BROKER_S) as connection:
        take_back(connection, _BROKER_S)
        with app.amqp.Producer(connection) as producer:
            for agent_id in agent_ids:
                app.send_task(QUESTION, queue=queues.own(agent_id), producer=producer)
