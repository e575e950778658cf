"""What operators do in the admin with circuit breakers and routes, and what pages of runs link to."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from agents import breakers
from agents.models import Breaker, Route
from opscore.models import Project
from tasks.models import Run
from tasks.reconcile import reconcile
from tests.api.conftest import act

pytestmark = pytest.mark.django_db


def test_operator_opens_and_closes_breakers_and_changes_their_rules(
    people: Client, project: Project
) -> None:
    breakers.open_by_hand(project, "resource", "openai", actor="bob")
    pk = str(Breaker.objects.get().pk)
    act(people, "agents_breaker", "close_selected", pk)
    assert Breaker.objects.get().state == "closed"
    act(people, "agents_breaker", "open_selected", pk)
    assert (Breaker.objects.get().state, Breaker.objects.get().changed_by) == ("open", "alice")
    rule = {"threshold": "0.3", "min_calls": "7", "window_s": "30", "cooldown_s": "9"}
    page = reverse("admin:agents_breaker_change", args=[pk])
    assert people.post(page, rule).status_code == 302
    found = Breaker.objects.get()
    assert (found.threshold, found.min_calls, found.state) == (0.3, 7, "open")


def test_operator_chooses_and_drops_routes(people: Client, project: Project) -> None:
    add = reverse("admin:agents_route_add")
    form = {"project": project.pk, "capability": "dig", "strategy": "weighted", "weights": "[1]"}
    assert b"An object is expected" in people.post(add, form).content
    assert b"100" in people.post(add, {**form, "weights": '{"a": 1000}'}).content
    assert people.post(add, {**form, "weights": '{"a": 3}'}).status_code == 302
    route = Route.objects.get()
    assert (route.capability, route.weights) == ("dig", {"a": 3})
    for again in (None, route):
        if again is None:
            gone = reverse("admin:agents_route_delete", args=[route.pk])
            assert people.post(gone, {"post": "yes"}).status_code == 302
            assert people.post(add, {**form, "weights": '{"a": 3}'}).status_code == 302
        else:
            selected = {"_selected_action": [Route.objects.get().pk], "post": "yes"}
            rows = reverse("admin:agents_route_changelist")
            people.post(rows, {"action": "delete_selected", **selected})
    assert not Route.objects.exists()


def test_page_of_a_run_inside_another_links_to_its_task(people: Client, api: Any) -> None:
    inner = {"tasks": {"b": {"capability": "nobody", "timeout": {"queue": "1h"}}}}
    last = {"tell": {"capability": "nobody"}}
    definition = {"name": "outer", "tasks": {"a": inner}, "finally": last}
    assert api("POST", "/workflows", definition).status_code == 201
    outer = api("POST", "/workflows/outer/execute", {}).json()["id"]
    reconcile()
    inside = Run.objects.exclude(pk=outer).get()
    page = people.get(reverse("admin:tasks_run_change", args=[inside.pk])).content.decode()
    assert "body of a" in page
    queued = inside.tasks.get(key="b")
    page = people.get(reverse("admin:tasks_task_change", args=[queued.pk])).content.decode()
    assert "no agent takes it in 3600 s" in page
    later = Run.objects.get(pk=outer).tasks.get(key="tell")
    page = people.get(reverse("admin:tasks_task_change", args=[later.pk])).content.decode()
    assert "which comes when the rest has ended" in page
