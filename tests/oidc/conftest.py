"""A provider of identities, and a web server that people log in to with it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import randrange
from typing import Any

import httpx
import pytest

from opscore.models import Project
from tests.live_server import free_port, web_server

SETTINGS = {
    "CLIENT_ID": "ops-core",
    "CLIENT_SECRET": "s:ecret/ ",
    "NAME": "Example <SSO>",
    "ROLES": json.dumps({"watchers": "viewer", "ops": "operator", "it": ["admin", "operator"]}),
    "PROJECTS": json.dumps({"team-a": "shop", "team-b": ["billing", "no-such"], "*": "default"}),
}


class Person:
    """Somebody with a browser."""

    def __init__(self, site: str, provider: str, sub: str) -> None:
        self.site, self.provider, self.sub = site, provider, sub
        # An address has so many refusals in the audit log in a minute.
        address = {"X-Forwarded-For": f"10.0.{randrange(256)}.{randrange(256)}"}
        self.browser = httpx.Client(base_url=site, timeout=20, headers=address)

    def is_known_as(self, **told: Any) -> None:
        """Say what the provider tells: `claims`, `userinfo`, `fault`."""
        assert httpx.put(f"{self.provider}/people/{self.sub}", json=told).status_code == 200

    def begin(self, target: str = "") -> httpx.Response:
        """Press the button; return the way to the provider."""
        return self.browser.get("/admin/oidc/login", params={"next": target})

    def authorize(self, begun: httpx.Response) -> str:
        """Log in at the provider; return the address that it sends the browser to."""
        sent = self.browser.post(begun.headers["Location"], data={"sub": self.sub})
        assert sent.status_code == 302, sent.text
        return sent.headers["Location"]

    def log_in(self, target: str = "") -> httpx.Response:
        """Do it all."""
        return self.browser.get(self.authorize(self.begin(target)))


@pytest.fixture(scope="session")
def provider() -> Iterator[str]:
    """The issuer of a provider in a process of its own."""
    port = free_port()
    program = Path(__file__).with_name("provider.py")
    process = subprocess.Popen([sys.executable, str(program), str(port)])
    url = f"http://127.0.0.1:{port}"
    transport = httpx.HTTPTransport(retries=8)
    with httpx.Client(transport=transport) as client:
        assert client.get(f"{url}/keys").status_code == 200
    yield url
    process.terminate()
    process.wait(10)


@pytest.fixture(scope="session")
def site(django_db_setup: None, provider: str) -> Iterator[str]:
    """The address of a web server that knows the provider."""
    settings = {f"OPSCORE_OIDC_{name}": value for name, value in SETTINGS.items()}
    settings |= {"OPSCORE_OIDC_ISSUER": provider, "OPSCORE_TRUSTED_PROXIES": "127.0.0.1/32"}
    with web_server(free_port(), **settings) as (url, _):
        yield url


@pytest.fixture
def ada(site: str, provider: str, transactional_db: None, project: Project) -> Iterator[Person]:
    """A person whom the platform has never seen, of the group `ops`."""
    from django.apps import apps

    from opscore.roles import keep_roles

    # Tests that empty every table take the groups with them.
    for app in apps.get_app_configs():
        keep_roles(app, "default")
    for slug in ("shop", "billing"):
        Project.objects.create(slug=slug)
    person = Person(site, provider, "subject-1")
    person.is_known_as(claims={"preferred_username": "ada", "groups": ["ops", "team-a"]})
    yield person
    person.browser.close()
