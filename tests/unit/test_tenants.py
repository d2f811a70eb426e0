"""Which tenants there are: a file, the environment, and what is said of an entry that cannot be read."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from continuum.errors import ConfigurationError
from continuum.tenants import Tenant, configured, of_environment, tenant
from service.settings import Settings

PG = "postgresql+asyncpg://me:secret@db/app"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inner = tmp_path / "src" / "inner"
    inner.mkdir(parents=True)
    return inner


def write(folder: Path, text: str) -> None:
    (folder.parents[1] / "pyproject.toml").write_text(text)


def test_the_nearest_file_above_names_them(folder: Path) -> None:
    write(folder, f'[tool.continuum.tenants]\norders = "{PG}"\nbilling = {{ url = "{PG}", schema = "b" }}\n')
    assert configured({}, folder=folder) == {"billing": Tenant("billing", PG, "b"), "orders": Tenant("orders", PG)}
    (folder.parent / "pyproject.toml").write_text("[project]\n")  # the nearest one counts, whatever is in it
    assert configured({}, folder=folder) == {}


def test_the_environment_replaces_a_tenant_of_the_file_whole(folder: Path) -> None:
    write(folder, f'[tool.continuum.tenants]\norders = {{ url = "{PG}", schema = "o" }}\nbilling = "{PG}"\n')
    found = configured({"CONTINUUM_TENANTS__orders": "sqlite+aiosqlite:///o.db"}, folder=folder)
    assert found == {"billing": Tenant("billing", PG), "orders": Tenant("orders", "sqlite+aiosqlite:///o.db")}


ENVIRONMENTS: list[Mapping[str, str]] = [
    {"CONTINUUM_TENANTS__orders": PG, "CONTINUUM_TENANTS__billing": "sqlite+aiosqlite:///b.db"},
    {"CONTINUUM_TENANTS__ORDERS": PG, "continuum_tenants__Billing": PG},
    {"CONTINUUM_TENANTS__billing__url": PG, "CONTINUUM_TENANTS__billing__schema": "b", "CONTINUUM_TENANTS__x": PG},
    {"CONTINUUM_TENANTS": f'{{"orders": "{PG}", "Billing": {{"url": "{PG}", "schema": "b"}}}}'},
    {"CONTINUUM_TENANTS": f'{{"orders": "{PG}"}}', "CONTINUUM_TENANTS__billing": PG},
]


@pytest.mark.parametrize("environ", ENVIRONMENTS, ids=str)
def test_the_service_reads_the_same_tenants(environ: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    settings = Settings()  # type: ignore[call-arg]
    assert settings.tenants == of_environment(environ)
    assert len(settings.tenants) >= 2


def test_an_unknown_tenant_is_answered_with_those_that_there_are(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"'nobody'. Known: a, b; write \[tool.continuum.tenants\]"):
        tenant("nobody", {"CONTINUUM_TENANTS__b": PG, "CONTINUUM_TENANTS__a": PG}, folder=folder)
    with pytest.raises(ConfigurationError, match="Known: none"):
        tenant("nobody", {}, folder=folder)
    assert tenant("a", {"CONTINUUM_TENANTS__a": PG}, folder=folder) == Tenant("a", PG)


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(Tenant("a", PG))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tool.continuum.tenants]\na = 7\n", "tenant 'a' of .*pyproject.toml must be a URL, or have a url"),
        ('[tool.continuum.tenants]\na = ""\n', "tenant 'a'"),
        ('[tool.continuum.tenants]\na = { schema = "s" }\n', "tenant 'a'"),
        ('[tool.continuum.tenants]\na = { url = "u", scheme = "s" }\n', "tenant 'a'"),
        ('[tool.continuum.tenants]\n"a b" = "u"\n', "letters, digits"),
        ('[tool.continuum]\ntenants = ["u"]\n', "must map tenants' names to URLs, not be list"),
        ("[tool.continuum", "cannot be read"),
    ],
)
def test_an_entry_that_cannot_be_read_is_named(folder: Path, text: str, said: str) -> None:
    write(folder, text)
    with pytest.raises(ConfigurationError, match=said):
        configured({}, folder=folder)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"CONTINUUM_TENANTS": "orders"}, "not JSON"),
        ({"CONTINUUM_TENANTS": "[1]"}, "must map tenants"),
        ({"CONTINUUM_TENANTS__a__schema": "s"}, "tenant 'a' of the environment"),
        ({"CONTINUUM_TENANTS__a": PG, "CONTINUUM_TENANTS__a__schema": "s"}, "twice.*CONTINUUM_TENANTS__a__url"),
    ],
)
def test_a_variable_that_cannot_be_read_is_named(folder: Path, environ: Mapping[str, str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        configured(environ, folder=folder)
