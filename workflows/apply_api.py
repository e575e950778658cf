"""REST: make the project what some files say."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.urls import path
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from opscore import keys
from opscore.api.auth import key_of
from opscore.api.endpoint import Endpoint, StrictSerializer
from opscore.api.schema import name_enum
from opscore.errors import ForbiddenError
from workflows import applying
from workflows.appliers import CHANGES, FOR_ADMINS

name_enum("ApplyChange", CHANGES)
#: Files of one call.
MAX_FILES = 500
_EXAMPLE = OpenApiExample(
    "A schedule and a route",
    {
        "files": [
            {
                "path": "platform.yaml",
                "text": "routes:\n  review: {strategy: round_robin}\n",
            }
        ],
        "dry_run": True,
    },
    request_only=True,
)


class FileSerializer(StrictSerializer):
    """One text; `.json` is JSON, everything else YAML."""

    path = serializers.CharField(max_length=1000, help_text="What it is called in errors.")
    text = serializers.CharField(allow_blank=True, trim_whitespace=False)


class ApplySerializer(StrictSerializer):
    """What `POST /apply` takes."""

    files = serializers.ListField(child=FileSerializer(), min_length=1, max_length=MAX_FILES)
    dry_run = serializers.BooleanField(default=False, help_text="Say what would change, no more.")


class ChangeSerializer(serializers.Serializer[Any]):
    """What became, or would become, of one thing."""

    kind = serializers.ChoiceField(("workflow", *applying.SECTIONS))
    name = serializers.CharField()
    change = serializers.ChoiceField(CHANGES)
    diff = serializers.CharField(allow_blank=True, help_text="Lines that begin with + or -.")
    version = serializers.CharField(
        allow_blank=True, help_text="Of a workflow: its latest version now."
    )
    file = serializers.CharField()


class AppliedSerializer(serializers.Serializer[Any]):
    """What was done, in its order."""

    dry_run = serializers.BooleanField()
    changes = ChangeSerializer(many=True)


class Apply(Endpoint):
    """What files say, made so."""

    @extend_schema(request=ApplySerializer, responses=AppliedSerializer, examples=[_EXAMPLE])
    def post(self, request: Request) -> Response:
        """Create and change what the files describe, all or nothing; what they do not name stays.

        A file is a workflow, or a map of `schedules`, `routes` and `resources` by name (the latter
        two need the scope admin). Every problem is reported at once, with file, path and line.
        """
        said = self.checked(ApplySerializer)
        files = [applying.File(**one) for one in said["files"]]
        self._check_scope(files)
        dry_run = said["dry_run"]
        changes = applying.apply(self.project, files, actor=self.actor, dry_run=dry_run)
        return Response({"dry_run": dry_run, "changes": [asdict(change) for change in changes]})

    def _check_scope(self, files: list[applying.File]) -> None:
        key = key_of(self.request)
        if keys.allows(key, "admin"):
            return
        refused = sorted(applying.kinds_of(files) & FOR_ADMINS)
        if refused:
            raise ForbiddenError(
                f"To apply {' and '.join(refused)} needs the scope 'admin'; the key {key.name!r} "
                f"has {', '.join(key.scopes)}."
            )


urlpatterns = [path("apply", Apply.as_view())]
