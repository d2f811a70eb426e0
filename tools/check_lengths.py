"""Keeps files and functions of the library short: `python tools/check_lengths.py`.

A file holds one concept, a function is a screen. What is better long carries `# long: <reason>`, on the first line of
the file or on the line of its `def`.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("continuum", "migrations", "service")
FILE_LINES_MAX = 400  # past this a second concept is hiding in the file
FUNCTION_LINES_MAX = 60  # past this either the control flow or the data wants a name
REASON = "# long: "


def too_long(path: Path) -> Iterator[str]:
    """Yield a complaint for the file and for each function that is over its limit without a reason."""
    text = path.read_text()
    lines = text.splitlines()
    where = path.relative_to(ROOT)
    if len(lines) > FILE_LINES_MAX and REASON not in lines[0]:
        yield f"{where}: {len(lines)} lines, the limit is {FILE_LINES_MAX}"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES_MAX and REASON not in lines[node.lineno - 1]:
                yield f"{where}:{node.lineno}: {node.name} has {length} lines, the limit is {FUNCTION_LINES_MAX}"


def main() -> int:
    """Print every complaint; return the exit code."""
    files = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    complaints = [complaint for path in files for complaint in too_long(path)]
    for complaint in complaints:
        print(complaint)
    print(f"Lengths: {len(files)} files, {len(complaints)} too long.")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
