"""Records golden histories: `python -m tests.golden.record [FEATURE ...]`; without a name, all of them.

A golden file is what runs in production look like. Recording it again says that such runs need not be continued any
more: keep the old file beside the new one (`signals.0.1.json` beside `signals.json`) unless that is so.
"""

import asyncio
import sys
from pathlib import Path

from continuum.testing import History, dump_history
from tests.golden.features import FEATURES, Feature

HISTORIES = Path(__file__).parent / "histories"


def file_of(feature: Feature, history: History) -> Path:
    """Return where a generation of a feature's run is kept: `timers.json`, or `endless-2.json`."""
    number = history.run.generation
    return HISTORIES / (f"{feature.name}.json" if number == 1 else f"{feature.name}-{number}.json")


async def main(names: list[str]) -> None:
    """Write the files of the named features."""
    unknown = set(names) - {feature.name for feature in FEATURES}
    if unknown:
        sys.exit(f"No such feature: {', '.join(sorted(unknown))}.")
    HISTORIES.mkdir(exist_ok=True)
    for feature in FEATURES:
        if not names or feature.name in names:
            for history in await feature.record():
                dump_history(history, file_of(feature, history))
                print(file_of(feature, history).name, len(history), "events")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
