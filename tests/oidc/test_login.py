"""Logging in with an account of the company, against a provider that is a process of its own."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from django.contrib.auth.models import User

from opscore.models import AuditEntry, Membership, OidcIdentity, Project
from tests.conftest import WaitUntil
from tests.oidc.conftest import Person

pytestmark = pytest.mark.django_db(transaction=True)
RUNS = "/admin/tasks/run/"


def roles(name: str = "ada") -> list[str]:
    return sorted(User.objects.get(username=name).groups.values_list("name", flat=True))


def projects(name: str = "ada") -> set[str]:
    rows = Membership.objects.filter(user__username=name)
    return set(rows.values_list("project__slug", flat=True))


def is_in(person: Person) -> bool:
    return person.browser.get(RUNS).status_code == 200


def refused(answer: httpx.Response, status: int, words: str) -> None:
    assert answer.status_code == status, answer.text
    assert words in answer.text
    assert "Traceback" not in answer.text
    assert "sessionid" not in answer.cookies
    entry = AuditEntry.objects.get(action="login.refused")
    assert (entry.status, entry.actor) == (status, "")


def test_whoever_has_a_role_comes_in_and_is_recorded(ada: Person, provider: str) -> None:
    answer = ada.log_in(f"{RUNS}?status=failed")
    assert (answer.status_code, answer.headers["Location"]) == (302, f"{RUNS}?status=failed")
    assert is_in(ada)
    user = User.objects.get(username="ada")
    assert (user.is_staff, user.is_superuser, user.has_usable_password()) == (True, False, False)
    assert (roles(), projects()) == (["operator"], {"shop", "default"})
    entry = AuditEntry.objects.get(action="login")
    assert (entry.actor, entry.data) == ("ada", {"by": provider})
    assert ada.browser.get("/admin/opscore/apikey/").status_code == 403


def test_button_leads_to_the_provider_and_no_policy_is_weaker_for_it(
    ada: Person, provider: str
) -> None:
    page = ada.browser.get("/admin/login/?next=/admin/agents/agent/")
    assert "Log in with Example &lt;SSO&gt;" in page.text
    assert 'href="/admin/oidc/login?next=%2Fadmin%2Fagents%2Fagent%2F"' in page.text
    # It is a link: forms still go nowhere but home.
    assert "form-action 'self';" in page.headers["Content-Security-Policy"]
    begun = ada.begin()
    assert begun.headers["Location"].startswith(f"{provider}/authorize?")
    asked = parse_qs(urlsplit(begun.headers["Location"]).query)
    assert asked["code_challenge_method"] == ["S256"]
    assert all(len(asked[name][0]) >= 43 for name in ("state", "nonce", "code_challenge"))
    cookie = begun.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "Path=/admin/oidc;" in cookie


@pytest.mark.parametrize("target", ["//evil.example/", "https://evil.example/", "javascript:1"])
def test_nobody_is_sent_elsewhere_afterwards(ada: Person, target: str) -> None:
    assert ada.log_in(target).headers["Location"] == "/admin/"


def test_whoever_leaves_a_group_loses_what_it_gave_at_the_next_log_in(ada: Person) -> None:
    ada.is_known_as(claims={"preferred_username": "ada", "groups": ["it", "team-a", "team-b"]})
    ada.log_in()
    assert (roles(), projects()) == (["admin", "operator"], {"shop", "billing", "default"})
    ada.is_known_as(claims={"preferred_username": "ada", "groups": ["watchers", "team-b"]})
    ada.log_in()
    assert (roles(), projects()) == (["viewer"], {"billing", "default"})
    assert User.objects.count() == 1
    # Out of all groups: refused, and the session that is still open may do nothing.
    ada.is_known_as(claims={"preferred_username": "ada", "groups": []})
    refused(ada.log_in(), 403, "none of your groups has a role")
    assert (roles(), projects()) == ([], set())
    assert not is_in(ada)


def test_stranger_without_a_role_is_refused_and_leaves_no_user(ada: Person) -> None:
    ada.is_known_as(claims={"preferred_username": "ada", "groups": "nothing"})
    refused(ada.log_in(), 403, "none of your groups has a role")
    assert not User.objects.exists()


def test_groups_may_stand_in_the_userinfo(ada: Person) -> None:
    ada.is_known_as(claims={"email": "ada@x.org"}, userinfo={"groups": ["watchers"]})
    ada.log_in()
    assert roles("ada@x.org") == ["viewer"]


def test_name_of_somebody_who_is_here_already_makes_nobody_him(ada: Person) -> None:
    root = User.objects.create_superuser("ada", "ada@example.org", "wonderland")
    ada.is_known_as(
        claims={"preferred_username": "ada", "email": root.email, "groups": ["watchers"]}
    )
    ada.log_in()
    other = OidcIdentity.objects.get().user
    assert other.username.startswith("ada-")
    assert (roles(other.username), other.is_superuser) == (["viewer"], False)
    root.refresh_from_db()
    assert root.groups.count() == 0


def test_account_that_is_switched_off_stays_so(ada: Person) -> None:
    ada.log_in()
    User.objects.update(is_active=False)
    refused(ada.log_in(), 403, "switched off")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("signature", "token is not valid"),
        ("changed", "token is not valid"),
        ("key", "token is not valid"),
        ("unsigned", "token is not valid"),
        ("shared secret", "token is not valid"),
        ("issuer", "token is not valid"),
        ("audience", "token is not valid"),
        ("audiences", "for another program"),
        ("party", "for another program"),
        ("expired", "token is not valid"),
        ("future", "token is not valid"),
        ("no expiry", "token is not valid"),
        ("nonce", "for another log-in"),
        ("no nonce", "for another log-in"),
        ("nobody", "token"),
        ("userinfo", "about another person"),
        ("denied", "access_denied&lt;b&gt;"),
    ],
)
def test_token_that_is_not_right_lets_nobody_in(ada: Person, fault: str, words: str) -> None:
    where: dict[str, Any] = {"claims": {"groups": ["it"]}}
    if fault == "userinfo":
        where = {"claims": {}, "userinfo": {"groups": ["it"]}}
    ada.is_known_as(**where, fault=fault)
    refused(ada.log_in(), 403, words)
    assert not User.objects.exists()
    assert not is_in(ada)


def test_answer_counts_only_in_the_browser_that_began_and_only_once(ada: Person) -> None:
    back = ada.authorize(ada.begin())
    stranger = httpx.get(back)
    refused(stranger, 403, "not begun in this browser")
    assert ada.browser.get(back).status_code == 302
    ada.browser.cookies.delete("sessionid")
    assert ada.browser.get(back).status_code == 403
    assert not is_in(ada)


@pytest.mark.parametrize("change", ["state=other", "state=", "iss=http://evil.example", "code=x"])
def test_answer_that_was_tampered_with_is_refused(ada: Person, change: str) -> None:
    back = ada.authorize(ada.begin())
    name, _, value = change.partition("=")
    answer = ada.browser.get(str(httpx.URL(back).copy_set_param(name, value)))
    assert answer.status_code == 403
    assert not is_in(ada)
    assert not User.objects.exists()


def test_code_of_one_browser_is_worth_nothing_in_another(ada: Person, site: str) -> None:
    """Login CSRF: the victim's browser has begun a log-in, and is sent the attacker's code."""
    back = httpx.URL(ada.authorize(ada.begin()))
    with httpx.Client(base_url=site) as victim:
        begun = victim.get("/admin/oidc/login")
        state = httpx.URL(begun.headers["Location"]).params["state"]
        answer = victim.get(str(back.copy_set_param("state", state)))
    assert answer.status_code == 403
    assert "invalid_grant" in answer.text


def test_new_key_of_the_provider_is_found(
    ada: Person, provider: str, wait_until: WaitUntil
) -> None:
    assert ada.log_in().status_code == 302
    assert httpx.put(f"{provider}/key", json={}).status_code == 200
    # Keys are asked for again at most every ten seconds.
    wait_until(lambda: ada.log_in().status_code == 302, 30)


def test_other_methods_find_nothing(ada: Person) -> None:
    for path in ("/admin/oidc/login", "/admin/oidc/callback"):
        assert ada.browser.put(path).status_code in {403, 404}
        assert ada.browser.post(path, data={"code": "x"}).status_code in {403, 404}


def test_password_still_lets_in(ada: Person) -> None:
    User.objects.create_superuser("root", password="wonderland")
    page = ada.browser.get("/admin/login/")
    assert 'name="password"' in page.text
    token = page.text.partition('name="csrfmiddlewaretoken" value="')[2].partition('"')[0]
    told = {"username": "root", "password": "wonderland", "csrfmiddlewaretoken": token}
    headers = {"Referer": f"{ada.site}/admin/login/"}
    assert ada.browser.post("/admin/login/", data=told, headers=headers).status_code == 302
    assert is_in(ada)
    assert Project.objects.exists()
