"""Commands that other files name exist: Makefile, compose file, image."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import tomllib
from typing import Any

import pytest
import yaml
from django.core.management import get_commands

from opscore.config import ROOT, Config
from opscore.platform.running import WEB_OPTIONS

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


def test_the_compose_file_has_the_whole_platform() -> None:
    assert set(SERVICES) == {
        "postgres",
        "redis",
        "migrate",
        "web",
        "beat",
        "supervisor",
        "pusher",
        "flower",
    }


@pytest.mark.parametrize(
    "text", [DOCKERFILE, MAKEFILE, str(COMPOSE)], ids=["image", "make", "compose"]
)
def test_every_management_command_and_module_that_is_named_exists(text: str) -> None:
    plain = re.sub(r"[\"',\[\]]+", " ", text)
    for command in re.findall(r"manage\.py +([a-z]+)", plain):
        assert command in get_commands()
    for module in re.findall(r"python +-m +([a-z]+)", plain):
        assert importlib.util.find_spec(module), module


def test_what_the_image_copies_is_there() -> None:
    for source in re.findall(r"^COPY (\S+) ", DOCKERFILE, re.MULTILINE):
        assert (ROOT / source).exists(), source
    assert re.search(r"^USER (?!root)", DOCKERFILE, re.MULTILINE)


def test_the_image_starts_the_web_server_as_up_does() -> None:
    [command] = re.findall(r"^CMD (.*)$", DOCKERFILE, re.MULTILINE)
    words = json.loads(command)
    begin = words.index(WEB_OPTIONS[0])
    assert words[begin : begin + len(WEB_OPTIONS)] == [*WEB_OPTIONS]


def test_the_server_accepts_more_connections_than_may_be_held() -> None:
    accepted = int(WEB_OPTIONS[WEB_OPTIONS.index("--backpressure") + 1])
    assert Config.model_fields["held_requests"].default < accepted / 2


def test_every_published_port_is_on_loopback() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_no_password_has_a_default() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    for name, rest in re.findall(r"\$\{(\w*(?:PASSWORD|SECRET)\w*)([^}]*)\}", text):
        assert rest.startswith(":?"), name


def test_every_service_that_is_waited_for_can_say_that_it_is_ready() -> None:
    for service in SERVICES.values():
        for name, rule in service.get("depends_on", {}).items():
            if rule["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[name], name


def test_make_help_lists_every_target() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    targets = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert targets is not None
    listed = re.findall(r"make (\S+)", done.stdout)
    assert sorted(listed) == sorted(targets[1].split())


def test_lock_files_pin_every_package_with_a_hash_and_name_no_index() -> None:
    for file in ("runtime.txt", "dev.txt"):
        text = (ROOT / "requirements" / file).read_text()
        assert not re.search(r"index-url|find-links|https?://", text)
        for entry in re.split(r"\n(?=\S)", text.strip()):
            assert "--hash=sha256:" in entry, entry.splitlines()[0]


def test_tool_settings_live_in_one_file() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert {"ruff", "mypy", "pytest", "coverage", "importlinter"} <= set(tools)
    for other in ("setup.cfg", "tox.ini", "mypy.ini", "ruff.toml", ".coveragerc", "pytest.ini"):
        assert not (ROOT / other).exists()
