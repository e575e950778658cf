"""REST: webhooks and the log of their deliveries."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import django_filters
from django.db.models import QuerySet
from django.urls import path
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from opscore.api.endpoint import Endpoint, Listing, path_of
from opscore.api.pages import BY_AGE_OR_NAME
from opscore.errors import NotFoundError
from webhooks import hooks
from webhooks.models import STATUSES, Delivery, Webhook
from webhooks.serializers import (
    ChangeWebhookSerializer,
    CreateWebhookSerializer,
    DeliveryDetailSerializer,
    DeliverySerializer,
    NewSecretSerializer,
    RotateSecretSerializer,
    WebhookSerializer,
)

_ENDS = OpenApiExample(
    "Ends of runs, and what waits for a person",
    {
        "name": "chat",
        "url": "https://chat.example/opscore",
        "events": ["run.completed", "run.failed", "approval.requested"],
    },
    request_only=True,
)


class WebhookFilter(django_filters.FilterSet):
    """Filters of the list of webhooks."""

    name = django_filters.CharFilter(lookup_expr="icontains", help_text="Part of the name.")
    enabled = django_filters.BooleanFilter()

    class Meta:
        model = Webhook
        fields: list[str] = []


class DeliveryFilter(django_filters.FilterSet):
    """Filters of the list of deliveries."""

    status = django_filters.ChoiceFilter(choices=[(word, word) for word in STATUSES])
    event = django_filters.CharFilter(lookup_expr="startswith", help_text="As `run.`")

    class Meta:
        model = Delivery
        fields: list[str] = []


class _Draws(Endpoint):
    """Draws a secret, which must not be kept with the answer for an `Idempotency-Key`."""

    _secret: str | None = None

    def secrets(self, response: Response) -> Mapping[str, Any]:
        """Show the secret that this very request drew."""
        return {"secret": self._secret}


class Webhooks(_Draws, Listing):
    """The webhooks of the project."""

    scopes = {"POST": "admin"}
    serializer_class = WebhookSerializer
    filterset_class = WebhookFilter
    orderings = BY_AGE_OR_NAME

    def newest(self) -> QuerySet[Any]:
        """Return the project's webhooks."""
        return Webhook.objects.filter(project=self.project)

    @extend_schema(
        request=CreateWebhookSerializer, responses={201: NewSecretSerializer}, examples=[_ENDS]
    )
    def post(self, request: Request) -> Response:
        """Keep a webhook; the secret that its requests are signed with is shown only here."""
        said = self.checked(CreateWebhookSerializer)
        hook, self._secret = hooks.create(self.project, actor=self.actor, **said)
        headers = {"Location": path_of(request, "webhooks", hook.pk)}
        return Response(WebhookSerializer(hook).data, status=201, headers=headers)


class OneWebhook(Endpoint):
    """One webhook, by id or name."""

    scopes = {"PATCH": "admin", "DELETE": "admin"}
    is_edited = True

    def edited(self, **kwargs: Any) -> Any:
        """Return what was said of the webhook, without how it fares."""
        hook = hooks.find(self.project, kwargs["ref"])
        return {name: getattr(hook, name) for name in hooks.SAID}

    @extend_schema(responses=WebhookSerializer)
    def get(self, request: Request, ref: str) -> Response:
        """Show a webhook, never its secret."""
        return Response(WebhookSerializer(hooks.find(self.project, ref)).data)

    @extend_schema(request=ChangeWebhookSerializer, responses=WebhookSerializer)
    def patch(self, request: Request, ref: str) -> Response:
        """Change a webhook, for all that is sent from now on; to enable it forgets its failures."""
        said = self.checked(ChangeWebhookSerializer)
        hook = hooks.change(self.project, ref, actor=self.actor, **said)
        return Response(WebhookSerializer(hook).data)

    @extend_schema(responses={204: None})
    def delete(self, request: Request, ref: str) -> Response:
        """Delete a webhook with the log of its deliveries."""
        hooks.delete(self.project, ref, actor=self.actor)
        return Response(status=204)


class RotateSecret(_Draws):
    """The secret of one webhook."""

    scopes = {"POST": "admin"}

    @extend_schema(request=RotateSecretSerializer, responses=NewSecretSerializer)
    def post(self, request: Request, ref: str) -> Response:
        """Draw another secret, shown only here; the one before signs too for `overlap_s`."""
        overlap = timedelta(seconds=self.checked(RotateSecretSerializer)["overlap_s"])
        hook, self._secret = hooks.rotate(self.project, ref, overlap=overlap, actor=self.actor)
        return Response(WebhookSerializer(hook).data)


class TestWebhook(Endpoint):
    """A test of one webhook."""

    scopes = {"POST": "admin"}

    @extend_schema(request=None, responses={202: DeliverySerializer})
    def post(self, request: Request, ref: str) -> Response:
        """Send `webhook.test`, whatever it wants to be told of. 409 while it is disabled."""
        made = hooks.send_test(hooks.find(self.project, ref))
        return _accepted(request, made)


class Deliveries(Listing):
    """What one webhook was told, and is still to be told."""

    serializer_class = DeliverySerializer
    filterset_class = DeliveryFilter

    def newest(self) -> QuerySet[Any]:
        """Return the webhook's deliveries."""
        hook = hooks.find(self.project, self.kwargs["ref"])
        return Delivery.objects.filter(webhook=hook).prefetch_related("attempts")

    @extend_schema(operation_id="webhooks_deliveries_list")
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return one page, newest first."""
        return self.list(request, *args, **kwargs)


class OneDelivery(Endpoint):
    """One delivery."""

    @extend_schema(responses=DeliveryDetailSerializer)
    def get(self, request: Request, ref: str, delivery_id: int) -> Response:
        """Show a delivery: what is sent, every try and what came back."""
        hook = hooks.find(self.project, ref)
        found = Delivery.objects.filter(webhook=hook, pk=delivery_id).first()
        if found is None:
            raise NotFoundError(f"The webhook {hook.name!r} has no delivery {delivery_id}.")
        return Response(DeliveryDetailSerializer(found).data)


class Redeliver(Endpoint):
    """One delivery, once more."""

    @extend_schema(request=None, responses={202: DeliverySerializer})
    def post(self, request: Request, ref: str, delivery_id: int) -> Response:
        """Send it again, under the same `webhook-id`. 409 while it is sent, or while disabled."""
        made = hooks.redeliver(hooks.find(self.project, ref), delivery_id)
        return _accepted(request, made)


def _accepted(request: Request, made: Delivery) -> Response:
    parts = ("webhooks", made.webhook_id, "deliveries", made.pk)
    headers = {"Location": path_of(request, *parts)}
    return Response(DeliverySerializer(made).data, status=202, headers=headers)


urlpatterns = [
    path("webhooks", Webhooks.as_view()),
    path("webhooks/<str:ref>", OneWebhook.as_view()),
    path("webhooks/<str:ref>/rotate", RotateSecret.as_view()),
    path("webhooks/<str:ref>/test", TestWebhook.as_view()),
    path("webhooks/<str:ref>/deliveries", Deliveries.as_view()),
    path("webhooks/<str:ref>/deliveries/<int:delivery_id>", OneDelivery.as_view()),
    path("webhooks/<str:ref>/deliveries/<int:delivery_id>/redeliver", Redeliver.as_view()),
]
