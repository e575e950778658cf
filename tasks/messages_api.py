"""REST: messages between the agents of a run."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.db.models.functions import Now
from django.urls import path
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from agents.api import CLAIM_WAIT_MAX_S
from opscore.api.auth import key_of
from opscore.api.endpoint import Endpoint, Listing, StrictSerializer
from opscore.api.waiting import EmptyResponse, Patience, WaitingEndpoint
from tasks import attendance, messages
from tasks.dispatch import READY_CHANNEL
from tasks.executor_api import open_session
from tasks.models import Message
from tasks.shared_api import ATTEMPT, READERS, WRITERS, run_for, shown, writer_of

_TO = {
    "oneOf": [
        {
            "type": "object",
            "required": [word],
            "additionalProperties": False,
            "properties": {word: {"type": "string"}},
        }
        for word in ("agent", "capability")
    ]
}


@extend_schema_field(_TO)
class ToField(serializers.DictField):
    """`{"agent": name}` or `{"capability": word}`."""

    child = serializers.CharField()


class SendSerializer(StrictSerializer):
    """What `POST /runs/{run}/messages` takes."""

    to = ToField(help_text="One agent, or one agent of a capability: whoever takes it first.")
    topic = serializers.CharField(max_length=100, default="", allow_blank=True)
    body = serializers.JSONField(required=False, allow_null=True, help_text="Any JSON.")
    ttl_s = serializers.FloatField(
        min_value=1,
        max_value=messages.MAX_TTL_S,
        default=3600,
        help_text="Seconds after which nobody wants it any more.",
    )


class SentSerializer(serializers.Serializer[Any]):
    """A message that is kept now."""

    id = serializers.UUIDField()
    sent_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField()


class MessageSerializer(serializers.ModelSerializer[Message]):
    """A message as people see it."""

    to = serializers.SerializerMethodField()

    class Meta:
        model = Message
        fields = [
            "id",
            "to",
            "topic",
            "body",
            "sender",
            "sent_at",
            "expires_at",
            "lease_until",
            "deliveries",
            "acknowledged_at",
        ]

    def to_representation(self, instance: Message) -> dict[str, Any]:
        """Return a message; what people see of its body has no secrets in it."""
        return shown(self.context["view"], super().to_representation(instance), "body")

    @extend_schema_field(_TO)
    def get_to(self, message: Message) -> dict[str, str]:
        """Return the receiver."""
        if message.to_agent is not None:
            return {"agent": message.to_agent.name}
        return {"capability": message.to_capability}


class ReceiveSerializer(StrictSerializer):
    """How many messages an executor wants, how long it waits for the first and needs for each."""

    limit = serializers.IntegerField(min_value=1, max_value=100, default=1)
    wait_s = serializers.FloatField(min_value=0, max_value=CLAIM_WAIT_MAX_S, default=0)
    lease_s = serializers.FloatField(
        min_value=1,
        max_value=3600,
        default=30,
        help_text="What is not acknowledged by then comes again.",
    )


class ReceivedSerializer(serializers.Serializer[Any]):
    """One message that the session now holds."""

    id = serializers.UUIDField()
    receipt = serializers.UUIDField(help_text="Send it with the acknowledgement.")
    run_id = serializers.UUIDField()
    topic = serializers.CharField()
    body = serializers.JSONField(help_text="Any JSON.")
    sender = serializers.CharField(help_text="`agent:<name>` or `key:<name>`.")
    sent_at = serializers.DateTimeField()
    deliveries = serializers.IntegerField(help_text="Above 1: it was handed out before.")
    reply_to = serializers.DictField(
        allow_null=True, help_text="An answer's `to`; null: no agent sent it."
    )


class ReceivedMessagesSerializer(serializers.Serializer[Any]):
    """What was received; empty when nothing came up in time."""

    messages = ReceivedSerializer(many=True)


class AcknowledgeSerializer(StrictSerializer):
    """Proof that the message is still the sender's."""

    receipt = serializers.UUIDField()


class RunMessages(Listing):
    """The messages of one run."""

    scopes = {"GET": READERS, "POST": WRITERS}
    session_methods = ("GET", "POST")
    serializer_class = MessageSerializer

    def newest(self) -> QuerySet[Any]:
        """Return the messages that can be delivered, and those acknowledged a short time ago."""
        run = run_for(self, self.kwargs["run_id"])
        found = Message.objects.filter(run=run).select_related("to_agent")
        return found.exclude(acknowledged_at=None, expires_at__lte=Now())

    @extend_schema(parameters=[ATTEMPT], request=SendSerializer, responses={201: SentSerializer})
    def post(self, request: Request, run_id: UUID) -> Response:
        """Send a message to an agent, or to one agent of a capability.

        It is kept until its receiver acknowledges it, `ttl_s` seconds at most, and may come more
        than once. 409 when the run has ended, 413 above a bound.
        """
        said = self.checked(SendSerializer)
        writer = writer_of(self, run_for(self, run_id))
        sent = messages.send(
            self.project, run_id, body=said.pop("body", None), writer=writer, **said
        )
        return Response(SentSerializer(sent).data, status=201)


class ReceiveMessages(WaitingEndpoint):
    """Messages for the agent of one session."""

    scopes = {"POST": "agent"}
    session_methods = ("POST",)
    channel = READY_CHANNEL

    @extend_schema(request=ReceiveSerializer, responses=ReceivedMessagesSerializer)
    def post(self, request: Request, session_id: UUID) -> Response:
        """Take messages to this agent or to one of its capabilities, oldest first.

        Waits up to `wait_s` for the first. 409 when the session has ended.
        """
        wanted = self.checked(ReceiveSerializer)
        session = open_session(self, session_id)
        agent = session.agent
        received = messages.receive(session_id, wanted["limit"], wanted["lease_s"])
        if received:
            response = Response({"messages": [message.as_dict() for message in received]})
            response.undo = lambda: messages.put_back(received)  # type: ignore[attr-defined]
            return response
        words = messages.words(agent.pk, agent.project_id, agent.capabilities)
        patience = Patience(
            READY_CHANNEL,
            words,
            wanted["wait_s"],
            # Of those who may have a message each may have it: nobody is choosier than others.
            kind=("messages", agent.project_id),
            look_out=attendance.look_for_messages,
            ticket=attendance.present(session, key_of(request).pk),
        )
        return EmptyResponse({"messages": []}, patience)


class AcknowledgeMessage(Endpoint):
    """Acknowledgement of one message."""

    scopes = {"POST": "agent"}
    session_methods = ("POST",)

    @extend_schema(request=AcknowledgeSerializer, responses={204: None})
    def post(self, request: Request, session_id: UUID, message_id: UUID) -> Response:
        """Say that a message is done; repeating it is harmless.

        409 when its lease was over and it was handed out again: drop the work.
        """
        open_session(self, session_id)
        messages.acknowledge(message_id, self.checked(AcknowledgeSerializer)["receipt"])
        return Response(status=204)


urlpatterns = [
    path("runs/<uuid:run_id>/messages", RunMessages.as_view()),
    path("sessions/<uuid:session_id>/messages/receive", ReceiveMessages.as_view()),
    path("sessions/<uuid:session_id>/messages/<uuid:message_id>/ack", AcknowledgeMessage.as_view()),
]
