"""Who runs a server, and the temporary directory in which it lives."""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from continuum.errors import ConfigurationError

_PREFIX = "continuum-pg-"
_ROOT_BYTES_MAX = 60  # a Unix socket's path has room for about 100 bytes, ours adds 40


@dataclass(frozen=True, slots=True)
class Account:
    """The user that a server runs as."""

    name: str
    user: int
    group: int

    @property
    def is_someone_else(self) -> bool:
        """Tell whether we have to become this user first (we are root then)."""
        return self.user != os.getuid()

    def can_reach(self, path: Path) -> bool:
        """Tell whether this user may enter every directory above a path and use the path itself."""
        return not self.is_someone_else or all(self._may_enter(each) for each in [path, *path.parents])

    def _may_enter(self, path: Path) -> bool:
        status = path.stat()
        shift = 6 if status.st_uid == self.user else 3 if status.st_gid == self.group else 0
        return bool((status.st_mode >> shift) & stat.S_IXOTH)

    def own(self, path: Path) -> None:
        """Give a file or a whole directory, made by us, to this user."""
        if self.is_someone_else:
            for each in [path, *path.rglob("*")]:
                os.chown(each, self.user, self.group, follow_symlinks=False)


def choose_account() -> Account:
    """Choose ourselves, or for root an unprivileged user that exists everywhere."""
    if os.getuid() != 0:
        return Account("ourselves", os.getuid(), os.getgid())
    for name in ("nobody", "postgres", "daemon"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise ConfigurationError("PostgreSQL refuses to run as root, and there is no user nobody: run as another user.")


@dataclass(frozen=True, slots=True)
class Place:
    """A private temporary directory, and the lock that tells other processes that its owner lives."""

    directory: Path
    lock: int

    def remove(self) -> None:
        """Remove the directory with everything in it."""
        shutil.rmtree(self.directory, ignore_errors=True)
        os.close(self.lock)


def make_place(account: Account) -> Place:
    """Make a directory for a server of this user, after removing those whose owners died without doing it."""
    roots = _temporary_roots()
    for owner in [found for root in roots for found in root.glob(f"{_PREFIX}*/owner")]:
        _remove_if_abandoned(owner)
    reachable = [root for root in roots if account.can_reach(root)]
    if not reachable:
        raise ConfigurationError(
            f"{account.name} cannot use {tempfile.gettempdir()}: set TMPDIR to a short path open to all."
        )
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=reachable[0]))
    account.own(directory)
    # The file gets its name once it is locked: another process that cleans up never meets it unlocked.
    lock = os.open(directory / "owner.new", os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    (directory / "owner.new").rename(directory / "owner")
    return Place(directory, lock)


def _temporary_roots() -> list[Path]:
    roots = [Path(tempfile.gettempdir()).resolve(), Path("/tmp")]  # noqa: S108 - mkdtemp makes a private one inside
    return [path for path in dict.fromkeys(roots) if path.is_dir() and len(str(path)) <= _ROOT_BYTES_MAX]


def _remove_if_abandoned(owner: Path) -> None:
    try:
        file = os.open(owner, os.O_RDWR)
    except OSError:
        return  # gone meanwhile, or another user's
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(owner.parent, ignore_errors=True)
    except OSError:
        return  # its owner lives
    finally:
        os.close(file)
