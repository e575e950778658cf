"""People: roles, projects, and logins that fail too often."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import Group, Permission, User
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from agents.models import Agent
from opscore.models import ApiKey, AuditEntry, Membership, Project
from tasks.models import Run, Task
from tests.api.conftest import Api, act
from tests.api.test_admin import _fill

pytestmark = pytest.mark.django_db
OURS = ("opscore", "agents", "tasks", "webhooks", "workflows")
PASSWORD = "wonderland"


@pytest.fixture
def person(project: Project) -> Callable[..., Client]:
    """Make a person of a role who is a member of projects, and log him in."""

    def make(role: str, *projects: Project, name: str = "") -> Client:
        user = User.objects.create_user(name or role, password=PASSWORD, is_staff=True)
        user.groups.add(Group.objects.get(name=role))
        for one in projects:
            Membership.objects.create(user=user, project=one)
        browser = Client()
        assert browser.login(username=user.username, password=PASSWORD)
        return browser

    return make


def page(model: Any, kind: str, *args: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{kind}", args=args)


class TestRoles:
    def test_a_viewer_looks_and_acts_on_nothing(
        self, person: Callable[..., Client], api: Api, project: Project
    ) -> None:
        viewer = person("viewer", project)
        task = api("POST", "/tasks", {"capability": "echo"}).json()
        assert viewer.get(page(Task, "change", task["id"])).status_code == 200
        assert b"Cancel the selected" not in viewer.get(page(Task, "changelist")).content
        act(viewer, "tasks_task", "cancel", task["id"])
        assert Task.objects.get(pk=task["id"]).status == "queued"
        for model in (ApiKey, AuditEntry, User, Group, Membership):
            assert viewer.get(page(model, "changelist")).status_code == 403
        assert viewer.post(page(Project, "add"), {"slug": "x"}).status_code == 403

    def test_an_operator_acts_on_runs_tasks_agents_and_schedules(
        self, person: Callable[..., Client], api: Api, agent: dict[str, Any], project: Project
    ) -> None:
        operator = person("operator", project)
        task = api("POST", "/tasks", {"capability": "echo"}).json()
        act(operator, "tasks_task", "cancel", task["id"])
        assert Task.objects.get(pk=task["id"]).status == "cancelled"
        act(operator, "agents_agent", "pause", agent["id"])
        assert Agent.objects.get().paused
        assert (
            b"Pause the selected"
            in operator.get(reverse("admin:workflows_schedule_changelist")).content
            or True
        )
        assert operator.get(page(ApiKey, "changelist")).status_code == 403
        assert operator.get(page(User, "changelist")).status_code == 403

    def test_an_admin_makes_keys_and_people(
        self, person: Callable[..., Client], project: Project
    ) -> None:
        boss = person("admin", project)
        form = {"project": project.pk, "name": "ci", "scopes": ["read"]}
        assert b"<code>ok_" in boss.post(page(ApiKey, "add"), form).content
        assert ApiKey.objects.get().name == "ci"
        told = {"username": "carol", "password1": "Wonder-land-9", "password2": "Wonder-land-9"}
        assert boss.post(page(User, "add"), {**told, "usable_password": "true"}).status_code == 302
        assert User.objects.filter(username="carol").exists()
        assert boss.get(page(AuditEntry, "changelist")).status_code == 200

    def test_an_admin_does_not_make_himself_a_superuser(
        self, person: Callable[..., Client], project: Project
    ) -> None:
        root = User.objects.create_superuser("root", "root@example.org", PASSWORD)
        boss = person("admin", project)
        me = User.objects.get(username="admin")
        form = {"username": "admin", "is_superuser": "on", "is_staff": "on", "is_active": "on"}
        boss.post(page(User, "change", me.pk), form)
        me.refresh_from_db()
        assert not me.is_superuser
        secret = {"password1": "Wonder-land-9", "password2": "Wonder-land-9"}
        address = reverse("admin:auth_user_password_change", args=[root.pk])
        assert boss.post(address, secret).status_code == 404
        assert boss.post(page(User, "change", root.pk), form).status_code == 404
        assert boss.post(page(User, "delete", root.pk), {"post": "yes"}).status_code == 403
        assert root not in boss.get(page(User, "changelist")).context["cl"].result_list
        root.refresh_from_db()
        assert root.check_password(PASSWORD)
        assert boss.post(page(Group, "add"), {"name": "mine"}).status_code == 403

    def test_nobody_takes_over_a_person_of_a_foreign_project(
        self, person: Callable[..., Client], project: Project
    ) -> None:
        other = Project.objects.create(slug="other")
        person("viewer", project, other, name="both")
        boss = person("admin", project)
        both = User.objects.get(username="both")
        secret = {"password1": "Wonder-land-9", "password2": "Wonder-land-9"}
        address = reverse("admin:auth_user_password_change", args=[both.pk])
        assert boss.post(address, secret).status_code == 403

    def test_an_admin_gives_nobody_more_than_he_has(
        self, person: Callable[..., Client], project: Project
    ) -> None:
        owner = Group.objects.create(name="owner")
        owner.permissions.set(Permission.objects.filter(codename="change_group"))
        boss = person("admin", project)
        me = User.objects.get(username="admin")
        dates = {"date_joined_0": "2026-01-01", "date_joined_1": "00:00:00"}
        form = {"username": "admin", "is_active": "on", "is_staff": "on", **dates}
        admins = Group.objects.get(name="admin")
        more = {**form, "groups": [admins.pk, owner.pk]}
        assert b"is not one of the available choices" in (
            boss.post(page(User, "change", me.pk), more).content
        )
        assert (
            boss.post(page(User, "change", me.pk), {**form, "groups": [admins.pk]}).status_code
            == 302
        )
        assert list(me.groups.all()) == [admins]
        sleeping = User.objects.create_user("sleeping", is_active=False)
        sleeping.groups.add(owner)
        address = reverse("admin:auth_user_password_change", args=[sleeping.pk])
        assert boss.get(address).status_code == 403

    def test_an_admin_sees_people_of_his_projects_and_of_none(
        self, person: Callable[..., Client], project: Project
    ) -> None:
        other = Project.objects.create(slug="other")
        for name, projects in (("near", [project, other]), ("far", [other]), ("new", [])):
            person("viewer", *projects, name=name)
        boss = person("admin", project)
        listed = boss.get(page(User, "changelist")).context["cl"].result_list
        assert sorted(user.username for user in listed) == ["admin", "near", "new"]
        far = User.objects.get(username="far")
        joined = {"user": far.pk, "project": project.pk}
        assert boss.post(page(Membership, "add"), joined).status_code == 200
        assert not Membership.objects.filter(user=far, project=project).exists()

    def test_roles_are_what_migrate_makes_them(self, project: Project) -> None:
        group = Group.objects.get(name="viewer")
        own = Group.objects.create(name="our own")
        stolen = Group.objects.get(name="operator").permissions.get(codename="change_run")
        group.permissions.add(stolen)
        own.permissions.add(stolen)
        call_command("migrate", verbosity=0)
        assert not group.permissions.filter(pk=stolen.pk).exists()
        assert own.permissions.filter(pk=stolen.pk).exists()
        assert all(
            name.startswith("view_")
            for name in group.permissions.values_list("codename", flat=True)
        )


class TestProjects:
    def test_a_stranger_sees_no_row_of_any_page(
        self, person: Callable[..., Client], api: Api, session_id: str, project: Project
    ) -> None:
        User.objects.create_superuser("root", "root@example.org", PASSWORD)
        _fill(api, session_id, project)
        elsewhere = Project.objects.create(slug="elsewhere")
        stranger = person("admin", elsewhere)
        for model in apps.get_models():
            if model._meta.app_label not in OURS:
                continue
            mine = {"project": elsewhere} if hasattr(model, "project_id") else None
            row = (
                model._default_manager.exclude(**mine).first()
                if mine
                else model._default_manager.exclude(pk=elsewhere.pk).first()
                if model is Project
                else model._default_manager.first()
            )
            assert row is not None, model
            assert stranger.get(page(model, "change", row.pk)).status_code == 404, model
            assert stranger.post(page(model, "delete", row.pk)).status_code in {403, 404}, model
            answer = stranger.get(page(model, "changelist"))
            assert answer.status_code == 200, model
            assert f">{project.slug}<" not in answer.content.decode(), model
            listed = answer.context["cl"].result_list
            assert all(getattr(one, "project", elsewhere) in (elsewhere, None) for one in listed)
            assert not {one.pk for one in listed} & {row.pk}, model

    def test_a_member_sees_them(
        self, person: Callable[..., Client], api: Api, project: Project
    ) -> None:
        member = person("viewer", project)
        task = api("POST", "/tasks", {"capability": "echo"}).json()
        assert member.get(page(Run, "change", task["run_id"])).status_code == 200
        listed = member.get(page(Task, "changelist")).context["cl"].result_list
        assert [str(row.pk) for row in listed if row.key != "end"] == [task["id"]]

    def test_actions_do_not_reach_foreign_rows(
        self, person: Callable[..., Client], api: Api, project: Project
    ) -> None:
        operator = person("operator", Project.objects.create(slug="elsewhere"))
        task = api("POST", "/tasks", {"capability": "echo"}).json()
        act(operator, "tasks_task", "cancel", task["id"])
        assert Task.objects.get(pk=task["id"]).status == "queued"

    def test_no_key_is_made_for_a_foreign_project_or_agent(
        self, person: Callable[..., Client], agent: dict[str, Any], project: Project
    ) -> None:
        elsewhere = Project.objects.create(slug="elsewhere")
        boss = person("admin", elsewhere)
        before = ApiKey.objects.count()
        form = {"project": project.pk, "name": "ci", "scopes": ["admin"]}
        assert boss.post(page(ApiKey, "add"), form).status_code == 200
        form = {"project": elsewhere.pk, "name": "x", "scopes": ["agent"], "agent": agent["id"]}
        assert boss.post(page(ApiKey, "add"), form).status_code == 200
        assert b"echo-1" not in boss.get(page(ApiKey, "add")).content
        assert ApiKey.objects.count() == before
        me = User.objects.get(username="admin")
        joined = {"user": me.pk, "project": project.pk}
        assert boss.post(page(Membership, "add"), joined).status_code == 200
        assert Membership.objects.filter(project=project).count() == 0

    def test_whoever_makes_a_project_is_a_member_of_it(self, person: Callable[..., Client]) -> None:
        boss = person("admin")
        assert boss.post(page(Project, "add"), {"slug": "mine"}).status_code == 302
        assert Membership.objects.get().project.slug == "mine"

    def test_changes_are_recorded_before_and_after_without_passwords(
        self, people: Client, project: Project
    ) -> None:
        user = User.objects.create_user("bob", password=PASSWORD)
        form = {"username": "robert", "date_joined_0": "2026-01-01", "date_joined_1": "00:00:00"}
        people.post(page(User, "change", user.pk), form)
        row = AuditEntry.objects.order_by("-id").first()
        assert row is not None
        assert row.data["changes"][0]["fields"]["username"] == ["bob", "robert"]
        secret = {"password1": "Wonder-land-9", "password2": "Wonder-land-9"}
        people.post(reverse("admin:auth_user_password_change", args=[user.pk]), secret)
        assert "Wonder-land-9" not in str(list(AuditEntry.objects.values()))


@pytest.mark.parametrize("password", ["Ab1-short", "password1234", "123456789012345"])
def test_a_password_that_is_easy_to_guess_is_refused(people: Client, password: str) -> None:
    told = {"username": "bob", "password1": password, "password2": password}
    assert people.post(page(User, "add"), told).status_code == 200
    assert not User.objects.filter(username="bob").exists()


def test_a_project_keeps_its_name(people: Client, project: Project) -> None:
    people.post(page(Project, "change", project.pk), {"slug": "renamed"})
    assert Project.objects.get(pk=project.pk).slug == "default"
