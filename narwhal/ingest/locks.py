"""Opening Office documents that are locked with a password; PDFs open theirs in `extractors.pdf`.

What is unlocked stays in memory: the reading process may not write.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import BinaryIO

from narwhal.ingest.document import ReadError

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def unlocked(file: BinaryIO, passwords: Sequence[str] = ()) -> BinaryIO:
    """The file itself, or a copy without its lock when one of the passwords opens it.

    Raises ReadError `encrypted` when none does.
    """
    is_ole = file.read(len(_OLE)) == _OLE
    file.seek(0)
    if not is_ole:
        return file
    # Imported late: a file of this kind is rare.
    import msoffcrypto  # type: ignore[import-untyped]

    try:
        office = msoffcrypto.OfficeFile(file)
        is_locked = bool(office.is_encrypted())
    except Exception:  # broken, or no document: its reader tells what is wrong
        return file
    finally:
        file.seek(0)
    if not is_locked:
        return file
    for password in passwords:
        opened = io.BytesIO()
        try:
            office.load_key(password=password, verify_password=True)
            office.decrypt(opened)
        except MemoryError:
            raise
        except Exception:  # what it raises for a wrong password depends on the kind of lock
            file.seek(0)
            continue
        opened.seek(0)
        return opened
    raise ReadError("encrypted", locked("document", passwords))


def locked(what: str, passwords: Sequence[str]) -> str:
    """What to tell the owner of a file that stays locked."""
    if passwords:
        return f"The {what} is locked, and none of the passwords that were given opens it."
    return f"The {what} is locked with a password."
