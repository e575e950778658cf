"""Whether a worker hears its queues: one that was still for long is asked through its own. Pure."""

from __future__ import annotations

from dataclasses import dataclass

#: So many questions in a row must go unanswered: one message may get lost with a broker.
QUESTIONS = 2


@dataclass(frozen=True)
class Patience:
    """How long a worker may be still. Seconds."""

    still_s: float
    """Without any message for so long, it is asked."""
    answer_s: float
    """It has so long for each answer."""

    @classmethod
    def of(cls, still_s: float, beat_s: float) -> Patience:
        """Return the patience for workers that say every `beat_s` what they have taken."""
        return cls(still_s, max(still_s / 2, 3 * beat_s))


@dataclass(frozen=True)
class Pulse:
    """What a worker says of itself with each beat."""

    taken: int = 0
    """Messages that it has begun with, ever."""
    at_work: bool = False
    """It has not finished one of them: it need not take another."""
    connected: bool = True
    """It is not about to connect to its broker anew."""


@dataclass
class Ear:
    """What is remembered of one worker's hearing. Times are monotonic seconds."""

    proven_at: float
    """When it last took a message, or could not be expected to."""
    spread: float = 0.0
    """It is asked later by this share, or a fleet that began together would be asked together."""
    taken: int = 0
    questions: int = 0
    """How many it was asked since."""
    asked_at: float = 0.0

    def listen(self, pulse: Pulse, now: float) -> None:
        """Learn from a beat. Any message that was taken proves what an answer would."""
        if pulse.taken != self.taken or pulse.at_work or not pulse.connected:
            self.taken = pulse.taken
            self.excuse(now)

    def excuse(self, now: float) -> None:
        """Begin anew: it takes nothing on purpose, or the broker did not work either."""
        self.proven_at, self.questions = now, 0

    def is_due(self, patience: Patience, now: float) -> bool:
        """Tell whether it should be asked now; one that stays deaf is asked ever more seldom."""
        if self.questions == 0:
            return now - self.proven_at >= patience.still_s * (1 + self.spread)
        wait_s: float = patience.answer_s * 2 ** max(0, self.questions - QUESTIONS)
        return now - self.asked_at >= wait_s

    def asked(self, now: float) -> None:
        """Take note that the broker took a question for it."""
        self.questions += 1
        self.asked_at = now

    def is_deaf(self, patience: Patience, said_at: float) -> bool:
        """Tell whether it has not answered any of its questions in time.

        `said_at` is when it last beat: who does not even do that is not deaf but silent.
        """
        is_late = said_at - self.asked_at >= patience.answer_s
        return self.questions > QUESTIONS or (self.questions == QUESTIONS and is_late)


def beat_every(ttl_s: float, probe_s: float) -> float:
    """Return how often a worker beats: often enough to live, and to answer in time."""
    return min(5.0, ttl_s / 6, probe_s / 4 or 5.0)


def verdict(patience: Patience) -> str:
    """Say what is wrong with a deaf worker."""
    total_s = patience.answer_s * QUESTIONS
    return f"deaf: it took no message from its own queue within {total_s:g} s"
