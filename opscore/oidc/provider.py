"""The provider: what it says of itself, and what its tokens say of a person."""

from __future__ import annotations

import hmac
import time
from dataclasses import dataclass, field
from threading import Lock
from typing import Any
from urllib.parse import quote_plus, urlsplit

import httpx
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet
from joserfc.jwt import JWTClaimsRegistry

from opscore.config import Config
from opscore.errors import ForbiddenError, UnavailableError

#: With a private key of the provider. Never `none`, and never HS256: there the client's own secret,
#: or a public key taken for one, would sign.
_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
_PATIENCE_S = 10.0
_KEPT_S = 3600.0
#: Keys are asked for again when a token names one that is unknown, but not by every stranger.
_AGAIN_S = 10.0
_LEEWAY_S = 60
_LONGEST_SUBJECT = 255


class LoginRefusedError(ForbiddenError):
    """This log-in is not valid."""


class ProviderAwayError(UnavailableError):
    """The provider of identities does not answer."""


@dataclass
class _Kept:
    """Documents of the provider, for an hour."""

    lock: Lock = field(default_factory=Lock)
    documents: dict[str, tuple[float, dict[str, Any]]] = field(default_factory=dict)

    def get(self, url: str, longest_s: float = _KEPT_S) -> dict[str, Any]:
        with self.lock:
            at, document = self.documents.get(url, (0.0, {}))
            now = time.monotonic()
            if not document or now - at > longest_s:
                document = _asked("GET", url)
                self.documents[url] = (now, document)
            return document


_kept = _Kept()


def forget() -> None:
    """Ask the provider anew (tests have one each)."""
    _kept.documents.clear()


@dataclass(frozen=True)
class Provider:
    """One provider and this platform as its client."""

    config: Config

    def about(self) -> dict[str, Any]:
        """Return its discovery document. Raises ProviderAwayError."""
        issuer = self.config.oidc_issuer
        document = _kept.get(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if document.get("issuer") != issuer:
            raise ProviderAwayError(
                f"OPSCORE_OIDC_ISSUER is not what the provider calls itself: {issuer}"
            )
        return document

    def address(self, name: str) -> str:
        """Return one of its addresses, with TLS where the issuer has it. Raises ProviderAwayError."""
        url = str(self.about().get(name, ""))
        schemes = {urlsplit(self.config.oidc_issuer).scheme, "https"}
        if urlsplit(url).scheme not in schemes:
            raise ProviderAwayError(f"The provider names no usable {name}.")
        return url

    def exchange(self, code: str, verifier: str, back_to: str) -> dict[str, Any]:
        """Return the tokens for a code. Raises LoginRefusedError, ProviderAwayError."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": back_to,
            "code_verifier": verifier,
            "client_id": self.config.oidc_client_id,
        }
        name, secret = self.config.oidc_client_id, self.config.oidc_client_secret
        text = secret.get_secret_value()
        ways = self.about().get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        basic = None
        if text and "client_secret_basic" in ways:
            # RFC 6749, 2.3.1: encoded as in forms before it is joined.
            basic = httpx.BasicAuth(quote_plus(name), quote_plus(text))
        elif text:
            form["client_secret"] = text
        return _asked("POST", self.address("token_endpoint"), data=form, auth=basic)

    def claims(self, tokens: dict[str, Any], nonce: str) -> dict[str, Any]:
        """Return what the tokens say of the person, once all of it is proved.

        Raises LoginRefusedError, ProviderAwayError.
        """
        claims = self._verified(str(tokens.get("id_token", "")))
        self._check_person(claims, nonce)
        if self.config.oidc_claim in claims or "userinfo_endpoint" not in self.about():
            return claims
        bearer = {"Authorization": f"Bearer {tokens.get('access_token', '')}"}
        more = _asked("GET", self.address("userinfo_endpoint"), headers=bearer)
        if more.get("sub") != claims["sub"]:
            raise LoginRefusedError("The provider told about another person.")
        return {**more, **claims}

    def _verified(self, text: str) -> dict[str, Any]:
        url = self.address("jwks_uri")
        try:
            try:
                token = _decoded(text, _kept.get(url))
            except InvalidKeyIdError:
                token = _decoded(text, _kept.get(url, _AGAIN_S))
            rules = JWTClaimsRegistry(
                leeway=_LEEWAY_S,
                iss={"essential": True, "value": self.config.oidc_issuer},
                aud={"essential": True, "value": self.config.oidc_client_id},
                sub={"essential": True},
                exp={"essential": True},
                iat={"essential": True},
            )
            rules.validate(token.claims)
        except (JoseError, ValueError, KeyError, TypeError) as error:
            raise LoginRefusedError(f"The provider's token is not valid: {error}") from None
        return token.claims

    def _check_person(self, claims: dict[str, Any], nonce: str) -> None:
        if not hmac.compare_digest(str(claims.get("nonce", "")).encode(), nonce.encode()):
            raise LoginRefusedError("The provider's token is for another log-in.")
        audience = claims["aud"]
        several = isinstance(audience, list) and len(audience) > 1
        party = claims.get("azp", None if several else self.config.oidc_client_id)
        if party != self.config.oidc_client_id:
            raise LoginRefusedError("The provider's token is for another program.")
        if not 0 < len(claims["sub"]) <= _LONGEST_SUBJECT:
            raise LoginRefusedError("The provider's token names nobody.")


def _decoded(text: str, keys: dict[str, Any]) -> jwt.Token:
    return jwt.decode(text, KeySet.import_key_set(keys), algorithms=_ALGORITHMS)  # type: ignore[arg-type]


def _asked(method: str, url: str, **options: Any) -> dict[str, Any]:
    """Send one request, follow nothing, and return the JSON object that comes back."""
    try:
        with httpx.Client(timeout=_PATIENCE_S, follow_redirects=False) as client:
            answer = client.request(method, url, **options)
        said = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        raise ProviderAwayError(f"The provider does not answer at {url}.") from None
    if answer.status_code in {400, 401, 403} and isinstance(said, dict):
        raise LoginRefusedError(f"The provider refused: {str(said.get('error', ''))[:80]}")
    if answer.status_code != 200 or not isinstance(said, dict):
        raise ProviderAwayError(f"The provider answers {answer.status_code} at {url}.")
    return said
