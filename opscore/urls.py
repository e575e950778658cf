"""The whole URL list: the API once under /api/v1 and once at the root, and the admin."""

from __future__ import annotations

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularSwaggerSplitView

from opscore.api.document import document
from opscore.api.event_stream import EventStream
from opscore.api.events import Events
from opscore.api.health import Health, Ready
from opscore.api.redoc import redoc
from opscore.api.schema import read_only
from opscore.api.static import serve

# By name, not by import: the ground floor knows no app above it.
_api: list[URLPattern | URLResolver] = [
    path("health", Health.as_view()),
    path("ready", Ready.as_view()),
    path("events", Events.as_view()),
    path("", include("opscore.api.secrets_api")),
    path("", include("opscore.audit.api")),
    path("events/stream", EventStream.as_view()),
    path("", include("agents.api")),
    path("", include("tasks.api")),
    path("", include("webhooks.api")),
    path("", include("workflows.api")),
    path("", include("workflows.schedule_api")),
    path("", include("workflows.apply_api")),
    path("", include("workflows.diagnosis_api")),
]

urlpatterns: list[URLPattern | URLResolver] = [
    path("api/v1/schema", read_only(document), name="schema"),
    path("api/v1/docs", read_only(SpectacularSwaggerSplitView.as_view(url_name="schema"))),
    path("api/v1/redoc", read_only(redoc)),
    path("api/v1/", include(_api)),
    path("", RedirectView.as_view(url="/admin/")),
    path("static/<path:path>", serve),
    path("", include("opscore.oidc.pages")),
    path("admin/", admin.site.urls),
    path("", include(_api)),
]
