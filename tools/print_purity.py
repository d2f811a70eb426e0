"""`python -m tools.print_purity FILE`: write the purity check's tables, from their source in code, into a guide."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from continuum.definitions.purity.rules import CALLS, CONSTRUCTS, PURE, SHARED, Kind, Rule

BEGIN, END = "<!-- printed by tools/print_purity.py -->", "<!-- end -->"
COMES = {Kind.DIVERGES: "error", Kind.REPEATS: "error; in unmarked helpers a warning", Kind.DOUBTFUL: "warning"}


def table() -> str:
    """Return what is forbidden, and what is allowed although its module is not."""
    lines = ["| what | why | instead | |", "| --- | --- | --- | --- |"]
    lines += [_row(rule, rule.names) for rule in CALLS]
    lines += [_row(rule, rule.names, " made outside of the workflow") for rule in SHARED]
    lines += [_row(rule, rule.names) for rule in CONSTRUCTS]
    lines += ["", "Allowed although its module is not: " + _listed(sorted(PURE)) + "."]
    return "\n".join(lines)


def _row(rule: Rule, names: Iterable[str], which: str = "") -> str:
    which += f" ({rule.unless})" if rule.unless is not None else ""
    return f"| {_listed(names)}{which} | {rule.why} | {rule.hint} | {COMES[rule.kind]} |"


def _listed(names: Iterable[str]) -> str:
    """Join names, those of one module by its name once: `pathlib.Path.open`, `.stat`."""
    listed: list[str] = []
    module = ""
    for name in names:
        home, _, last = name.rpartition(".")
        listed.append(f"`.{last}`" if home and home == module else f"`{name}`")
        module = home
    return ", ".join(listed)


def with_tables(text: str) -> str:
    """Return a guide with its tables as they are in code."""
    return re.sub(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}\n\n{table()}\n\n{END}", text, flags=re.DOTALL)


if __name__ == "__main__":
    guide = Path(sys.argv[1])
    guide.write_text(with_tables(guide.read_text()))
