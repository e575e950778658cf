"""What must not be so where OPSCORE_ENV=production: the platform does not start then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_network
from pathlib import Path

from opscore.config import Config, listed

#: What Django's own check asks for; 50 characters drawn by chance are above 256 bits.
_SHORTEST_SECRET = 50
_FEWEST_CHARACTERS = 10
_SHORTEST_PASSWORD = 12
#: Networks wider than these, by version of IP, hold more than proxies.
_WIDEST = {4: 16, 6: 48}
_TRUE = frozenset({"1", "true", "yes", "on"})


def refusals(
    config: Config, environment: Mapping[str, str], command: Sequence[str] = ()
) -> list[str]:
    """Return a sentence for each setting that is not fit for production; also for the command."""
    if config.env != "production":
        return []
    flower = _about_flower(environment, command)
    return [*_about_secret(config), *_about_web(config), *flower]


def _about_secret(config: Config) -> Iterator[str]:
    if not listed(config.seal_keys.get_secret_value()):
        yield (
            "OPSCORE_SEAL_KEYS is empty: each host would make a key of its own, and none could read "
            "the secrets of another; make one with: openssl rand -base64 32 | tr +/ -_ (or take "
            "that of seal_key in the var folder)"
        )
    secret = config.secret_key.get_secret_value()
    make = "make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"
    if not secret:
        yield f"OPSCORE_SECRET_KEY is empty: all hosts must share one secret; {make}"
    elif len(secret) < _SHORTEST_SECRET or len(set(secret)) < _FEWEST_CHARACTERS:
        yield f"OPSCORE_SECRET_KEY is too short or too plain to be a secret; {make}"
    elif secret.startswith("django-insecure-"):
        yield f"OPSCORE_SECRET_KEY is the one of an example; {make}"


def _about_web(config: Config) -> Iterator[str]:
    if config.debug:
        yield "OPSCORE_DEBUG shows settings and source code to strangers: leave it out."
    if not listed(config.trusted_proxies):
        yield (
            "OPSCORE_TRUSTED_PROXIES is empty: the platform speaks HTTP, so behind a proxy with TLS "
            "that it does not know the admin would redirect to itself for ever; name the proxy, "
            "as 10.0.0.5/32."
        )
    for network in map(ip_network, listed(config.trusted_proxies)):
        if network.prefixlen < _WIDEST[network.version]:
            yield (
                f"OPSCORE_TRUSTED_PROXIES believes any address that comes from {network}: name the "
                "proxies alone, as 10.0.0.5/32."
            )
    hosts = listed(config.allowed_hosts)
    if not hosts or any("*" in host for host in hosts):
        yield "OPSCORE_ALLOWED_HOSTS allows any host name: name those of this platform."
    if config.oidc_issuer.startswith("http://"):
        yield "OPSCORE_OIDC_ISSUER is without TLS: who is on the way logs in as anybody; use https."


def _about_flower(environment: Mapping[str, str], command: Sequence[str]) -> Iterator[str]:
    if "flower" in command and Path(command[0]).name != "manage.py":
        yield "celery flower asks nobody for a password: use manage.py flower."
    if environment.get("FLOWER_UNAUTHENTICATED_API", "").lower() in _TRUE:
        yield "FLOWER_UNAUTHENTICATED_API opens Flower to everybody: leave it out."
    for pair in listed(environment.get("FLOWER_BASIC_AUTH", "")):
        if len(pair.partition(":")[2]) < _SHORTEST_PASSWORD:
            yield f"FLOWER_BASIC_AUTH: a password has at least {_SHORTEST_PASSWORD} characters."
