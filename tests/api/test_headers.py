"""What browsers are told with every answer."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from opscore.models import Project

pytestmark = pytest.mark.django_db
PATHS = ["/health", "/api/v1/docs", "/tasks", "/nowhere", "/admin/login/", "/admin/", "/"]


@pytest.mark.parametrize("path", [*PATHS, "/static/unfold/js/app.js"])
def test_every_answer_says_what_a_browser_may_do(
    client: Client, project: Project, path: str
) -> None:
    answer = client.get(path)
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["X-Frame-Options"] == "DENY"
    assert answer["Referrer-Policy"] == "same-origin"
    assert answer["Cross-Origin-Opener-Policy"] == "same-origin"
    assert "camera=()" in answer["Permissions-Policy"]
    policy = answer["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe-inline" not in policy.partition("style-src")[0]
    assert "Strict-Transport-Security" not in answer


def test_only_pages_of_the_admin_may_compile_scripts(client: Client, project: Project) -> None:
    policies = {path: client.get(path)["Content-Security-Policy"] for path in PATHS}
    assert {path for path, policy in policies.items() if "unsafe-eval" in policy} == {
        "/admin/login/",
        "/admin/",
        "/",
    }
    assert policies["/tasks"] == "default-src 'none'; frame-ancestors 'none'"


def test_production_insists_on_https(client: Client, project: Project, settings: Any) -> None:
    settings.SECURE_HSTS_SECONDS = 31536000
    answer = client.get("/health")
    assert answer["Strict-Transport-Security"] == "max-age=31536000; includeSubDomains; preload"


def test_a_stranger_cannot_say_that_he_came_over_https(
    client: Client, project: Project, settings: Any
) -> None:
    settings.SECURE_SSL_REDIRECT = True
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    answer = client.get("/admin/login/", headers={"X-Forwarded-Proto": "https"})
    assert answer.status_code == 301
    assert answer["Location"].startswith("https://")


def test_forms_need_a_token_and_cookies_are_closed(project: Project) -> None:
    browser = Client(enforce_csrf_checks=True)
    told = {"username": "alice", "password": "wonderland"}
    assert browser.post("/admin/login/", told).status_code == 403
    cookie = browser.get("/admin/login/").cookies["csrftoken"]
    assert (cookie["httponly"], cookie["samesite"]) == (True, "Lax")
