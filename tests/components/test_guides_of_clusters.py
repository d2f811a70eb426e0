"""What the guides on clusters and deploying say is so."""

import re
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine

import continuum
from continuum.composition.options import INSTANCE, PARTS
from continuum.runtime import awaiting, peers, signing
from continuum.telemetry import EVENTS
from service.settings import Settings

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "guides"
CLUSTERING, DEPLOYING = (GUIDES / "clustering.md").read_text(), (GUIDES / "deploying.md").read_text()


def blocks(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


async def test_the_code_of_the_guides_runs(engine: AsyncEngine) -> None:
    app = FastAPI()
    names: dict[str, Any] = {"engine": engine, "app": app, "SECRET": "s3cret"}
    for block in (*blocks(CLUSTERING), *blocks(DEPLOYING)):
        exec(compile(block, "guide", "exec"), names)
    async with names["lifespan"](app):
        assert continuum.readiness(instance="orders").state == "ready"
    names["orders"].forget()


def test_the_worst_case_is_the_sum_that_the_guide_says() -> None:
    parts = {part.name: {option.name: option.default for option in part.options} for part in PARTS}
    (ttl,) = [option.default for option in INSTANCE if option.name == "lease_ttl"]
    worst = ttl + parts["recovery"]["interval"] + parts["dispatcher"]["interval"]
    assert f"| the owner has just died | {worst:g} s" in CLUSTERING
    assert "30 + 1 + 1" in CLUSTERING


@pytest.mark.parametrize(
    ("said", "is_so"),
    [
        ("older than thirty seconds", signing.WINDOW_SECONDS == 30),
        ("half a second, then longer, up to thirty", (peers.REST_SECONDS, peers.REST_MAX_SECONDS) == (0.5, 30)),
        ("leaves that URL alone for a minute", peers.SHARED_SECONDS == 60),
        ("every half second at most", awaiting.FIRST_SECONDS < 0.5),
    ],
)
def test_numbers_are_those_of_the_code(said: str, is_so: bool) -> None:
    assert said in " ".join(CLUSTERING.split())
    assert is_so


def test_every_event_and_reason_that_is_named_exists() -> None:
    named = set(re.findall(r"^\| (`[a-z]+\.[a-z_]+`(?:, `[a-z]+\.[a-z_]+`)*) \|", CLUSTERING, re.MULTILINE))
    events = {event for cell in named for event in re.findall(r"`([^`]+)`", cell)}
    assert len(events) >= 8
    assert events <= set(EVENTS)
    for reason in (*peers.Trouble, *signing.Refusal):
        assert f"`{reason.value if isinstance(reason, peers.Trouble) else reason.name.lower()}`" in CLUSTERING


def test_every_setting_of_the_service_is_listed() -> None:
    for name in Settings.model_fields:
        listed = f"`CONTINUUM_{name.upper()}" + ("__<name>`" if name == "tenants" else "`")
        assert listed in DEPLOYING, name
