"""What is wrong with a request before anybody looks at what it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from opscore.api.problems import Failure, too_large
from opscore.config import load_config

#: Bytes of path and query together; a server in front seldom takes more.
MAX_ADDRESS = 16 * 1024


def wrong_with(scope: Mapping[str, Any]) -> Failure | None:
    """Return what to answer to a request whose head alone is wrong; None: let it in."""
    length = header(scope, b"content-length")
    if length.isdigit() and int(length) > load_config().max_body_bytes:
        return too_large()
    return _wrong_address(scope) or _wrong_encoding(scope)


def header(scope: Mapping[str, Any], wanted: bytes) -> bytes:
    """Return the first header of that name; b'' where there is none."""
    return next((value for name, value in scope["headers"] if name == wanted), b"")


def _wrong_address(scope: Mapping[str, Any]) -> Failure | None:
    path, query = scope.get("raw_path") or b"", scope.get("query_string") or b""
    if len(path) + len(query) > MAX_ADDRESS:
        return Failure(414, f"The address is longer than {MAX_ADDRESS} bytes.")
    for name, part in (("path", path), ("query", query)):
        try:
            # Django would put U+FFFD in place of each such byte, and look for, or store, that.
            unquote_to_bytes(part).decode()
        except UnicodeDecodeError:
            return Failure(400, f"The {name} of the address is not UTF-8.")
    return None


def _wrong_encoding(scope: Mapping[str, Any]) -> Failure | None:
    encoding = header(scope, b"content-encoding").lower()
    if encoding in {b"", b"identity"}:
        return None
    return Failure(415, "The body is compressed (Content-Encoding); send it as it is.")
