"""The inbox: what a real server would send by mail is kept as files for the owner of the stack."""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import anyio.to_thread

KEPT = 1000  # newest messages; older ones are removed

SUBJECTS = {
    "signup": "Confirm your e-mail address",
    "invite": "You have been invited",
    "magiclink": "Your sign-in link",
    "recovery": "Reset your password",
    "email_change": "Confirm your new e-mail address",
    "reauthentication": "Confirm that it is you",
}


@dataclass(frozen=True)
class Mail:
    """One message. `link` opens GET /verify; `otp` is the code to type instead."""

    to: str
    type: str
    otp: str
    token_hash: str
    link: str
    redirect_to: str

    @property
    def subject(self) -> str:
        """The line that a mail program shows."""
        return SUBJECTS[self.type]


class Inbox:
    """A folder (mode 0700) with one JSON file (mode 0600) a message, named by time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def put(self, mail: Mail) -> None:
        """Keep a message; whoever may read the folder can act as its recipient."""
        await anyio.to_thread.run_sync(self._write, mail)

    def _write(self, mail: Mail) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        now = datetime.now(UTC)
        content = {
            "id": str(uuid.uuid4()),
            "created_at": now.isoformat(),
            "subject": mail.subject,
            **asdict(mail),
        }
        path = self.folder / f"{now:%Y%m%dT%H%M%S.%fZ}-{uuid.uuid4().hex[:8]}.json"
        partial = path.with_suffix(".partial")  # readers look for .json only
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=2)
        partial.rename(path)
        for old in sorted(self.folder.glob("*.json"))[:-KEPT]:
            old.unlink(missing_ok=True)
