"""Pages under the content security policy, in a real browser: nothing is refused, all works."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import ConsoleMessage, Page

from opscore.models import ApiKey, Project
from tests.api.test_browser import cancelled_run, chromium, opened
from tests.live_server import Server

__all__ = ["chromium"]
pytestmark = [pytest.mark.browser, pytest.mark.slow]


PAGES = (
    "tasks/run/?q=letters",
    "tasks/task/?status=cancelled",
    "agents/agent/",
    "opscore/event/",
    "opscore/auditentry/",
    "auth/user/",
    "auth/user/add/",
    "opscore/membership/add/",
    "agents/route/add/",
)


def log_in(page: Page, url: str) -> None:
    page.goto(f"{url}/admin/")
    page.fill("input[name=username]", "alice")
    page.fill("input[name=password]", "wonderland")
    page.click("button[type=submit]")
    page.wait_for_selector("text=Runs of 24 hours")


def make_and_revoke_a_key(page: Page, url: str) -> None:
    page.goto(f"{url}/admin/opscore/apikey/add/")
    page.fill("input[name=name]", "made in a browser")
    page.get_by_role("button", name="Save", exact=True).click()
    page.wait_for_selector("text=shown only once")
    page.goto(f"{url}/admin/opscore/apikey/")
    # The box of the action appears by a script, once a row is chosen.
    page.locator("input[name=_selected_action]").first.check()
    page.locator("select[name=action]").first.select_option("revoke")
    page.get_by_role("button", name="Run").first.click()
    page.wait_for_selector("text=Revoked.")


def test_no_page_breaks_its_policy(server: Server, chromium: str) -> None:
    run = cancelled_run(Project.objects.get(slug="default"))
    User.objects.create_superuser("alice", "alice@example.org", "wonderland")
    wrong: list[str] = []

    def listen(message: ConsoleMessage) -> None:
        asked_for_icon = message.location["url"].endswith("/favicon.ico")
        if message.type in {"error", "warning"} and not asked_for_icon:
            wrong.append(f"{page.url}: {message.text}")

    with opened(chromium) as page:
        page.on("console", listen)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        log_in(page, server.url)
        for path in (*PAGES, f"tasks/run/{run.id}/change/"):
            page.goto(f"{server.url}/admin/{path}")
            page.wait_for_load_state("networkidle")
        make_and_revoke_a_key(page, server.url)
        page.goto(f"{server.url}/api/v1/docs")
        page.get_by_text("/api/v1/tasks").first.wait_for(timeout=20_000)
    assert wrong == []
    assert ApiKey.objects.get(name="made in a browser").revoked_at is not None
