"""The admin in a real browser: it renders, finds its own files and asks nobody else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, Request, sync_playwright

from opscore.models import Project
from tasks.control import cancel_task
from tasks.models import Run
from tasks.submission import start_run
from tests.engine.dags import diamond
from tests.live_server import Server

pytestmark = [pytest.mark.browser, pytest.mark.slow]
# What keeps Chromium from looking for its maker's servers.
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


@pytest.fixture
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        missing = "Chromium is not installed (Debian's package: chromium)"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return found


@contextmanager
def opened(chromium: str) -> Iterator[Page]:
    """Give a page. Inside, Django's database is out of bounds: an event loop runs here."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=QUIET)
        yield browser.new_page(viewport={"width": 1280, "height": 900})
        browser.close()


def cancelled_run(project: Project) -> Run:
    run = start_run(project, diamond(3), inputs={"who": "<b>Ada</b>"}, workflow="letters")
    cancel_task(run.tasks.get(number=0).id, actor="alice")
    return run


def test_operator_sees_runs_and_their_tasks(server: Server, chromium: str) -> None:
    run = cancelled_run(Project.objects.get(slug="default"))
    User.objects.create_superuser("alice", "alice@example.org", "wonderland")
    asked: list[Request] = []
    errors: list[str] = []
    with opened(chromium) as page:
        page.on("request", lambda request: asked.append(request))  # noqa: PLW0108 - marked by it
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: errors.extend([said.text] if said.type == "error" else []))
        page.goto(f"{server.url}/admin/")
        page.fill("input[name=username]", "alice")
        page.fill("input[name=password]", "wonderland")
        page.click("button[type=submit]")
        page.wait_for_selector("text=Runs of 24 hours")
        page.goto(f"{server.url}/admin/tasks/run/")
        assert page.get_by_text("letters").first.is_visible()
        page.goto(f"{server.url}/admin/tasks/run/{run.id}/change/")
        page.wait_for_load_state("networkidle")
        assert page.get_by_text("cancelled").first.is_visible()
        assert page.get_by_role("link", name="t0").first.is_visible()
        # What an input says is shown, never interpreted.
        assert "<b>Ada</b>" in page.inner_text("body")
        broken = [one.url for one in asked if (answer := one.response()) and answer.status >= 400]
    assert errors == []
    assert broken == []
    assert {request.url.split("/")[2] for request in asked if request.url.startswith("http")} == {
        server.url.split("/")[2]
    }
