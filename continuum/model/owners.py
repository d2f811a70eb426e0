"""Who may write: the lease owners, one row per instance and process."""

from msgspec import Struct


class Owner(Struct, frozen=True, gc=False):
    """`owner` is `node/instance/boot-id/counter`; never used twice."""

    owner: str
    instance: str
    node: str
    advertise_url: str | None = None
