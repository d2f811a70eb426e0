"""What is asked once, before anything else; and notices, which belong to no table."""

from continuum.journal.sql.statements.book import Statement

NOW = Statement("now", "Ask for the database's time.", "SELECT {now} AS now")

SERVER = Statement(
    "opening.server",
    "Ask for the server's version and the schema in which unqualified tables are looked up.",
    "SELECT CAST(current_setting('server_version_num') AS integer) AS version, current_schema() AS schema",
    sqlite="",
)

HAS_TABLES = Statement(
    "opening.has_tables",
    "Ask whether the tables were ever created.",
    "SELECT to_regclass(:name) IS NOT NULL AS ready",
    sqlite="SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = :name) AS ready",
)

REVISION = Statement("opening.revision", "Ask for the schema's revision.", "SELECT version_num FROM {alembic_version}")

CLAIM_TABLES = Statement(
    "opening.claim_tables",
    "Let the tables belong to an instance, if they belong to nobody.",
    "INSERT INTO {instances} (name, created_at) VALUES (:name, {now}) ON CONFLICT DO NOTHING",
)

INSTANCE = Statement("opening.instance", "Ask which instance the tables belong to.", "SELECT name FROM {instances}")

RENAME = Statement(
    "opening.rename",
    "Let the tables belong to another instance name, while no process of the old one lives.",
    """
UPDATE {instances} SET name = :new
WHERE name = :old AND NOT EXISTS (SELECT 1 FROM {owners} WHERE expires_at > {now})
RETURNING name
""",
)

LIVING = Statement("opening.living", "Ask which nodes live.", "SELECT node FROM {owners} WHERE expires_at > {now}")

# At its commit a NOTIFY takes a lock on the whole database: never inside a batch.
NOTIFY = Statement(
    "notices.notify",
    "Tell whoever listens.",
    "SELECT pg_notify(:channel, p.payload) FROM unnest(CAST(:payloads AS text[])) AS p(payload)",
    sqlite="",
)
