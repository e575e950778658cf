"""Encryption at rest: what is sealed here can be read with this installation's keys only.

Fernet (AES-128-CBC with HMAC-SHA256) of the `cryptography` library. The first key seals; all of
them open, so that a new key may be put in front while the old one still reads what it sealed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from opscore.config import listed, load_config
from opscore.errors import OpsCoreError
from opscore.kept import kept_secret

_FILE = "seal_key"


class SealedError(OpsCoreError):
    """What was sealed cannot be opened: it was sealed with a key that is not here."""

    status = 500
    code = "sealed"


def seal(text: str) -> bytes:
    """Return the text encrypted with the first key."""
    return _keys().encrypt(text.encode())


def unseal(sealed: bytes) -> str:
    """Return the text again. Raises SealedError when no key of this process fits."""
    try:
        return _keys().decrypt(bytes(sealed)).decode()
    except InvalidToken:
        raise SealedError(
            "It was encrypted with a key that this process does not have: set OPSCORE_SEAL_KEYS "
            "to the same keys on all hosts."
        ) from None


def resealed(sealed: bytes) -> bytes:
    """Return the same, encrypted with the first key. Raises SealedError."""
    return seal(unseal(sealed))


def wrong_keys(texts: Sequence[str]) -> list[str]:
    """Return those that are no keys."""
    return [text for text in texts if not _is_key(text)]


def _is_key(text: str) -> bool:
    try:
        Fernet(text)
    except ValueError:
        return False
    return True


@cache
def _keys() -> MultiFernet:
    config = load_config()
    texts = listed(config.seal_keys.get_secret_value())
    texts = texts or [kept_secret(config.var_dir / _FILE, lambda: Fernet.generate_key().decode())]
    if wrong_keys(texts):
        raise SealedError(
            "OPSCORE_SEAL_KEYS: each key is 32 random bytes in URL-safe base64; "
            "`openssl rand -base64 32 | tr +/ -_` makes one."
        )
    return MultiFernet([Fernet(text) for text in texts])
