"""REST: secrets of the project. Their values go in and never come out."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from opscore import vault
from opscore.api.endpoint import Endpoint, Listing, StrictSerializer
from opscore.models import Secret


class SecretSerializer(serializers.ModelSerializer[Secret]):
    """A secret, without its value."""

    class Meta:
        model = Secret
        fields = ["name", "created_at", "changed_at"]


class SecretValueSerializer(StrictSerializer):
    """The value of a secret."""

    value = serializers.CharField(
        min_length=vault.SHORTEST,
        max_length=vault.LONGEST,
        trim_whitespace=False,
        help_text="Only executors get it: as `${{ secrets.NAME }}` in the `with` of a task.",
    )


class Secrets(Listing):
    """The secrets of the project."""

    serializer_class = SecretSerializer

    def newest(self) -> QuerySet[Any]:
        """Return the project's secrets, without their values."""
        return Secret.objects.filter(project=self.project).defer("sealed")


class OneSecret(Endpoint):
    """One secret."""

    is_confidential = True
    scopes = {"PUT": "admin", "DELETE": "admin"}

    @extend_schema(responses=SecretSerializer)
    def get(self, request: Request, name: str) -> Response:
        """Show when a secret was made and changed; nobody can read its value."""
        return Response(SecretSerializer(vault.find(self.project, name)).data)

    @extend_schema(
        request=SecretValueSerializer, responses={200: SecretSerializer, 201: SecretSerializer}
    )
    def put(self, request: Request, name: str) -> Response:
        """Store a secret, or change it for the tasks that are taken from now on."""
        value = self.checked(SecretValueSerializer)["value"]
        secret, made = vault.put(self.project, name, value, self.actor)
        return Response(SecretSerializer(secret).data, status=201 if made else 200)

    @extend_schema(responses={204: None})
    def delete(self, request: Request, name: str) -> Response:
        """Delete a secret; tasks that read it fail from now on."""
        vault.drop(self.project, name, self.actor)
        return Response(status=204)


urlpatterns = [
    path("secrets", Secrets.as_view()),
    path("secrets/<str:name>", OneSecret.as_view()),
]
