"""A real PostgreSQL for tests, the demo and benchmarks, without a container, a service or an account.

`Server` makes a cluster in a temporary directory, runs the `postgres` binary itself as its child, and removes everything
at the end. It listens on a Unix socket in that directory, and on 127.0.0.1 when asked. PostgreSQL refuses to run as
root, so root's server runs as `nobody`; no user is created and no permission of an existing directory changed: when that
user cannot reach the binaries (a virtual environment below /root), they are copied into the temporary directory.

No orphan may stay behind, whatever happens to this process. On Linux the kernel tells the server (PR_SET_PDEATHSIG);
mind that it does so when the *thread* that called `start` or `restart` ends. Elsewhere a small watcher process notices
that its pipe to us was closed. What a killed process left on disk is removed by the next `start`.

    server (Server: the life of one cluster) > process (the child) | place (account, directory) | installation (binaries)
"""

from continuum.embedded_postgres.installation import Binaries, find_binaries
from continuum.embedded_postgres.server import Server

__all__ = ["Binaries", "Server", "find_binaries"]
