"""What is optional is optional: the API without an SDK, and nothing at all."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WITHOUT = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if any(name == one or name.startswith(one + ".") for one in {blocked!r}):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
{then}
"""
RUN = """
import asyncio, continuum, continuum.otel

@continuum.activity
async def add(n: int) -> int:
    return n + 1

@continuum.workflow
async def flow(n: int) -> int:
    return await add(n)

async def main():
    continuum.otel.setup()
    async with continuum.application():
        print(await (await continuum.start(flow, 1)).result(timeout=30))

asyncio.run(main())
"""
IMPORT = """
import continuum
try:
    import continuum.otel
except ModuleNotFoundError as error:
    print(error)
"""


def without(blocked: list[str], then: str) -> str:
    code = WITHOUT.format(blocked=blocked, then=then)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_api_is_enough_and_an_sdk_is_the_hosts() -> None:
    assert without(["opentelemetry.sdk", "prometheus_client"], RUN) == "2"


def test_a_router_needs_no_prometheus() -> None:
    then = "import continuum.http; print([r for r in continuum.http.router().routes if r.path.endswith('metrics')])"
    assert without(["prometheus_client"], then) == "[]"


def test_without_the_api_it_is_said_what_to_install() -> None:
    assert "continuum-durable[otel]" in without(["opentelemetry"], IMPORT)
