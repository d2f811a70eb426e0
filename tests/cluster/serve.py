"""`python -m tests.cluster.serve FD FACTORY`: one uvicorn server on a socket that the parent has bound.

Not `uvicorn --fd`, which takes every socket for a Unix one, and so leaves Nagle's algorithm on: 40 ms per answer.
"""

from __future__ import annotations

import socket
import sys

import uvicorn

GRACE_SECONDS = 10


def main() -> None:
    """Serve until told to end."""
    config = uvicorn.Config(
        sys.argv[2], factory=True, access_log=False, timeout_graceful_shutdown=GRACE_SECONDS, log_level="warning"
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(sys.argv[1]))])


if __name__ == "__main__":
    main()
