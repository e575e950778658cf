"""A provider of identities for tests, in a process of its own: `python provider.py PORT`.

It checks its clients as a real one does (secret, redirect address, PKCE, codes good for once), and
for each person it can be told (`PUT /people/<subject>`) what to claim and what to do wrong.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

CLIENT = base64.b64encode(b"ops-core:s%3Aecret%2F+").decode()


def _key() -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": secrets.token_hex(4), "use": "sig"})


class Provider(ThreadingHTTPServer):
    """What the provider knows."""

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.issuer = f"http://127.0.0.1:{port}"
        self.key, self.other_key = _key(), _key()
        self.people: dict[str, dict[str, Any]] = {}
        self.codes: dict[str, dict[str, str]] = {}
        self.tokens: dict[str, str] = {}

    def about(self) -> dict[str, Any]:
        """Return the discovery document."""
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
        }

    def id_token(self, asked: dict[str, str]) -> str:
        """Return the token of a person, with the fault that he was given."""
        person = self.people[asked["sub"]]
        fault, now = person.get("fault", ""), int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": "ops-core",
            "sub": asked["sub"],
            "iat": now,
            "exp": now + 300,
            "nonce": asked["nonce"],
            **person.get("claims", {}),
        }
        wrong: dict[str, dict[str, Any]] = {
            "issuer": {"iss": "http://127.0.0.1:1"},
            "audience": {"aud": "another"},
            "audiences": {"aud": ["ops-core", "another"]},
            "party": {"azp": "another"},
            "expired": {"iat": now - 7200, "exp": now - 3600},
            "future": {"iat": now + 3600, "exp": now + 7200},
            "nonce": {"nonce": "of another log-in"},
            "no nonce": {"nonce": None},
            "no expiry": {"exp": None},
            "nobody": {"sub": ""},
        }
        claims = {k: v for k, v in {**claims, **wrong.get(fault, {})}.items() if v is not None}
        return self._signed(claims, fault)

    def _signed(self, claims: dict[str, Any], fault: str) -> str:
        head = {"alg": "RS256", "kid": str(self.key.kid)}
        if fault == "unsigned":
            parts = [json.dumps(part).encode() for part in ({**head, "alg": "none"}, claims)]
            return ".".join(base64.urlsafe_b64encode(p).rstrip(b"=").decode() for p in parts) + "."
        if fault == "shared secret":
            shared = OctKey.import_key("s:ecret/ ", {"kid": head["kid"]})
            return jwt.encode({**head, "alg": "HS256"}, claims, shared, algorithms=["HS256"])
        key = self.other_key if fault in {"signature", "key"} else self.key
        if fault == "key":
            head["kid"] = "unknown"
        text = jwt.encode(head, claims, key)
        if fault == "changed":
            body = json.dumps({**claims, "groups": ["it"]}).encode()
            first, _, last = text.split(".")
            text = f"{first}.{base64.urlsafe_b64encode(body).rstrip(b'=').decode()}.{last}"
        return text


class Handler(BaseHTTPRequestHandler):
    """Its pages."""

    server: Provider

    def do_GET(self) -> None:
        """Discovery, keys, the person."""
        provider, path = self.server, urlsplit(self.path).path
        if path == "/.well-known/openid-configuration":
            return self._json(200, provider.about())
        if path == "/keys":
            return self._json(200, {"keys": [provider.key.as_dict(private=False)]})
        if path == "/userinfo":
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            sub = provider.tokens.get(token, "")
            return self._json(200 if sub else 401, self._userinfo(sub))
        return self._json(404, {})

    def _userinfo(self, sub: str) -> dict[str, Any]:
        person = self.server.people.get(sub, {})
        shown = "somebody else" if person.get("fault") == "userinfo" else sub
        return {"sub": shown, **person.get("userinfo", {})}

    def do_PUT(self) -> None:
        """Say who a person is, or change the key."""
        size = int(self.headers["Content-Length"])
        body = json.loads(self.rfile.read(size) or b"{}")
        if self.path == "/key":
            self.server.key = _key()
        else:
            self.server.people[self.path.rpartition("/")[2]] = body
        return self._json(200, {})

    def do_POST(self) -> None:
        """Log in, or exchange a code."""
        address = urlsplit(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        form = {name: values[0] for name, values in parse_qs(body).items()}
        asked = {name: values[0] for name, values in parse_qs(address.query).items()}
        if address.path == "/authorize":
            return self._log_in({**asked, "sub": form["sub"]})
        return self._exchange(form)

    def _log_in(self, asked: dict[str, str]) -> None:
        known = asked["client_id"] == "ops-core" and asked["response_type"] == "code"
        if not known or asked["code_challenge_method"] != "S256" or "openid" not in asked["scope"]:
            return self._json(400, {"error": "invalid_request"})
        if self.server.people[asked["sub"]].get("fault") == "denied":
            back = {"error": "access_denied<b>", "state": asked["state"]}
        else:
            code = secrets.token_urlsafe(16)
            self.server.codes[code] = asked
            back = {"code": code, "state": asked["state"], "iss": self.server.issuer}
        self.send_response(302)
        self.send_header("Location", f"{asked['redirect_uri']}?{urlencode(back)}")
        self.send_header("Content-Length", "0")
        return self.end_headers()

    def _exchange(self, form: dict[str, str]) -> None:
        asked = self.server.codes.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if self.headers.get("Authorization") != f"Basic {CLIENT}":
            return self._json(401, {"error": "invalid_client"})
        if (
            asked is None
            or asked["code_challenge"] != challenge
            or asked["redirect_uri"] != form["redirect_uri"]
        ):
            return self._json(400, {"error": "invalid_grant"})
        token = secrets.token_urlsafe(16)
        self.server.tokens[token] = asked["sub"]
        answer = {"access_token": token, "token_type": "Bearer"}
        return self._json(200, {**answer, "id_token": self.server.id_token(asked)})

    def _json(self, status: int, body: dict[str, Any]) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


if __name__ == "__main__":
    Provider(int(sys.argv[1])).serve_forever()
