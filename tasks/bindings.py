"""What routing remembers: which agent a sticky key is bound to, and whose turn it is."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

from agents.models import Agent
from opscore.models import Project


class Sticky(models.Model):
    """A sticky key and the agent that its tasks go to while that lives."""

    project = models.ForeignKey(Project, models.CASCADE)
    queue = models.CharField(max_length=200, help_text="A capability with its required labels")
    key = models.CharField(max_length=300)
    agent = models.ForeignKey(Agent, models.CASCADE, related_name="sticky")
    bound_at = models.DateTimeField(db_default=Now())
    used_at = models.DateTimeField(db_default=Now())

    class Meta:
        verbose_name = "sticky key"
        constraints = [models.UniqueConstraint(fields=["queue", "key"], name="sticky_once")]
        indexes = [models.Index(fields=["used_at"], name="sticky_used")]

    def __str__(self) -> str:
        return f"{self.key} of {self.queue}"


class Turn(models.Model):
    """How much an agent was given of a capability: each addressed task counts 1/weight."""

    agent = models.ForeignKey(Agent, models.CASCADE, related_name="turns")
    capability = models.CharField(max_length=80)
    turn = models.FloatField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["agent", "capability"], name="turn_once")]

    def __str__(self) -> str:
        return f"{self.agent_id} {self.capability}: {self.turn:g}"
