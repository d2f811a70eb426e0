"""Everything that can go wrong, drawn from the seed: how bad the weather is, and what hits which node when."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random

from msgspec import Struct

from continuum.clock import VirtualClock
from continuum.errors import JournalUnavailable
from continuum.journal.port import Ambiguous, Contended
from tests.simulation.world import LEASE_TTL, NAMES, Climate, Gate

MUTATING = frozenset(
    {"write", "claim_runs", "claim_tasks", "release_run", "register", "renew", "retire", "declare_dead", "sweep"}
)
NEVER = frozenset({"open"})


class Weather(Struct, frozen=True, kw_only=True, gc=False):
    """How likely what is: `delay` is the longest of a usual call in virtual seconds, the rest are chances per step."""

    delay: float = 0.02
    contended: float = 0.0
    unavailable: float = 0.0
    lost_question: float = 0.0  # ambiguous, and nothing happened
    lost_answer: float = 0.0  # ambiguous, and it happened
    late: float = 0.0  # ambiguous, and it happens while the sender is already asking again
    cut: float = 0.0  # an ambiguous answer is the beginning of a partition
    lost_notice: float = 0.0
    lost_nudge: float = 0.0
    crashes: int = 0
    freezes: int = 0
    cuts: int = 0
    restarts: int = 0  # orderly ones: drained, stopped, back again


def weather_of(seed: int) -> Weather:
    """Draw the weather of a seed: some days one thing goes wrong all the time, on others a little of everything does."""
    draw = Random(f"{seed}/weather")

    def perhaps(likely: float, most: float) -> float:
        return draw.uniform(0, most) if draw.random() < likely else 0.0

    return Weather(
        delay=draw.choice((0.002, 0.02, 0.1)),
        contended=perhaps(0.4, 0.2),
        unavailable=perhaps(0.4, 0.1),
        lost_question=perhaps(0.5, 0.1),
        lost_answer=perhaps(0.6, 0.15),
        late=perhaps(0.4, 0.1),
        cut=perhaps(0.5, 0.3),
        lost_notice=perhaps(0.5, 1.0),
        lost_nudge=perhaps(0.5, 0.7),
        crashes=draw.choice((0, 1, 1, 2, 3)),
        freezes=draw.choice((0, 1, 1, 2, 3)),
        cuts=draw.choice((0, 0, 1, 2)),
        restarts=draw.choice((0, 0, 1)),
    )


class Adversary:
    """Draws what happens; `calm()` ends it all."""

    def __init__(self, seed: int, weather: Weather, clock: VirtualClock, note: Callable[[str], None]) -> None:
        self.weather = weather
        self.clock = clock
        self.is_calm = False
        self.note = note
        self.draw = Random(f"{seed}/adversary")

    def chance(self, likely: float) -> bool:
        """Draw whether something happens."""
        return likely > 0 and not self.is_calm and self.draw.random() < likely

    def delay(self) -> float:
        """Draw how long a call takes one way: mostly next to nothing, seldom long."""
        if self.is_calm:
            return 0.001
        longest = self.weather.delay
        return self.draw.uniform(0, longest * (10 if self.draw.random() < 0.05 else 1))

    def hesitation(self) -> float:
        """Draw how long something in memory has to wait for its turn."""
        return self.draw.uniform(0, self.weather.delay) if self.chance(0.3) else 0.0

    def calm(self) -> None:
        """Let nothing go wrong any more."""
        self.is_calm = True

    def misfortunes(self, seconds: float) -> list[tuple[float, str, str, float]]:
        """Draw what hits which node when: (second, what, node, for how long), in order."""
        weather, draw = self.weather, self.draw
        drawn = []
        for what, count in (
            ("crash", weather.crashes),
            ("freeze", weather.freezes),
            ("cut", weather.cuts),
            ("restart", weather.restarts),
        ):
            for _ in range(count):
                lasts = draw.uniform(0.2, 2.5) * LEASE_TTL
                drawn.append((draw.uniform(0, seconds), what, draw.choice(NAMES), lasts))
        return sorted(drawn)


class NodeClimate(Climate):
    """The traffic between one node and the database."""

    def __init__(self, adversary: Adversary, label: str, gate: Gate) -> None:
        self._adversary = adversary
        self._label = label
        self._gate = gate
        self._cut_until = 0.0

    def cut(self, seconds: float) -> None:
        """Let no call through for a while."""
        self._cut_until = max(self._cut_until, self._adversary.clock.monotonic() + seconds)

    @property
    def is_cut(self) -> bool:
        """Whether nothing comes through."""
        return not self._adversary.is_calm and self._adversary.clock.monotonic() < self._cut_until

    async def before(self, step: str) -> None:
        """Stand between the node and the database, on the way there."""
        world, weather = self._adversary, self._adversary.weather
        if step in NEVER:
            return
        is_sent = step in MUTATING and world.chance(0.5)  # it is on the wire already when the node freezes or dies
        await self._travel(None if is_sent else self._gate.passed)
        if self.is_cut:
            raise JournalUnavailable("cut off")
        if step == "write" and world.chance(weather.contended):
            self._note("contended", step)
            raise Contended("somebody holds the lock")
        if world.chance(weather.unavailable):
            self._note("unavailable", step)
            raise JournalUnavailable("no connection")
        if step in MUTATING and world.chance(weather.lost_question):
            self._note("lost question", step)
            self._perhaps_cut()
            raise Ambiguous("the connection broke")

    async def after(self, step: str) -> None:
        """Stand there on the way back."""
        world, weather = self._adversary, self._adversary.weather
        if step in NEVER:
            return
        await self._travel(self._gate.passed)
        if self.is_cut:
            raise Ambiguous("cut off")
        if step in MUTATING and world.chance(weather.lost_answer):
            self._note("lost answer", step)
            self._perhaps_cut()
            raise Ambiguous("the connection broke")

    def lands_late(self) -> float | None:
        """Draw whether a write goes on in the database after its connection broke, and for how long."""
        if self._gate.is_shut or self.is_cut or not self._adversary.chance(self._adversary.weather.late):
            return None
        self._note("late", "write")
        return self._adversary.draw.uniform(0.0, 1.0)

    def loses_notice(self) -> bool:
        """Draw whether a hint gets lost."""
        return self.is_cut or self._adversary.chance(self._adversary.weather.lost_notice)

    def loses_nudge(self) -> bool:
        """Draw whether a nudge in the process gets lost."""
        return self._adversary.chance(self._adversary.weather.lost_nudge)

    async def _travel(self, arrive: Callable[[], Awaitable[None]] | None) -> None:
        await self._adversary.clock.sleep(self._adversary.delay())
        if arrive is not None:
            await arrive()

    def _perhaps_cut(self) -> None:
        if self._adversary.chance(self._adversary.weather.cut):
            seconds = self._adversary.draw.uniform(0.5, 2.0) * LEASE_TTL
            self._note("cut", f"{seconds:.3f}")
            self.cut(seconds)

    def _note(self, what: str, step: str) -> None:
        self._adversary.note(f"{self._label} ~ {what} {step}")
