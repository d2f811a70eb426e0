"""What the journals' suite asks of concurrency and ambiguous answers, asked through PgBouncer.

The whole suite is: `make matrix`, or CONTINUUM_TEST_PGBOUNCER=1 pytest tests/journal -k postgres.
"""

from tests.journal.test_ambiguity import *  # noqa: F403
from tests.journal.test_concurrency import *  # noqa: F403

pytestmark = []  # type: ignore[assignment]  # not theirs
