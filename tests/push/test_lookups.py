"""Host names are asked for without keeping others waiting."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from agents import lookups
from agents.lookups import Lookups


class Names:
    """Answers for every name, for `slow.example` only once the gate is open."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.gate = threading.Event()

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        if host == "slow.example":
            self.gate.wait(10)
        return ["192.0.2.1"]


def test_slow_name_keeps_nobody_else_waiting_and_is_asked_for_once() -> None:
    names = Names()

    async def ask() -> float:
        found = Lookups(names)
        waiting = [asyncio.create_task(found.find("slow.example", 80)) for _ in range(100)]
        await asyncio.sleep(0)
        began = time.monotonic()
        assert await found.find("fast.example", 80) == ["192.0.2.1"]
        took = time.monotonic() - began
        names.gate.set()
        assert await asyncio.gather(*waiting) == [["192.0.2.1"]] * 100
        return took

    assert asyncio.run(ask()) < 3
    assert sorted(names.asked) == ["fast.example", "slow.example"]


def test_answer_is_used_again_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names()

    async def ask() -> None:
        found = Lookups(names)
        await found.find("a.example", 80)
        await found.find("a.example", 80)
        await found.find("a.example", 81)
        assert len(names.asked) == 2
        monkeypatch.setattr(lookups, "CACHE_S", 0.0)
        await found.find("a.example", 80)

    asyncio.run(ask())
    assert len(names.asked) == 3


def test_who_waited_too_long_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "WAIT_S", 0.1)
    names = Names()

    async def ask() -> None:
        with pytest.raises(OSError, match=r"no answer for slow\.example within 0\.1 s"):
            await Lookups(names).find("slow.example", 80)

    asyncio.run(ask())
    names.gate.set()


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7"])
def test_addresses_are_not_asked_for(address: str) -> None:
    names = Names()
    assert asyncio.run(Lookups(names).find(address, 80)) == [address]
    assert names.asked == []


def test_failure_is_told_to_all_that_wait() -> None:
    def nowhere(host: str, port: int) -> list[str]:
        raise OSError(f"{host} is unknown")

    async def ask() -> list[BaseException | list[str]]:
        found = Lookups(nowhere)
        both = (found.find("no.example", 80) for _ in range(2))
        return await asyncio.gather(*both, return_exceptions=True)

    assert [str(error) for error in asyncio.run(ask())] == ["no.example is unknown"] * 2
