"""Where the SDK looks for the platform, and whose key it sends where."""

from __future__ import annotations

from pathlib import Path

import pytest

from opscore_sdk import Client, OpsCoreError, UnsendableError
from opscore_sdk.place import Place, find_place

URL, KEY = "OPSCORE_API_URL", "OPSCORE_API_KEY"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder in which `make up` has run."""
    (tmp_path / "var").mkdir()
    text = f"export {URL}='http://127.0.0.1:8000'\n{KEY}=ok_file\n"
    (tmp_path / "var" / "opscore.env").write_text(text)
    return tmp_path


def test_the_environment_comes_before_the_file(folder: Path) -> None:
    local = "http://127.0.0.1:8000"
    assert find_place({}, folder) == Place(local, "ok_file")
    assert find_place({KEY: "ok_mine"}, folder) == Place(local, "ok_mine")
    own = {URL: "https://ops.example/api/v1/", KEY: " ok_mine\n"}
    assert find_place(own, folder) == Place("https://ops.example", "ok_mine")
    assert find_place(own, url="http://h", api_key="k") == Place("http://h", "k")


@pytest.mark.parametrize(
    "url", ["http://evil.example", "http://127.0.0.1:8001", "https://127.0.0.1:8000"]
)
def test_the_key_of_the_file_goes_to_its_own_address_only(folder: Path, url: str) -> None:
    for environment, said in (({URL: url}, None), ({}, url)):
        with pytest.raises(OpsCoreError, match=r"is for http://127.0.0.1:8000 alone") as refused:
            find_place(environment, folder, url=said)
        assert "ok_file" not in str(refused.value)
    same = {URL: "http://127.0.0.1:8000/v1"}
    assert find_place(same, folder).api_key == "ok_file"


def test_a_file_without_an_address_gives_its_key_to_nobody(folder: Path) -> None:
    (folder / "var" / "opscore.env").write_text(f"{KEY}=ok_file\n")
    with pytest.raises(OpsCoreError, match="no address alone"):
        find_place({URL: "http://evil.example"}, folder)


def test_a_client_asks_the_same_rule(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for name in (URL, KEY):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(OpsCoreError, match="alone"):
        Client("http://evil.example")
    with Client("http://127.0.0.1:8000/") as client:
        assert client._http.headers["Authorization"] == "Bearer ok_file"


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "http://",
        "http://[::1",
        "http://h:99999999",
        "http://h h",
        "http://h?x=1",
        "http://h#x",
        "http://a\udcff",
        "http://\0",
    ],
)
def test_an_odd_address_is_told_in_a_sentence(url: str, tmp_path: Path) -> None:
    with pytest.raises(OpsCoreError, match="is no address") as refused:
        find_place({URL: url, KEY: "k"}, tmp_path)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("key", ["kéy", "a b", "a\nb", "k\udcff", "k\0"])
def test_an_odd_key_is_told_in_a_sentence_without_it(key: str, tmp_path: Path) -> None:
    with pytest.raises(OpsCoreError, match="characters that no key has") as refused:
        find_place({URL: "http://h", KEY: key}, tmp_path)
    assert key not in str(refused.value)


def test_what_is_no_json_is_not_sent() -> None:
    with Client("http://127.0.0.1:1", "k") as client:
        for value in (float("nan"), {1, 2}, 10**5000):
            with pytest.raises(UnsendableError):
                client.submit("x", inputs={"n": value})
            with pytest.raises(UnsendableError):
                client.signal("run", "name", value)
        with pytest.raises(UnsendableError):
            client.upload("name: \ud800")
        with pytest.raises(UnsendableError):
            client.submit("x", idempotency_key="kéy")
