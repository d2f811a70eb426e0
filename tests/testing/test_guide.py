"""The blocks of the guide *Testing*, written into the files that they name and run by pytest, as a reader would."""

import re
import subprocess
import sys
from pathlib import Path

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "guides" / "testing.md").read_text()
BLOCKS = re.findall(r"```python (\S+)\n(.*?)```", GUIDE, re.DOTALL)


def test_the_guide_runs(tmp_path: Path) -> None:
    assert len(BLOCKS) == len(re.findall("```python", GUIDE))
    files: dict[str, str] = {}
    for name, block in BLOCKS:
        files[name] = files.get(name, "") + block
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\nfilterwarnings = error\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:schemathesis", "-p", "no:xdist"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{files['test_shop.py'].count('def test_')} passed" in done.stdout
