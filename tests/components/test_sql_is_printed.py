"""`docs/sql` shows what the journal really does."""

from pathlib import Path

import pytest

from continuum.journal.sql.dialects import Dialect
from tools.print_sql import DIALECTS, modules, printed, statements_of

DOCS = Path(__file__).parents[2] / "docs" / "sql"


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_the_printed_statements_are_those_of_the_code(dialect: Dialect) -> None:
    assert (DOCS / f"{dialect.name}.sql").read_text() == printed(dialect), "run: make sql"


def test_every_statement_has_a_name_of_its_own_and_a_sentence_about_it() -> None:
    statements = [statement for module in modules() for statement in statements_of(module)]
    names = [statement.name for statement in statements]
    assert len(names) > 50
    assert len(set(names)) == len(names)
    assert all(statement.doc.endswith(".") for statement in statements)
