from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agents.supervisor.desired import Have, Pause, Want, decide
from agents.supervisor.policy import (
    API_PATIENCE_S,
    FIRST_DELAY_S,
    HOPELESS,
    MAX_DELAY_S,
    MAX_FAILED_STARTS,
    MAX_SHORT_LIVES,
    STABLE_S,
    History,
    Life,
    judge,
)
from opscore.exits import describe

LIVES = st.builds(
    Life,
    lived_s=st.floats(0, 100),
    was_ready=st.booleans(),
    needs_api=st.booleans(),
    code=st.integers(-31, 255).filter(lambda code: code != HOPELESS),
)


def test_first_crash_is_answered_at_once_and_delays_double() -> None:
    history, delays = History(), []
    for _ in range(4):
        verdict = judge(history, Life(1.0, was_ready=False, code=1))
        history = verdict.history
        delays.append(verdict.delay_s)
    assert delays == [0.1, 0.2, 0.4, 0.8]
    assert judge(history, Life(1.0, was_ready=False, code=1)).delay_s is None


def test_agent_that_was_ready_gets_more_tries_than_one_that_never_was() -> None:
    history, delays = History(), []
    for _ in range(MAX_SHORT_LIVES - 1):
        verdict = judge(history, Life(1.0, was_ready=True, code=-9))
        history = verdict.history
        delays.append(verdict.delay_s)
    assert None not in delays
    assert delays[-1] == MAX_DELAY_S
    assert judge(history, Life(1.0, was_ready=True, code=-9)).delay_s is None


def test_long_life_forgives_everything() -> None:
    worn = History(short_lives=MAX_SHORT_LIVES - 1, failed_starts=MAX_FAILED_STARTS - 1)
    verdict = judge(worn, Life(STABLE_S, was_ready=True, code=-9))
    assert (verdict.history, verdict.delay_s) == (History(), FIRST_DELAY_S)


def test_life_that_never_got_ready_is_never_stable() -> None:
    history, delays = History(), []
    for _ in range(MAX_FAILED_STARTS):
        # The default start_timeout is as long as a stable life.
        verdict = judge(history, Life(STABLE_S + 1, was_ready=False, code=-9))
        history = verdict.history
        delays.append(verdict.delay_s)
    assert delays == [0.1, 0.2, 0.4, 0.8, None]


def test_program_outwaits_a_web_server_that_is_away() -> None:
    history, waited_s, starts = History(), 0.0, 0
    while True:
        verdict = judge(history, Life(0.5, was_ready=False, code=1, needs_api=True))
        starts += 1
        if verdict.delay_s is None:
            break
        history, waited_s = verdict.history, waited_s + 0.5 + verdict.delay_s
    assert API_PATIENCE_S - 1 < waited_s < API_PATIENCE_S + MAX_DELAY_S
    assert MAX_FAILED_STARTS < starts < MAX_SHORT_LIVES
    # One that got ready begins anew.
    again = judge(history, Life(0.5, was_ready=True, code=1, needs_api=True))
    assert (again.history.failed_starts, again.history.failing_s) == (0, 0.0)


def test_hopeless_exit_is_final() -> None:
    assert judge(History(), Life(100.0, was_ready=True, code=HOPELESS)).delay_s is None


@given(st.lists(LIVES, max_size=60))
def test_delays_stay_in_bounds_and_short_lives_cannot_go_on_for_ever(lives: list[Life]) -> None:
    history, short = History(), 0
    for life in lives:
        verdict = judge(history, life)
        short = 0 if life.was_ready and life.lived_s >= STABLE_S else short + 1
        if verdict.delay_s is None:
            assert short >= MAX_FAILED_STARTS
            return
        assert FIRST_DELAY_S <= verdict.delay_s <= MAX_DELAY_S
        assert short < MAX_SHORT_LIVES
        history = verdict.history


def test_exit_codes_are_said_in_words() -> None:
    assert [describe(code) for code in (3, -9, -36)] == ["exit code 3", "SIGKILL", "signal 36"]


def test_missing_process_is_spawned_unless_it_must_wait() -> None:
    want = Want(running=True, generation=3)
    assert decide(want, None, Pause(), 5.0)[0] == "spawn"
    assert decide(want, None, Pause(until=6.0), 5.0)[0] == "rest"
    assert decide(want, None, Pause(until=5.0), 5.0)[0] == "spawn"
    assert decide(want, None, Pause(gave_up_on=3), 5.0)[0] == "rest"
    assert decide(want, None, Pause(gave_up_on=2), 5.0)[0] == "spawn"
    assert decide(Want(running=False, generation=3), None, Pause(), 5.0) == ("stopped", "retired")


def test_running_process_is_drained_or_killed_for_a_reason() -> None:
    have = Have(generation=3)
    cases = [
        (Want(running=True, generation=3, condemned="deaf"), "kill", "deaf"),
        (Want(running=True, generation=3, live_session=False), "kill", "its session was ended"),
        (Want(running=False, generation=3), "drain", "retired"),
        (Want(running=True, generation=4), "drain", "restart requested"),
        (Want(running=True, generation=3), "rest", ""),
    ]
    for want, step, reason in cases:
        assert decide(want, have, Pause(), 0.0) == (step, reason)


@given(
    st.builds(Want, running=st.booleans(), generation=st.integers(1, 3)),
    st.builds(Have, generation=st.integers(1, 3), draining=st.booleans()),
)
def test_draining_process_is_left_in_peace(want: Want, have: Have) -> None:
    step, _ = decide(want, have, Pause(), 0.0)
    assert not have.draining or step == "rest"
    assert step != "spawn"
