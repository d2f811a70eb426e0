"""A proxy in front of PostgreSQL that cuts connections after the server has committed and before the reply arrives."""

from __future__ import annotations

import asyncio
import contextlib
import random
from types import TracebackType
from typing import Self

READY_IDLE = b"Z\x00\x00\x00\x05I"  # ReadyForQuery outside of a transaction: what was sent has been committed


COMMIT = b"INSERT INTO continuum_events"  # who prepares this is a committer


class _Connection:
    """What is known of one connection."""

    commits = False


class CuttingProxy:
    """Forwards bytes; a share of the committed answers to committers is swallowed, each time with its connection: `cuts_max` times, once armed. Left, the database is away; entered again, it is back at the same port."""

    def __init__(
        self, host: str, port: int, *, share: float, cuts_max: int, seed: int = 0, mark: bytes = COMMIT
    ) -> None:
        self._target = (host, port)
        self._mark = mark
        self._share = share
        self._draw = random.Random(seed)
        self.cuts = 0
        self.cuts_max = cuts_max
        self.is_armed = False
        self.port = 0
        self._server: asyncio.Server | None = None
        self._pipes: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for pipe in tuple(self._pipes):
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = self._target
        if host.startswith("/"):
            there_reader, there_writer = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        else:
            there_reader, there_writer = await asyncio.open_connection(host, port)
        connection = _Connection()
        there = asyncio.create_task(self._forward(reader, there_writer, connection))
        back = asyncio.create_task(self._answer(there_reader, writer, connection))
        self._pipes |= {there, back}
        try:
            await asyncio.wait([there, back], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (there, back):
                task.cancel()
                self._pipes.discard(task)
            for end in (writer, there_writer):
                end.close()

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: _Connection
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                connection.commits = connection.commits or self._mark in data
                writer.write(data)
                await writer.drain()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: _Connection
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                if connection.commits and data.endswith(READY_IDLE) and self._cuts_now():
                    return
                writer.write(data)
                await writer.drain()

    def _cuts_now(self) -> bool:
        if not self.is_armed:
            return False
        if self.cuts >= self.cuts_max or self._draw.random() >= self._share:
            return False
        self.cuts += 1
        return True
