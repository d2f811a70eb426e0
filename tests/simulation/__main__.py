"""`python -m tests.simulation --seed 123 -v`: run one seed, or many, and print what happened."""

from __future__ import annotations

import argparse
import sys

from tests.simulation.running import simulate


def main() -> int:
    """Run the seeds that were asked for; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the (first) seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many, counting up")
    parser.add_argument("-v", "--verbose", action="store_true", help="print the log: every write with its virtual time")
    parser.add_argument("--digest", action="store_true", help="print the hash of each log")
    options = parser.parse_args()
    failed = 0
    for seed in range(options.seed, options.seed + options.seeds):
        outcome = simulate(seed)
        if options.verbose:
            print(*outcome.lines, sep="\n")
        if options.digest:
            print(f"{seed} {outcome.digest}")
        if outcome.violations:
            failed += 1
            print(outcome.report())
        elif options.verbose or options.seeds == 1:
            print(
                f"seed {seed}: {outcome.states}, {outcome.virtual_seconds:.0f} virtual s in {outcome.real_seconds:.2f} s",
                file=sys.stderr,
            )
    if options.seeds > 1:
        print(f"{options.seeds} seeds, {failed} failed", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
