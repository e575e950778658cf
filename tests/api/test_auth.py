"""Who needs a key and which scope: every URL, every method."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from django.urls import URLPattern, URLResolver, get_resolver

from opscore import keys
from opscore.api.auth import KEYLESS, LOGINLESS, scope_for
from opscore.api.endpoint import Endpoint
from opscore.api.middleware import is_page
from opscore.models import ApiKey, Project

pytestmark = pytest.mark.django_db

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")


def api_paths() -> list[str]:
    """Every address of the API, with an id where one belongs."""
    return [path for path, _ in walked() if not is_page(path)]


def walked() -> Iterator[tuple[str, Any]]:
    yield from _walk(get_resolver().url_patterns, "/")


def _walk(patterns: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for entry in patterns:
        path = prefix + re.sub(r"<int:\w+>", "1", str(entry.pattern))
        path = re.sub(r"<(\w+:)?\w+>", str(uuid4()), path)
        if isinstance(entry, URLResolver):
            yield from _walk(entry.url_patterns, path)
        elif isinstance(entry, URLPattern):
            yield path, entry.callback


def test_walk_sees_the_whole_api() -> None:
    paths = api_paths()
    assert len(paths) > 40
    assert "/agents" in paths
    assert "/api/v1/agents" in paths
    assert {path for path in KEYLESS if path not in paths} == set()


@pytest.mark.usefixtures("_guessing")
@pytest.mark.parametrize(
    "authorization", ["", "Bearer ok_abcdefghij_wrong", "Basic YTpi", "Bearer"]
)
def test_every_url_and_method_needs_a_key(make_api: Callable[..., Any], authorization: str) -> None:
    client = make_api().client
    headers = {"Authorization": authorization} if authorization else {}
    for path in api_paths():
        for method in METHODS:
            answer = client.generic(method, path, headers=headers)
            if path in KEYLESS:
                assert answer.status_code in {200, 405, 503}, (method, path)
            else:
                assert answer.status_code == 401, (method, path, answer.status_code)
                assert answer["WWW-Authenticate"].startswith("Bearer")
                assert method == "HEAD" or answer.json()["code"] == "unauthorized"


def test_every_page_and_method_needs_a_login(make_api: Callable[..., Any]) -> None:
    client = make_api().client
    pages = [path for path, _ in walked() if is_page(path) and not path.startswith("/static/")]
    pages = [re.sub(r"\^.*\$|\(\?P.*\$", "anything/", path) for path in pages]
    assert len(pages) > 200
    assert set(pages) >= LOGINLESS
    for path in [*pages, "/admin/nowhere", "/admin/login", "/admin/x/login/"]:
        for method in METHODS:
            answer = client.generic(method, path)
            if path in LOGINLESS:
                assert answer.status_code in {200, 301, 302, 404, 405}, (method, path)
            else:
                assert answer.status_code == 302, (method, path, answer.status_code)
                assert answer["Location"].startswith("/admin/login/?next="), (method, path)


@pytest.mark.usefixtures("_guessing")
def test_a_revoked_key_and_one_without_scope_are_refused_everywhere(
    make_api: Callable[..., Any], project: Project
) -> None:
    revoked, weak = make_api("admin"), make_api("agent")
    keys.revoke(project, revoked.key.split("_")[1])
    for path, view in walked():
        if is_page(path) or path in KEYLESS:
            continue
        for method in ("GET", "POST", "PUT", "DELETE"):
            assert revoked(method, path).status_code == 401, (method, path)
            if method in _allowed(view) and "agent" not in scope_for(view.cls, method):
                assert weak(method, path, {}).status_code == 403, (method, path)


def _allowed(view: Any) -> set[str]:
    return {name.upper() for name in ("get", "post", "put", "delete") if hasattr(view.cls, name)}


def test_no_view_goes_its_own_way_in_authentication() -> None:
    for path, view in walked():
        if is_page(path) or path in KEYLESS:
            continue
        assert issubclass(view.cls, Endpoint), path
        for name in ("authentication_classes", "permission_classes"):
            assert getattr(view.cls, name) is getattr(Endpoint, name), path


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_may_be_written_in_any_case(make_api: Callable[..., Any], scheme: str) -> None:
    api = make_api("read")
    assert api("GET", "/agents", Authorization=f"{scheme} {api.key}").status_code == 200


def test_scopes_say_who_may_do_what(make_api: Callable[..., Any]) -> None:
    read, write, admin = make_api("read"), make_api("read", "write"), make_api("admin")
    agent = {"name": "a", "kind": "remote", "capabilities": ["echo"]}
    assert read("POST", "/tasks", {"capability": "echo"}).status_code == 403
    assert write("POST", "/tasks", {"capability": "echo"}).status_code == 201
    refused = write("POST", "/agents", agent)
    assert refused.status_code == 403
    assert "'admin'" in refused.json()["detail"]
    assert admin("POST", "/agents", agent).status_code == 201
    assert write("POST", "/agents/a/restart").status_code == 403
    assert write("DELETE", "/agents/a").status_code == 403
    assert write("POST", "/agents/a/sessions", {}).status_code == 403


def test_things_of_another_project_do_not_exist(api: Any, agent: dict[str, Any]) -> None:
    task = api("POST", "/tasks", {"capability": "echo"}).json()
    foreign = Project.objects.create(slug="other")
    _, api.key = keys.create(foreign, "foreign", ["admin"])
    assert ApiKey.objects.count() == 2
    assert api("GET", f"/agents/{agent['id']}").status_code == 404
    assert api("GET", f"/tasks/{task['id']}").status_code == 404
    assert api("PUT", f"/tasks/{task['id']}/cancel").status_code == 404
    assert api("GET", f"/runs/{task['run_id']}").status_code == 404
    assert api("PUT", f"/runs/{task['run_id']}/cancel").status_code == 404
    assert api("GET", "/tasks").json()["results"] == []
    assert api("GET", "/agents").json()["results"] == []
    assert api("GET", "/events").json()["results"] == []
