"""The programs in tests/typing, as mypy and pyright see them: errors on the lines marked E, and on no others."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = sorted((ROOT / "tests" / "typing").glob("*.py"))
IGNORE = re.compile(r"  # type: ignore\[[^]]*\]")
MARK = re.compile(r"# E$", re.MULTILINE)

Place = tuple[str, int]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs without what keeps the checkers quiet."""
    folder = tmp_path_factory.mktemp("typing")
    for program in PROGRAMS:
        (folder / program.name).write_text(IGNORE.sub("", program.read_text()))
    return folder


def expected() -> set[Place]:
    return {
        (program.name, number)
        for program in PROGRAMS
        for number, line in enumerate(program.read_text().splitlines(), 1)
        if MARK.search(line)
    }


def told(found: dict[Place, str]) -> str:
    missing, surplus = expected() - set(found), set(found) - expected()
    return f"no error at {sorted(missing)}; unexpected: { {place: found[place] for place in sorted(surplus)} }"


def test_the_programs_hold_claims_of_both_kinds() -> None:
    for program in PROGRAMS:
        assert program.read_text().count("assert_type(") > 10
        assert any(name == program.name for name, _ in expected())


def test_mypy_agrees(programs: Path) -> None:
    pytest.importorskip("mypy", reason="the lint group is not installed here")
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--show-error-codes", "--no-pretty"),
            "--config-file",
            str(ROOT / "pyproject.toml"),
            "--cache-dir",
            str(ROOT / ".mypy_cache" / "typing"),
            str(programs),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stderr == ""
    found: dict[Place, str] = {}
    for line in ran.stdout.splitlines():
        match = re.match(r"(.+?):(\d+): error: (.*)", line)
        if match and Path(match[1]).name in {program.name for program in PROGRAMS}:
            found.setdefault((Path(match[1]).name, int(match[2])), match[3])

    assert set(found) == expected(), told(found)


def test_pyright_agrees(programs: Path) -> None:
    pytest.importorskip("pyright", reason="the lint group is not installed here")
    (programs / "pyrightconfig.json").write_text(
        json.dumps({"include": ["."], "extraPaths": [str(ROOT)], "typeCheckingMode": "strict", "pythonVersion": "3.11"})
    )
    ran = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "--project", str(programs)],
        cwd=programs,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout.startswith("{"), ran.stdout + ran.stderr
    found: dict[Place, str] = {}
    for diagnostic in json.loads(ran.stdout)["generalDiagnostics"]:
        if diagnostic["severity"] == "error":
            place = (Path(diagnostic["file"]).name, diagnostic["range"]["start"]["line"] + 1)
            found.setdefault(place, diagnostic["message"])

    assert set(found) == expected(), told(found)
