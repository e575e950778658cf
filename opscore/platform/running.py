"""Starts and stops the whole platform in its order; nothing outlives it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import chain
from types import TracebackType

from pydantic import SecretStr

from opscore.config import ROOT, Config
from opscore.embedded import Services
from opscore.embedded.children import free_port, tail
from opscore.embedded.kept import write_private
from opscore.errors import UnavailableError
from opscore.platform.arrival import Arrival, database_time
from opscore.platform.important import ImportantLines
from opscore.platform.parts import Part
from opscore.platform.ports import address_of, choose_port, url_of
from opscore.platform.probe import Probe

_ANSWER_WITHIN_S = 60.0
_POLL_S = 0.05
#: What every web server of ours is started with: connections above what OPSCORE_HELD_REQUESTS may
#: hold, so that there is one for /health; and an end before whoever stops it loses patience (10 s).
WEB_OPTIONS = ("--no-ws", "--backpressure", "4096", "--workers-kill-timeout", "8")


class PlatformError(UnavailableError):
    """A part of the platform did not come up."""


class Platform:
    """`with Platform(config) as platform:` runs everything until the block ends.

    Inside, `api_url` and `api_key` (scope admin) are valid and every agent of the host's file
    was given its chance. Call `step()` from time to time: it starts parts again that died and
    says what is important in their logs. `say` gets one line for people at a time.
    Raises PlatformError, ChildError or ServicesBusyError when it cannot start. Main thread only.
    """

    def __init__(
        self,
        config: Config,
        *,
        flower: bool = False,
        say: Callable[[str], None] = print,
    ) -> None:
        self.config = config
        self.api_url = ""
        self.api_key = ""
        self.flower_url = ""
        self.services = Services(config)
        self.parts: list[Part] = []
        self._flower = flower
        self._say = say
        self._stack = ExitStack()
        self._logs: list[ImportantLines] = []
        self._said: set[str] = set()
        self._began_at = datetime.now(UTC)

    def __enter__(self) -> Platform:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop the agents first, so that they finish their tasks, the services last."""
        if any(part.name == "supervisor" and part.pid for part in self.parts):
            self._say(
                f"Stopping: agents finish their tasks, in {self.config.drain_s:g} s at most; "
                "Ctrl-C again does not wait …"
            )
        self._stack.close()

    def step(self) -> None:
        """Keep every part running; say what is important."""
        for line in chain.from_iterable(log.fresh() for log in self._logs):
            if line in self._said:
                self._said.remove(line)
            else:
                self._say(line)
        news = [self.services.keep_running(), *(part.keep_running() for part in self.parts)]
        for line in filter(None, news):
            self._say(line)

    def unshown_secrets(self) -> dict[str, str]:
        """Return the first key and the admin's password, each only once for people to note.

        A demo that ran before has not shown them; the password is forgotten here.
        """
        kept = self.services.kept
        unshown = {
            name: kept.get(name)
            for name in ("api_key", "admin_password")
            if kept.get(name) and not kept.get(f"{name}_shown")
        }
        for name in unshown:
            kept.set(f"{name}_shown", "yes")
        kept.set("admin_password", "")
        return unshown

    def environment(self) -> dict[str, str]:
        """Return the environment in which a process belongs to this platform."""
        chosen = {
            f"OPSCORE_{name.upper()}": _as_text(getattr(self.config, name))
            for name in self.config.model_fields_set
        }
        return {
            **os.environ,
            **chosen,
            **self.services.environment(),
            "DJANGO_SETTINGS_MODULE": "opscore.settings",
            # Logs must not end in the middle when a process is killed.
            "PYTHONUNBUFFERED": "1",
            "NO_COLOR": "1",
            **({"OPSCORE_EVENTS": "true"} if self._flower else {}),
        }

    # ------------------------------------------------------------ start, in order
    def _start(self) -> None:
        self.config.var_dir.mkdir(parents=True, exist_ok=True)
        port = choose_port(self.config)
        self._stack.enter_context(self.services)
        self._withdraw_address()
        self._bootstrap()
        self._began_at = database_time(self.services.database_url)
        self.api_url = url_of(address_of(self.config.host), port)
        self._start_parts(port)
        self._wait_for_web()
        self._wait_for_agents()
        self._publish_address()

    def _bootstrap(self) -> None:
        """Migrate; make the first key and the admin user where they are missing."""
        kept = self.services.kept
        done = subprocess.run(
            [sys.executable, "manage.py", "bootstrap", "--json"],
            cwd=ROOT,
            env={**self.environment(), "OPSCORE_BOOTSTRAP_KEY": kept.get("api_key")},
            capture_output=True,
            text=True,
            check=False,
            # Ctrl-C in a terminal is for this process alone, which ends that one.
            start_new_session=True,
        )
        if done.returncode:
            raise PlatformError(f"The database could not be prepared:\n{done.stderr.strip()}")
        for name, secret in json.loads(done.stdout.splitlines()[-1]).items():
            if secret:
                kept.set(name, secret)
                kept.set(f"{name}_shown", "")
        self.api_key = kept.get("api_key")

    def _start_parts(self, port: int) -> None:
        env = self.environment()
        env |= {"OPSCORE_PORT": str(port), "OPSCORE_API_URL": self.api_url}
        env["OPSCORE_PUBLIC_URL"] = self.config.public_url or self.api_url
        if not self.config.push_networks and not self.config.database_url:
            # All on one machine: so are its agents of kind http.
            env["OPSCORE_PUSH_NETWORKS"] = "127.0.0.0/8,::1/128"
        # Stopped in the opposite order: the supervisor drains while everything else works.
        for part in self._all_parts(port):
            self._logs.append(ImportantLines(part.name, part.log))
            self._stack.callback(part.stop)
            self.parts.append(part)
            part.start(env | self._flower_environment() if part.name == "flower" else env)

    def _all_parts(self, port: int) -> list[Part]:
        web = ["--interface", "asgi", "--host", address_of(self.config.host), "--port", str(port)]
        workers = ["--workers", str(self.config.web_workers)]
        quiet = [*workers, *WEB_OPTIONS, "--log-level", "warning"]
        beat = ["--pidfile=", "--loglevel=WARNING"]
        commands: dict[str, Sequence[str]] = {
            "web": ["-m", "granian", *web, *quiet, "opscore.asgi:application"],
            "beat": ["-m", "celery", "-A", "opscore", "beat", *beat],
            "pusher": ["manage.py", "push"],
        }
        if self._flower:
            flower_port = free_port()
            self.flower_url = f"http://127.0.0.1:{flower_port}"
            commands["flower"] = ["manage.py", "flower", "--port", str(flower_port)]
        commands["supervisor"] = ["manage.py", "supervise"]
        log_dir = self.config.var_dir / "log"
        return [
            Part(
                name,
                [sys.executable, *command],
                log_dir,
                grace_s=self.config.drain_s + 10 if name in {"supervisor", "pusher"} else 10,
            )
            for name, command in commands.items()
        ]

    def _flower_environment(self) -> dict[str, str]:
        """Return Flower's password, by environment because arguments are public."""
        return {"FLOWER_BASIC_AUTH": f"admin:{self.services.kept.secret('flower_password')}"}

    # ------------------------------------------------------------ ready
    def _wait_for_web(self) -> None:
        probe = Probe(self.api_url)
        give_up_at = time.monotonic() + _ANSWER_WITHIN_S
        while not probe.healthy():
            self._refuse_dead_parts()
            if time.monotonic() > give_up_at:
                log = self.config.var_dir / "log" / "web.log"
                raise PlatformError(
                    f"The web server did not answer within {_ANSWER_WITHIN_S:g} s. {log}:\n"
                    f"{tail(log)}"
                )
            time.sleep(_POLL_S)

    def _wait_for_agents(self) -> None:
        probe = Probe(self.api_url, self.api_key)
        Arrival(self.config, probe, self._began_at, self._say_once).wait(self._refuse_dead_parts)

    def _say_once(self, line: str) -> None:
        """Say what a log is going to say as well."""
        self._said.add(line)
        self._say(line)

    def _refuse_dead_parts(self) -> None:
        for part in self.parts:
            if end := part.ended():
                raise PlatformError(
                    f"{part.name} ended with {end} while starting. {part.log}:\n{tail(part.log)}"
                )

    # ------------------------------------------------------------ the address for scripts
    def _publish_address(self) -> None:
        write_private(
            self.config.var_dir / "opscore.env",
            f"OPSCORE_API_URL={self.api_url}\nOPSCORE_API_KEY={self.api_key}\n",
        )
        self._stack.callback(self._withdraw_address)

    def _withdraw_address(self) -> None:
        """Remove the file: scripts take its presence for a platform that answers."""
        (self.config.var_dir / "opscore.env").unlink(missing_ok=True)


def _as_text(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)
