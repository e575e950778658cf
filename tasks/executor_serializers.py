"""What the executor protocol takes and answers."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from agents.api import CLAIM_WAIT_MAX_S
from opscore.api.endpoint import StrictSerializer
from opscore.api.schema import name_enum
from tasks.serializers import ErrorValueSerializer

STREAMS = ("log", "stdout", "stderr")
OUTCOMES = ("completed", "failed")
name_enum("ReportedStatus", OUTCOMES)
name_enum("LogStream", STREAMS)


#: What a column of the database holds, with room for the next one.
_FENCE: dict[str, Any] = {"min_value": 0, "max_value": 2**31 - 2}


class ClaimSerializer(StrictSerializer):
    """How many tasks an executor wants and how long it would wait for the first."""

    limit = serializers.IntegerField(min_value=1, max_value=100, default=1)
    wait_s = serializers.FloatField(min_value=0, max_value=CLAIM_WAIT_MAX_S, default=0)


class ClaimedSerializer(serializers.Serializer[Any]):
    """One attempt that the session now holds."""

    id = serializers.UUIDField()
    run_id = serializers.UUIDField()
    key = serializers.CharField()
    capability = serializers.CharField()
    attempt = serializers.IntegerField()
    fence = serializers.IntegerField(help_text="Send it with every report and log.", **_FENCE)
    priority = serializers.IntegerField()
    timeout_s = serializers.FloatField(allow_null=True)
    inputs = serializers.DictField()
    idempotency_key = serializers.CharField(help_text="The same for every attempt of the task.")
    traceparent = serializers.CharField(
        help_text="W3C trace context: a trace for each run, a span for each attempt."
    )


class ClaimedTasksSerializer(serializers.Serializer[Any]):
    """What was claimed; empty when nothing came up in time."""

    tasks = ClaimedSerializer(many=True)


class HeldSerializer(StrictSerializer):
    """A task that the executor has."""

    id = serializers.UUIDField()
    fence = serializers.IntegerField(**_FENCE)


class HeartbeatSerializer(StrictSerializer):
    """All tasks that the executor has; a claim whose answer got lost is missing here."""

    tasks = serializers.ListField(child=HeldSerializer(), required=False, max_length=1000)


class HeartbeatAnswerSerializer(serializers.Serializer[Any]):
    """What the executor should stop doing."""

    cancelled = serializers.ListField(
        child=serializers.UUIDField(), help_text="Stop these: cancelled, timed out or taken away."
    )


class ReportSerializer(StrictSerializer):
    """How an attempt ended."""

    fence = serializers.IntegerField(**_FENCE)
    status = serializers.ChoiceField(OUTCOMES)
    result = serializers.JSONField(required=False, allow_null=True, help_text="Any JSON.")
    error = ErrorValueSerializer(required=False)


class LogLinesSerializer(StrictSerializer):
    """Lines for an attempt's log."""

    fence = serializers.IntegerField(**_FENCE)
    lines = serializers.ListField(
        child=serializers.CharField(allow_blank=True, trim_whitespace=False), max_length=1000
    )
    stream = serializers.ChoiceField(STREAMS, default="log")


class TellProgressSerializer(StrictSerializer):
    """How far an attempt is."""

    fence = serializers.IntegerField(**_FENCE)
    fraction = serializers.FloatField(
        min_value=0, max_value=1, required=False, allow_null=True, help_text="null: unknown."
    )
    message = serializers.CharField(
        max_length=500, required=False, default="", allow_blank=True, help_text="Of what."
    )


class FenceSerializer(StrictSerializer):
    """Proof of an attempt."""

    fence = serializers.IntegerField(**_FENCE)
