"""Where the platform is: what was said, the environment, or the file that `make up` writes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from opscore_sdk.errors import OpsCoreError, UnreachableError

ENV_FILE = Path("var") / "opscore.env"
_LAST_PORT = 65535


class PlaceError(OpsCoreError):
    """Nobody said where the platform is, or what was said cannot be used."""


@dataclass(frozen=True)
class Place:
    """An address, without `/api/v1`, and a key."""

    url: str
    api_key: str


def find_place(
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
    *,
    url: str | None = None,
    api_key: str | None = None,
) -> Place:
    """Return address and key: as given, else OPSCORE_API_URL and OPSCORE_API_KEY.

    Where the environment does not say them, var/opscore.env does; its key is for its own address
    only. Raises PlaceError saying what to do, UnreachableError for what is no address.
    """
    environ = os.environ if environ is None else environ
    url = url or environ.get("OPSCORE_API_URL") or None
    key = api_key or environ.get("OPSCORE_API_KEY") or None
    url = None if url is None else root_of(url)
    if url is not None and key is not None:
        return Place(url, _usable(key))
    written = _read((folder or Path()) / ENV_FILE)
    own = written.get("OPSCORE_API_URL", "")
    if key is None and url is not None and written and _differ(url, own):
        raise PlaceError(
            f"OPSCORE_API_KEY is not set, and the key in {ENV_FILE} is for {own or 'no address'} "
            f"alone, not for {url}: set it."
        )
    url, key = url or own, key or written.get("OPSCORE_API_KEY", "")
    for value, name in ((url, "OPSCORE_API_URL"), (key, "OPSCORE_API_KEY")):
        if not value:
            raise PlaceError(
                f"{name} is not set and {ENV_FILE} does not say it: "
                "start the platform with `make up`, or set it."
            )
    return Place(root_of(url), _usable(key))


def root_of(base_url: str) -> str:
    """Return the address without `/v1` or `/api/v1`, which some people add.

    Raises UnreachableError when it is no http:// or https:// address.
    """
    address = base_url.strip().rstrip("/")
    for ending in ("/api/v1", "/v1"):
        address = address.removesuffix(ending)
    if not address.startswith(("http://", "https://")):
        raise UnreachableError(
            f"{base_url!r} is no address: it must start with http:// or https://."
        )
    wrong = _wrong_with(address)
    if wrong:
        raise UnreachableError(f"{base_url!r} is no address: {wrong}.")
    return address


def _wrong_with(address: str) -> str:
    try:
        parts = httpx.URL(address)
    except (httpx.InvalidURL, ValueError) as error:
        return str(error).rstrip(".") or type(error).__name__
    if not parts.host or any(letter.isspace() for letter in address):
        return "it names no host"
    if parts.port is not None and parts.port > _LAST_PORT:
        return f"{parts.port} is no port"
    return "it must end with the path" if parts.query or parts.fragment else ""


def _differ(url: str, own: str) -> bool:
    try:
        return httpx.URL(root_of(url)) != httpx.URL(root_of(own))
    except UnreachableError:
        return True


def _usable(key: str) -> str:
    key = key.strip()
    if key.isascii() and key.isprintable() and " " not in key:
        return key
    # Not the key itself: what is said here ends in logs.
    raise PlaceError("OPSCORE_API_KEY holds characters that no key has: copy it again.")


def _read(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    pairs = (line.removeprefix("export ").partition("=") for line in lines if "=" in line)
    return {name.strip(): value.strip().strip("'\"") for name, _, value in pairs}
