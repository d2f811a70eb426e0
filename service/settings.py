"""What the environment says. Continuum reads none of it by itself: a host does, and passes options on."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from continuum.tenants import Tenant, of_entries


class Settings(BaseSettings):
    """All settings; each is `CONTINUUM_` and its name in capitals, tenants are `CONTINUUM_TENANTS__<name>`."""

    model_config = SettingsConfigDict(env_prefix="CONTINUUM_", env_nested_delimiter="__")

    tenants: dict[str, Tenant] = Field(
        min_length=1, description="Instance name → database URL: CONTINUUM_TENANTS__orders=postgresql+asyncpg://…"
    )
    workflows: str = Field("service.workflows", pattern=r"^\w([\w., ]*\w)?$", description="Modules, by commas.")
    node: str | None = Field(default=None, description="This node's name in leases; default: the host's name.")
    migrations: Literal["check", "upgrade", "off"] = "check"
    log_format: Literal["console", "json"] = "console"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    lease_ttl: float = Field(default=30.0, gt=0, description="Seconds until a dead node's runs are taken over.")
    drain_timeout: float = Field(default=10.0, gt=0, description="Seconds that a stop waits for what is under way.")
    advertise_url: str | None = Field(
        default=None,
        description="Where other nodes reach this process, with the prefix: http://10.0.0.5:8000/continuum",
    )
    peer_secret: SecretStr | None = Field(
        default=None, description="Shared by all nodes. Two, separated by a comma, to rotate: the first signs."
    )
    api_token: SecretStr | None = Field(
        default=None, description="Clients must send it as a bearer token; default: none."
    )

    @field_validator("tenants", mode="before")
    @classmethod
    def _as_written(cls, entries: Any) -> Any:
        """Read what `continuum migrate --all-tenants` reads."""
        return of_entries(entries, "the environment")

    @property
    def peer_secrets(self) -> list[str] | None:
        """The peer secrets, the signing one first."""
        if self.peer_secret is None:
            return None
        return [secret.strip() for secret in self.peer_secret.get_secret_value().split(",")]
