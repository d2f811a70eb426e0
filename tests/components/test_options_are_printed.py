"""The option reference is what the code says."""

from pathlib import Path

from tools.print_options import reference

PAGE = Path(__file__).resolve().parents[2] / "docs" / "options.md"


def test_the_option_reference_is_up_to_date() -> None:
    assert PAGE.read_text() == reference(), "run: python -m tools.print_options docs/options.md"
