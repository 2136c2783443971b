"""Removes what nobody will come back for: temporary files, expired uploads, orphaned versions."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from narwhal.local.storage.callers import service_caller
from narwhal.local.storage.context import Context
from narwhal.local.storage.database import Session, lock_key
from narwhal.local.storage.errors import StorageError
from narwhal.local.storage.files import Note
from narwhal.local.storage.rows import select_object

log = logging.getLogger(__name__)


class Sweeper:
    """Sweeps when the API starts, then every `interval` seconds."""

    def __init__(self, context: Context, interval: float) -> None:
        self.context = context
        self.interval = interval

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Sweep in the background for as long as the block runs."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def sweep(self) -> None:
        """Sweep once."""
        context = self.context
        await asyncio.to_thread(context.files.sweep_temps)
        context.uploads.sweep()
        for note in await asyncio.to_thread(context.files.leftovers):
            await self._settle(note)

    async def _run(self) -> None:
        while True:
            try:
                await self.sweep()
            except (OSError, StorageError) as error:
                log.warning("Sweeping the stored files failed, and will be tried again: %s", error)
            await asyncio.sleep(self.interval)

    async def _settle(self, note: Note) -> None:
        """Delete the files of a note's keys that their rows do not name."""
        service = service_caller(self.context.config.service_role_key)
        session = Session(
            self.context.pool, service, service, headers={}, operation="storage.sweep"
        )
        for key in note.keys:
            # inside the key's lock: whoever commits a version now waits, with its file marked busy
            async with session.transaction() as cursor:
                await lock_key(cursor, note.bucket, key)
                row = await select_object(cursor, note.bucket, key)
                version = None if row is None else row["version"]
                await asyncio.to_thread(self.context.files.keep_only, note.bucket, key, version)
        note.path.unlink(missing_ok=True)
