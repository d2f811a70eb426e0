"""Who may write: the lease owners, one row per instance and process."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Owner:
    """`owner` is `node/instance/boot-id/counter`; never used twice."""

    owner: str
    instance: str
    node: str
    advertise_url: str | None = None
