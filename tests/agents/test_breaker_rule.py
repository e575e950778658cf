"""The rule of circuit breakers: when it opens, probes, ramps and closes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from opscore import breaker
from opscore.breaker import Breaker, Rule

START = datetime(2026, 11, 21, tzinfo=UTC)
RULE = Rule()


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def fail(b: Breaker, seconds: float, started: float | None = None, rule: Rule = RULE) -> Breaker:
    begun = at(seconds if started is None else started)
    return breaker.failed(b, rule, started_at=begun, now=at(seconds), rng=Random(1))


def succeed(b: Breaker, seconds: float, started: float | None = None) -> Breaker:
    begun = at(seconds if started is None else started)
    return breaker.succeeded(b, RULE, started_at=begun, now=at(seconds))


def half_open() -> Breaker:
    return breaker.probing(breaker.opened(Breaker(START), until=at(1), now=START), now=at(1))


def test_opens_at_the_rate_and_not_before_enough_calls() -> None:
    b = Breaker(START)
    for second in range(4):
        b = fail(b, second)
        assert b.state == "closed"
    b = fail(b, 4)
    assert b.state == "open"
    assert b.until is not None
    assert at(4 + 24) <= b.until <= at(4 + 30)


def test_successes_after_a_first_failure_keep_it_closed() -> None:
    b = fail(Breaker(START), 0)
    for second in range(1, 7):
        b = succeed(b, second)
    for second in range(7, 11):
        b = fail(b, second)
    assert (b.state, b.calls, b.failures) == ("closed", 11, 5)
    assert fail(b, 11).state == "open"


def test_a_success_at_rest_changes_nothing_and_a_window_ends() -> None:
    rest = Breaker(START)
    assert succeed(rest, 5) is rest
    b = fail(rest, 0)
    assert succeed(b, 61) is b
    assert (fail(b, 61).calls, fail(b, 61).window_at) == (1, at(61))


def test_places_double_by_success_and_halve_by_failure() -> None:
    b = half_open()
    seen = []
    for second in range(2, 6):
        seen.append(b.places)
        b = succeed(b, second)
    assert (seen, b.state) == ([1, 2, 4, 8], "closed")
    b = succeed(half_open(), 2)
    assert fail(b, 3).places == 1
    assert fail(fail(b, 3), 4).state == "open"


def test_what_began_before_says_nothing_about_the_present_state() -> None:
    b = half_open()
    assert fail(b, 5, started=0.5) is b
    assert succeed(b, 5, started=0.5) is b
    closed = breaker.closed(at(10))
    assert fail(closed, 11, started=9) is closed


def test_each_opening_in_a_row_doubles_the_pause_up_to_a_bound() -> None:
    b, now, pauses = Breaker(START), 0.0, []
    for _ in range(8):
        while b.state != "open":
            b = fail(b, now)
        assert b.until is not None
        pauses.append((b.until - at(now)).total_seconds())
        now = (b.until - START).total_seconds()
        b = breaker.probing(b, now=at(now))
    for place, pause in enumerate(pauses):
        ceiling = min(30 * 2**place, 600)
        assert 0.8 * ceiling <= pause <= ceiling


def test_an_asked_pause_opens_at_once_within_bounds() -> None:
    assert breaker.held(Breaker(START), 20, now=START).until == at(20)
    assert breaker.held(Breaker(START), 1e9, now=START).until == at(3600)
    assert breaker.held(Breaker(START), -5, now=START).until == at(1)
    longer = breaker.opened(Breaker(START), until=at(100), now=START)
    assert breaker.held(longer, 20, now=START).until == at(100)
    by_hand = breaker.opened(Breaker(START), until=None, now=START)
    assert breaker.held(by_hand, 20, now=START) is by_hand


def test_by_hand_it_stays_open_until_it_is_closed_by_hand() -> None:
    b = breaker.opened(Breaker(START), until=None, now=START)
    assert breaker.probing(b, now=at(1e9)) is b
    assert succeed(b, 5) is b
    assert fail(b, 5) is b
    assert breaker.closed(at(6)) == Breaker(at(6))


class Walks(RuleBasedStateMachine):
    """Any order of outcomes, and of what people do."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.breaker = Breaker(START)
        self.rng = Random(0)

    @rule(seconds=st.floats(0, 1000), age=st.floats(0, 2000))
    def an_attempt_fails(self, seconds: float, age: float) -> None:
        self.now += timedelta(seconds=seconds)
        started = self.now - timedelta(seconds=age)
        before = self.breaker
        self.breaker = breaker.failed(before, RULE, started_at=started, now=self.now, rng=self.rng)
        assert before.state != "open" or self.breaker is before
        assert self.breaker.places <= before.places

    @rule(seconds=st.floats(0, 1000), age=st.floats(0, 2000))
    def an_attempt_succeeds(self, seconds: float, age: float) -> None:
        self.now += timedelta(seconds=seconds)
        before = self.breaker
        started = self.now - timedelta(seconds=age)
        self.breaker = breaker.succeeded(before, RULE, started_at=started, now=self.now)
        # Only a probe leads out of `open`.
        assert before.state != "open" or self.breaker is before

    @rule()
    def time_comes(self) -> None:
        if self.breaker.until is not None:
            self.now = max(self.now, self.breaker.until)
        self.breaker = breaker.probing(self.breaker, now=self.now)
        assert self.breaker.state != "open" or self.breaker.is_by_hand

    @rule(wait_s=st.one_of(st.none(), st.floats(1, 1e5)))
    def somebody_opens(self, wait_s: float | None) -> None:
        until = None if wait_s is None else self.now + timedelta(seconds=wait_s)
        self.breaker = breaker.opened(self.breaker, until=until, now=self.now)

    @rule(wait_s=st.floats(-10, 1e9))
    def the_other_side_asks_for_rest(self, wait_s: float) -> None:
        self.breaker = breaker.held(self.breaker, wait_s, now=self.now)
        assert self.breaker.state == "open"

    @rule()
    def somebody_closes(self) -> None:
        self.breaker = breaker.closed(self.now)

    @invariant()
    def it_is_one_thing_at_a_time(self) -> None:
        b = self.breaker
        assert (b.state == "half_open") == (1 <= b.places <= breaker.MAX_PLACES)
        assert b.state == "open" or b.until is None
        assert b.state == "closed" or b.window_at is None
        assert 0 <= b.failures <= b.calls
        if b.state == "closed":
            assert b.openings == 0


TestWalks = Walks.TestCase
TestWalks.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
