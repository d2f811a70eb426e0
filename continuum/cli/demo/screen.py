"""What is shown: lines as things happen, below them on a terminal a live picture of all orders, and at the end a table.

Without a terminal, or in CI, the picture is left out and its numbers come as lines, one per quarter of the work.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, Self

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from continuum.cli.demo.standing import Seen, Standing
from continuum.cli.demo.verify import Report, Verified
from continuum.clock import SystemClock
from continuum.model.states import RunState

PLAIN_COLUMNS = 100  # where nobody says how wide it is
PICTURE_COLUMNS = 4  # orders side by side
REFRESHES_PER_SECOND = 8
ACTIVITIES = ("validate", "charge", "ship", "notify", "refund")


def a_console() -> Console:
    """Return a console that is as wide as what it writes to."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_COLUMNS)


class Screen:
    """Lines with the time since the beginning, each printed once."""

    def __init__(self, console: Console, *, total: int) -> None:
        self._console = console
        self._total = total
        self._clock = SystemClock()
        self._began = self._clock.monotonic()
        self._names: Mapping[int, str] = {}
        self._dead: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Show no more than lines from now on."""

    def say(self, text: str) -> None:
        """Print a line."""
        seconds = self._clock.monotonic() - self._began
        self._print(f"{seconds:6.1f} s  {text}")

    def ready(self, names: Mapping[int, str]) -> None:
        """Take note of the nodes: their process ids and names."""
        self._names = names

    def died(self, node: str) -> None:
        """Take note of a death."""
        self._dead = node

    def heard(self, node: str, facts: Mapping[str, Any]) -> None:
        """Tell what a node has said, as far as it belongs to the story."""
        match facts["event"]:
            case "owner.dead":
                self.say(
                    f"{node}: the lease of {str(facts['owner']).partition('/')[0]} has passed, it is declared dead"
                )
            case "recovery.swept":
                self.say(
                    f"{node}: freed {facts['runs']} run(s) and {facts['tasks']} running activity(ies) of dead nodes"
                )
            case "dispatcher.claimed" if self._dead is not None:
                self.say(f"{node}: claimed {facts['runs']} run(s)")
            case "owner.lost":
                self.say(f"{node}: lost its lease and comes back under a new owner id")
            case "loop.crashed":
                self.say(f"{node}: {facts['loop']} failed and goes on: {facts['error']}")
            case _:
                pass

    def show(self, standing: Standing) -> None:
        """Show how the orders stand."""
        raise NotImplementedError

    def report(self, report: Report) -> None:
        """Print the table of orders, and what it comes to."""
        self.stop()
        self._console.print(_table(report, self._names))
        for problem in report.problems:
            self._print(f"PROBLEM: {problem}")
        for order in report.orders:
            for problem in order.problems:
                self._print(f"PROBLEM with order {order.order.number}: {problem}")
        ran = sum(runs.all for order in report.orders for runs in order.runs.values())
        on_purpose = sum(runs.on_purpose for order in report.orders for runs in order.runs.values())
        self._print(
            f"{report.verified} of {report.count} orders verified: the expected result, and each activity journaled once."
        )
        self._print(
            f"Activity functions ran {ran} times: {on_purpose} failed on purpose and were retried (r), "
            f"{report.repeats} were cut off by the kill and repeated (x)."
        )
        self._print(
            f"Taken over {_seconds(report.takeover_seconds)} after the SIGKILL (lease 3 s, looked at every second); "
            f"{report.runs_per_second:g} orders/s, waiting and outage included."
        )

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)


class PlainScreen(Screen):
    """For logs: a line per quarter."""

    def __init__(self, console: Console, *, total: int) -> None:
        super().__init__(console, total=total)
        self._quarters = 0

    def show(self, standing: Standing) -> None:
        """Print a line when another quarter has been done."""
        quarters = standing.performed * 4 // self._total
        if quarters > self._quarters:
            self._quarters = quarters
            holds = ", ".join(
                f"{name} {'(dead) ' if name == self._dead else ''}holds {len(standing.held_by(name))}"
                for name in sorted(self._names.values())
            )
            self.say(
                f"{standing.performed} of {self._total} activities performed; {holds}; {standing.ended} orders done"
            )


class LiveScreen(Screen):
    """For a terminal: the picture stays below the lines and is drawn again several times a second."""

    def __init__(self, console: Console, *, total: int) -> None:
        super().__init__(console, total=total)
        self._standing = Standing(())
        self._live: Live | None = Live(
            console=console,
            get_renderable=self._picture,
            refresh_per_second=REFRESHES_PER_SECOND,
            transient=True,
        )

    def __enter__(self) -> Self:
        assert self._live is not None, "a screen is used once"
        self._live.start()
        return self

    def stop(self) -> None:
        """Take the picture away."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def show(self, standing: Standing) -> None:
        """Draw this at the next refresh."""
        self._standing = standing

    def _picture(self) -> RenderableType:
        standing = self._standing
        progress = Table.grid(padding=(0, 1))
        progress.add_row(
            ProgressBar(total=self._total, completed=standing.performed, width=40),
            f"{standing.performed}/{self._total} activities, {standing.ended} orders done",
        )
        nodes = Text("  ").join([self._node(pid, name) for pid, name in self._names.items()])
        grid = Table.grid(padding=(0, 2))
        cells = [_cell(run) for run in standing.runs]
        for start in range(0, len(cells), PICTURE_COLUMNS):
            grid.add_row(*cells[start : start + PICTURE_COLUMNS])
        return Group("", progress, nodes, grid)

    def _node(self, pid: int, name: str) -> Text:
        if name == self._dead:
            return Text(f"{name} (pid {pid}) killed", style="bold red")
        return Text(f"{name} (pid {pid}) holds {len(self._standing.held_by(name))}", style="green")


def a_screen(console: Console, *, total: int) -> Screen:
    """Return the screen that fits what the console writes to."""
    is_live = console.is_terminal and not console.is_dumb_terminal and not os.environ.get("CI")
    make: Callable[..., Screen] = LiveScreen if is_live else PlainScreen
    return make(console, total=total)


def _cell(run: Seen) -> Text:
    done = ",".join(run.performed) or "new"
    last = done.rpartition(",")[2]
    text, style = f"{run.order.number:>2} {last:<9}{run.node or '':<7}", ""
    if run.state is RunState.COMPLETED:
        text, style = f"{run.order.number:>2} done     {'':<7}", "green"
    elif run.state.has_ended or run.state is RunState.BLOCKED:
        text, style = f"{run.order.number:>2} {run.state.value:<16}", "red"
    return Text(text, style=style)


def _table(report: Report, names: Mapping[int, str]) -> Table:
    table = Table(title="How often each activity ran", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("order", "outcome", "approved by", *ACTIVITIES, "nodes", "ok"):
        table.add_column(heading, justify="right" if heading in ("order", *ACTIVITIES) else "left", no_wrap=True)
    for order in report.orders:
        receipt = order.receipt
        table.add_row(
            str(order.order.number),
            receipt.outcome if receipt else "?",
            receipt.approved_by if receipt else "?",
            *(_times(order, name) for name in ACTIVITIES),
            ",".join(names.get(pid, str(pid)).removeprefix("node-") for pid in order.pids),
            Text("NO", style="bold red") if order.problems else Text("yes", style="green"),
        )
    return table


def _times(order: Verified, name: str) -> str:
    runs = order.runs.get(name)
    if runs is None:
        return ""
    return f"{runs.all}{'r' if runs.on_purpose else ''}{'x' if runs.repeats else ''}"


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f} s"
