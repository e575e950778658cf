"""Where nothing is sent: the ways in which a URL can mean the inside of a network."""

from __future__ import annotations

import ipaddress

import pytest

from agents import addresses
from opscore.errors import InvalidError

ALLOW_NOTHING: list[addresses.Network] = []


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "localhost",
        "[::1]",
        "[::]",
        "0.0.0.0",
        "0",
        "169.254.169.254",
        "2130706433",
        "0x7f.1",
        "0x7f000001",
        "017700000001",
        "0177.0.0.1",
        "10.0.0.1",
        "172.16.5.4",
        "192.168.1.1",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "[::ffff:127.0.0.1]",
        "[::ffff:a9fe:a9fe]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b::10.0.0.1]",
        "[2002:7f00:1::]",
        "[::127.0.0.1]",
        "[fe80::1]",
        "[fc00::1]",
        "[fec0::1]",
        "[ff02::1]",
        "[2001:db8::1]",
    ],
)
def test_addresses_inside_are_refused(host: str) -> None:
    parts = addresses.parse_url(f"http://{host}:8080/work")
    with pytest.raises(addresses.RefusedAddressError, match="OPSCORE_PUSH_NETWORKS"):
        addresses.chosen(parts, ALLOW_NOTHING)


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"],
)
def test_public_addresses_are_allowed(address: str) -> None:
    assert addresses.is_allowed(ipaddress.ip_address(address), ALLOW_NOTHING)


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("11.0.0.1", True),
        ("127.0.0.1", False),
        ("fd00::1", True),
    ],
)
def test_operator_allows_networks(address: str, allowed: bool) -> None:
    mine = addresses.networks("10.0.0.0/8, fd00::/8")
    assert addresses.is_allowed(ipaddress.ip_address(address), mine) is allowed


def test_one_private_address_refuses_the_whole_name() -> None:
    parts = addresses.parse_url("http://agent.example/")
    with pytest.raises(addresses.RefusedAddressError):
        addresses.chosen(parts, ALLOW_NOTHING, lambda host, port: ["8.8.8.8", "10.0.0.1"])
    with pytest.raises(OSError, match="no address"):
        addresses.chosen(parts, ALLOW_NOTHING, lambda host, port: [])
    found = addresses.chosen(parts, ALLOW_NOTHING, lambda host, port: ["8.8.8.8", "8.8.4.4"])
    assert found == ["8.8.8.8", "8.8.4.4"]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "agent.example",
        "ftp://agent.example/",
        "file:///etc/passwd",
        "gopher://agent.example/",
        "http://",
        "http:///path",
        "http://user@agent.example/",
        "http://user:secret@agent.example/",
        "http://agent.example/#part",
        "http://agent.example:99999/",
        "http://agent.example:x/",
        "http://[::1/",
        "http://agent.example/a b",
        "http://ägent.example/",
        "http://agent.example/\n",
        "http://agent.example/" + "x" * 2000,
    ],
)
def test_urls_that_nobody_should_send_to_are_refused(url: str) -> None:
    with pytest.raises(InvalidError) as refused:
        addresses.parse_url(url)
    assert [problem.path for problem in refused.value.problems] == ["url"]


def test_ports_are_those_of_the_scheme() -> None:
    ports = {
        url: addresses.port_of(addresses.parse_url(url))
        for url in ("http://a/", "https://a/", "http://a:81/")
    }
    assert list(ports.values()) == [80, 443, 81]


def test_networks_that_are_none_are_named() -> None:
    with pytest.raises(InvalidError):
        addresses.networks("10.0.0.0/8,private")
