"""What an operator may set: every OPSCORE_* variable, its type, unit and default."""

from __future__ import annotations

import json
from functools import cache
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import (
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from opscore.config_words import Rate as Rate
from opscore.config_words import granted as granted
from opscore.config_words import listed as listed
from opscore.config_words import rate_of as rate_of

ROOT = Path(__file__).resolve().parent.parent


class Config(BaseSettings):
    """The environment, parsed once; a wrong value is reported with its variable's name."""

    model_config = SettingsConfigDict(env_prefix="OPSCORE_", extra="ignore")

    env: Literal["development", "production"] = Field(
        "development",
        description="production: refuses to start with settings that are not safe, and serves "
        "the admin over HTTPS only.",
    )
    var_dir: Path = Field(ROOT / "var", description="Folder for data, logs and sockets.")
    database_url: str = Field(
        "", description="postgresql://…; empty means the embedded PostgreSQL."
    )
    broker_url: str = Field(
        "", description="redis://… or amqp://…; empty means the embedded Valkey."
    )
    result_url: str = Field(
        "",
        description="redis://… for Celery's chords; empty means the broker, if it is Redis.",
    )
    join: Literal["chord", "database", ""] = Field(
        "",
        description="Who delivers a join: Celery's chord or the database; "
        "empty means chord where a result backend exists.",
    )
    secret_key: SecretStr = Field(
        SecretStr(""), description="Django's secret; empty means one kept in the var folder."
    )
    seal_keys: SecretStr = Field(
        SecretStr(""),
        description="Comma-separated keys that secrets are encrypted with, the first one for new ones; "
        "the same on all hosts. Empty means one that is made and kept in the var folder.",
    )
    allowed_hosts: str = Field(
        "*",
        description="Comma-separated host names under which the admin answers; "
        "the API answers under any, to those who have a key.",
    )
    trusted_proxies: str = Field(
        "",
        description="Comma-separated addresses or networks of the proxies in front of the "
        "platform, as 10.0.0.5/32, and of nothing else; only from them X-Forwarded-For and "
        "X-Forwarded-Proto are believed.",
    )
    debug: bool = Field(default=False, description="Django's debug pages; never in production.")
    host: str = Field("127.0.0.1", description="Address or name that the web server listens on.")
    port: int = Field(
        8000, ge=0, le=65535, description="Port of the web server; 0 picks a free one."
    )
    web_workers: int = Field(
        2,
        ge=1,
        le=64,
        description="Processes of the web server that `up` starts; each has four connections to "
        "the database for the API, one to listen, and one for each page that it serves. "
        "One for each core is enough.",
    )
    api_url: str = Field(
        "",
        description="Address of the platform for the programs that a supervisor starts; "
        "empty means http://127.0.0.1 and OPSCORE_PORT.",
    )
    node_name: str = Field("", description="Name of this host; empty means its host name.")
    agents_file: Path = Field(
        ROOT / "examples" / "agents.yaml",
        description="The agent specs that this host offers.",
    )
    handlers: str = Field(
        "",
        description="Comma-separated Python modules with handlers, imported by workers that are "
        "started by hand (`celery -A opscore worker`); agents get theirs from the agents file.",
    )
    log_format: Literal["console", "json"] = Field("console", description="How log lines look.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field(
        "INFO", description="Lowest level that is logged."
    )
    events: bool = Field(
        default=False, description="Send Celery's task events (Flower needs them)."
    )
    hint_stale_s: float = Field(
        5.0, gt=0, description="Seconds after which a ready task that nobody took is sent again."
    )
    session_ttl_s: float = Field(
        30.0, gt=0, description="Seconds of silence after which an agent's session has ended."
    )
    probe_s: float = Field(
        20.0,
        ge=0,
        description="Seconds without a message after which a worker is asked through its queue "
        "whether it hears; 0: never.",
    )
    drain_s: float = Field(
        30.0,
        ge=0,
        description="Seconds in which agents may finish their task when their supervisor stops, "
        "and end when they have none.",
    )
    max_losses: int = Field(
        5, ge=0, description="How often a task may lose its agent before it fails."
    )
    cancel_grace_s: float = Field(
        10.0, ge=0, description="Seconds that a cancelled task's agent has before it is killed."
    )
    inline_result_bytes: int = Field(
        256 * 1024, gt=0, description="Results above this many bytes are stored by reference."
    )
    max_result_bytes: int = Field(
        64 * 1024 * 1024, gt=0, description="A result above this many bytes fails its attempt."
    )
    max_body_bytes: int = Field(
        4 * 1024 * 1024, gt=0, description="Request bodies above this many bytes are refused: 413."
    )
    body_timeout_s: float = Field(
        60.0, gt=0, description="Seconds in which a request's body must have arrived: 408."
    )
    public_url: str = Field(
        "", description="Address of this platform for agents of kind http, which report to it."
    )
    push_networks: str = Field(
        "",
        description="Comma-separated networks that are not public and that agents of kind http and "
        "webhooks may live in, as 10.0.0.0/8; the embedded platform allows loopback.",
    )
    max_log_lines: int = Field(
        2000,
        gt=0,
        description="Log lines kept for one attempt; later ones are dropped, and its last line says so.",
    )
    shared_entries: int = Field(
        1000, gt=0, description="Entries that the shared context of one run may have."
    )
    shared_value_bytes: int = Field(
        64 * 1024, gt=0, description="Bytes that one value of a shared context may have, as JSON."
    )
    shared_run_bytes: int = Field(
        2 * 1024 * 1024,
        gt=0,
        description="Bytes that all values of a run's shared context may have.",
    )
    messages_per_run: int = Field(
        1000, gt=0, description="Messages of one run that nobody has acknowledged yet, about."
    )
    message_bytes: int = Field(
        64 * 1024, gt=0, description="Bytes that the body of a message between agents may have."
    )
    login_failures: int = Field(
        10,
        gt=0,
        description="Logins to the admin that may fail in 15 minutes for an account from one "
        "address; for an address five times as many.",
    )
    password_login: bool = Field(
        default=True, description="Whether people may log in with a name and a password."
    )
    oidc_issuer: str = Field(
        "",
        description="OpenID Connect provider that people log in with, exactly as it calls itself; "
        "empty means none (docs/security.md).",
    )
    oidc_client_id: str = Field("", description="Name of this platform at the provider.")
    oidc_client_secret: SecretStr = Field(
        SecretStr(""), description="Its secret there; empty means a public client, PKCE alone."
    )
    oidc_name: str = Field(
        "single sign-on", description="What the button on the log-in page calls the provider."
    )
    oidc_scopes: str = Field("openid profile email", description="Scopes that are asked for.")
    oidc_claim: str = Field(
        "groups", description="The claim, in ID token or userinfo, with a person's groups."
    )
    oidc_roles: str = Field(
        "",
        description='Roles of groups, as JSON: {"ops": "operator", "it": ["admin"]}; `*` is everybody. '
        "Whoever has none is refused.",
    )
    oidc_projects: str = Field(
        "",
        description='Projects of groups, as JSON: {"team-a": ["shop", "billing"]}; '
        "empty means that memberships are made by hand.",
    )
    rate_limit: str = Field(
        "",
        description="Requests that one API key may send, as 6000/min (s, min, h, day); "
        "empty means no limit.",
    )
    agent_rate_limit: str = Field(
        "", description="The same for what executors send: claims, heartbeats, reports."
    )
    held_per_key: int = Field(
        500,
        gt=0,
        description="Streams, `?wait=` and claims that wait which one API key may have open in one "
        "web process; more are refused: 429. Agents that share a key count together.",
    )
    held_requests: int = Field(
        1500,
        gt=0,
        description="The same for all keys together: 503. Below the connections that the server "
        "accepts (`--backpressure`), else nobody is answered.",
    )
    idempotency_ttl_h: int = Field(
        24, gt=0, description="Hours that the answer to an Idempotency-Key is kept."
    )
    retention_days: float = Field(
        30.0, ge=0, description="Days that completed runs are kept after their end; 0: for ever."
    )
    retention_failed_days: float = Field(
        90.0, ge=0, description="The same for failed and cancelled runs; 0: for ever."
    )
    audit_retention_days: float = Field(
        0.0, ge=0, description="Days that rows of the audit log are kept; 0: for ever."
    )
    webhook_retention_days: float = Field(
        14.0, ge=0, description="Days that deliveries to webhooks are kept; 0: for ever."
    )
    archive_dir: str = Field(
        "",
        description="Folder where runs are archived before they are deleted; empty means no archive.",
    )

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, text: str) -> str:
        for word in listed(text):
            ip_network(word)
        return text

    @field_validator("rate_limit", "agent_rate_limit")
    @classmethod
    def _rates(cls, text: str) -> str:
        if text:
            rate_of(text)
        return text

    @field_validator("oidc_roles", "oidc_projects")
    @classmethod
    def _mappings(cls, text: str, about: ValidationInfo) -> str:
        words = {word for given in granted(text).values() for word in given}
        if about.field_name == "oidc_roles" and (wrong := words - {"viewer", "operator", "admin"}):
            raise ValueError(f"no such role: {', '.join(sorted(wrong))}")
        return text

    @model_validator(mode="after")
    def _oidc_is_whole(self) -> Config:
        if self.oidc_issuer:
            parts = urlsplit(self.oidc_issuer)
            if parts.scheme not in {"https", "http"} or not parts.netloc or parts.query:
                raise ValueError("OPSCORE_OIDC_ISSUER: a URL https://… is expected")
            for name in ("oidc_client_id", "oidc_roles"):
                if not getattr(self, name):
                    raise ValueError(f"OPSCORE_{name.upper()} is needed with OPSCORE_OIDC_ISSUER")
        elif not self.password_login:
            raise ValueError("OPSCORE_PASSWORD_LOGIN is off and there is no OPSCORE_OIDC_ISSUER")
        return self

    @field_validator("log_level", mode="before")
    @classmethod
    def _in_capitals(cls, level: Any) -> Any:
        return level.upper() if isinstance(level, str) else level

    @field_validator("database_url")
    @classmethod
    def _to_postgresql(cls, url: str) -> str:
        if not url:
            return url
        parts = urlsplit(url)
        if parts.scheme not in {"postgresql", "postgres"}:
            raise ValueError("a URL postgresql://… is expected")
        if parts.port == 0:
            raise ValueError("the port must be 1 to 65535")
        return url

    @property
    def api_address(self) -> str:
        """Where the programs that a supervisor starts find the API."""
        return self.api_url or f"http://127.0.0.1:{self.port}"

    @property
    def services_file(self) -> Path:
        """Where the embedded services write their URLs for other commands."""
        return self.var_dir / "services.json"

    def service_url(self, name: Literal["database_url", "broker_url"]) -> str:
        """Return the URL that is set, else that of the running embedded service, else ''."""
        explicit: str = getattr(self, name)
        if explicit:
            return explicit
        try:
            found: dict[str, str] = json.loads(self.services_file.read_text())
        except (OSError, ValueError):
            return ""
        return found.get(name, "")


def said(error: ValidationError) -> str:
    """Say what is wrong with the settings, a line for each variable; their values stay secret."""
    lines = []
    for item in error.errors():
        # What is wrong with several together names them itself.
        variable = f"OPSCORE_{str(item['loc'][0]).upper()}: " if item["loc"] else ""
        lines.append(f"  {variable}{item['msg'].removeprefix('Value error, ')}")
    return "\n".join(["Settings that are not valid:", *lines])


def not_ours(error: PermissionError) -> str:
    """Say what to do about a file of the var folder that another account has made."""
    return (
        f"{error.filename} cannot be used by this account ({error.strerror}). "
        "It was made by another one, perhaps by root: set OPSCORE_VAR_DIR to another "
        "folder, or run as that account."
    )


@cache
def load_config() -> Config:
    """Parse the environment once for this process."""
    return Config()


def django_database(url: str) -> dict[str, Any]:
    """Translate a postgresql:// URL into Django's settings; '' gives one that cannot connect."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    return {
        "ENGINE": "django.db.backends.postgresql" if url else "opscore.nowhere",
        "NAME": unquote(parts.path.lstrip("/")) or "opscore",
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": query.pop("host", "") or unquote(parts.hostname or ""),
        "PORT": str(parts.port or query.pop("port", "")),
        # Celery threads and web threads keep their connection; a broken one is
        # dropped by `opscore.database.release` after the unit of work that saw it.
        "CONN_MAX_AGE": None,
        # For the ORM in the web server after a restart of the database; the engine's own
        # statements repeat themselves.
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {"prepare_threshold": 2, "connect_timeout": 5, **query},
    }


def settings_page() -> str:
    """Return docs/settings.md: every variable with its default and meaning."""
    rows = [
        f"| `OPSCORE_{name.upper()}` | {_shown(field.default)} | {field.description} |"
        for name, field in Config.model_fields.items()
    ]
    head = [
        "# Settings",
        "",
        "Made from `opscore/config.py` by `python -m opscore.config`. All are environment variables.",
        "",
        "| variable | default | meaning |",
        "|---|---|---|",
    ]
    return "\n".join([*head, *rows, ""])


def _shown(default: object) -> str:
    if isinstance(default, Path):
        return f"`{default.relative_to(ROOT)}`"
    text = default.get_secret_value() if isinstance(default, SecretStr) else str(default)
    return f"`{text}`" if text else "empty"


if __name__ == "__main__":
    print(settings_page(), end="")  # noqa: T201 - the page is its output
