"""Folders to evaluate: a manifest.jsonl, one file a line, and when a phrase counts as found."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path
from typing import Any

# tags of files of which no phrase can be expected from a text layer
UNREADABLE = frozenset({"no-text", "encrypted"})
WITHOUT_TEXT = UNREADABLE | {"no-text-layer", "scanned"}
FORMATS = frozenset({"pdf", "docx", "pptx", "xlsx", "html", "md", "txt", "csv", "eml"})
PICTURES = frozenset({"png", "jpg", "tif", "webp", "gif", "heic"})
# invisible in print, so no part of a phrase: soft hyphen, zero-width, bidi marks, tatweel
INVISIBLE = re.compile("[\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\u0640]")


def manifest(folder: Path) -> list[dict[str, Any]]:
    """Read a folder's manifest.jsonl."""
    lines = (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def format_of(entry: dict[str, Any]) -> str:
    """Name the format of one line by its extension."""
    extension = str(entry["path"]).rsplit(".", 1)[-1].lower()
    return {"htm": "html", "tsv": "csv"}.get(extension, extension)


def has_text(entry: dict[str, Any]) -> bool:
    """Whether the file of one line has a text layer in a format that is read."""
    return format_of(entry) in FORMATS and not WITHOUT_TEXT & set(entry["tags"])


def is_read(entry: dict[str, Any]) -> bool:
    """Whether the file of one line has text that ingestion reads, by OCR where it has to.

    What is locked is read where the line tells the password.
    """
    tags = set(entry["tags"]) - ({"encrypted"} if entry.get("password") else set())
    return format_of(entry) in FORMATS | PICTURES and not UNREADABLE & tags


def is_wordless(entry: dict[str, Any]) -> bool:
    """Whether the file of one line is of a kind that is read, and has no word to find."""
    return format_of(entry) in FORMATS | PICTURES | {"svg"} and bool(
        {"no-text", "text-as-paths"} & set(entry["tags"])
    )


def is_heard(entry: dict[str, Any]) -> bool:
    """Whether the file of one line is a recording or a film."""
    return str(entry.get("mime")).startswith(("audio/", "video/"))


def path_of(folder: Path, entry: dict[str, Any]) -> Path:
    """Return the file of one line: paths are given from the folder, or from its parent."""
    path = folder / str(entry["path"])
    return path if path.exists() else folder.parent / str(entry["path"])


def fold(text: str) -> str:
    """Fold what a phrase is compared by: NFKC, case, white space, nothing invisible."""
    text = INVISIBLE.sub("", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(text.split())
