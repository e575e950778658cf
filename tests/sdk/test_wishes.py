"""What only the platform in memory can show of wishes: time that passes at once."""

from __future__ import annotations

from opscore_sdk.testing import MemoryPlatform


def test_a_task_waits_five_seconds_for_the_agent_that_it_prefers() -> None:
    platform = MemoryPlatform()
    with platform.client() as api:
        api.register_agent("plain", "remote", capabilities=["echo"])
        api.register_agent("strong", "remote", capabilities=["echo"], labels=["gpu"])
        plain, strong = (api.begin_session(name).session_id for name in ("plain", "strong"))
        task = api.submit("echo", prefers={"gpu": 1})
        assert api.claim(plain) == []
        platform.advance(6)
        api.heartbeat(strong, [])
        assert [one.id for one in api.claim(plain)] == [task.id]
