"""What a file is: its first bytes decide, its name breaks ties, and disguised programs are refused.

The caller's MIME type is only ever a hint: browsers derive it from the name.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from narwhal.ingest.document import ReadError
from narwhal.ingest.media_types import (
    DEMUXERS,
    EXTENSIONS,
    MAGIC,
    MEDIA,
    MIMES,
    OFFICE,
    OLE_STREAMS,
    OPEN_DOCUMENTS,
    PICTURES,
    PROGRAMS,
    TEXTS,
)
from narwhal.ingest.text import find_charset

_HEAD = 64 * 1024


@dataclass(frozen=True)
class Detected:
    """A file's MIME type by content, the extractor that reads it, and a text's encoding.

    `format` is a key of `narwhal.ingest.extractors.FORMATS`, or None where nothing reads such
    files yet: the file is stored, and its version becomes `skipped`.
    """

    mime: str
    format: str | None
    charset: str | None = None


_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_OLE_STORAGE = "application/x-ole-storage"
_OLD_SHEET = re.compile(rb"\x09[\x00\x02\x04][\x04\x06]\x00")  # Excel 2 to 4
_ZIP_TAIL = 22 + 65_535  # the end of an archive, with the longest comment
_MOST_DIRECTORY = 8 * 1024 * 1024  # bytes: over 100,000 members, more than any document has
_BRANDS = {
    b"heic": "image/heic",
    b"heix": "image/heic",
    b"mif1": "image/heif",
    b"avif": "image/avif",
    b"M4A ": "audio/mp4",
    b"M4B ": "audio/mp4",
    b"qt  ": "video/quicktime",
}
_RIFF = {b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo", b"WEBP": "image/webp"}
_PACKERS: dict[str, Callable[[BinaryIO], Any]] = {
    "application/gzip": lambda file: gzip.GzipFile(fileobj=file),
    "application/x-bzip2": bz2.BZ2File,
    "application/x-xz": lzma.LZMAFile,
}
_CONTROLS = bytes(byte for byte in range(32) if byte not in b"\t\n\x0b\x0c\r\x1b")

_HTML = re.compile(
    r"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.{0,4096}?-->\s*)*"
    r"<(?:!doctype\s+html|html|head|body|title|meta|table|div|script|p|h1)\b",
    re.IGNORECASE | re.DOTALL,
)
_XHTML = re.compile(r"\s*(?:<\?xml[^>]*>\s*)?<(?:!doctype\s+html|html)\b", re.IGNORECASE)
_SVG = re.compile(
    r"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.{0,4096}?-->\s*|<!DOCTYPE.{0,8192}?(?:\]\s*)?>\s*)*<svg\b",
    re.IGNORECASE | re.DOTALL,
)
_FLAT = re.compile(r'<office:document\b[^>]{0,8192}?\boffice:mimetype="([\w./-]+)"')
_MAIL = re.compile(rb"(?:[!-9;-~]+:[^\n]*\n(?:[ \t][^\n]*\n)*){2,}", re.IGNORECASE)
_MAIL_FIELDS = re.compile(
    rb"^(?:from|to|subject|date|message-id|received|mime-version):", re.I | re.M
)
_PDF_PARTS = re.compile(rb"\d+\s+\d+\s+obj\b|\bendobj\b|\bstartxref\b")


def detect(path: Path, name: str, declared_mime: str | None = None) -> Detected:
    """Find out what the file at `path`, uploaded as `name`, is.

    Raises ReadError: `magic_mismatch` for a program under a document's or medium's name,
    `corrupt` for an empty or broken file of a format that cannot be empty, `encrypted` for an
    Office document that is locked with a password (`narwhal.ingest.locks` opens it).
    """
    with path.open("rb") as file:
        return detect_file(file, name, declared_mime)


def detect_file(file: BinaryIO, name: str, declared_mime: str | None = None) -> Detected:
    """Like `detect`, for an open, seekable file; leaves it at its start."""
    file.seek(0)
    head = file.read(_HEAD)
    file.seek(0)
    extension = PurePosixPath(name.strip().lower()).suffix.removeprefix(".")
    promised = EXTENSIONS.get(extension) or _by_mime(declared_mime, extension)
    if not head:
        if promised in TEXTS:
            return Detected(MIMES[promised], promised, "utf-8")
        if promised:
            raise ReadError("corrupt", "The file is empty.")
        return Detected(MEDIA.get(extension, "application/octet-stream"), None)

    program = _program(head)
    if program:
        return _refuse_disguise(program, promised, extension)
    if head.startswith(b"%PDF-") or (b"%PDF-" in head[:1024] and promised not in TEXTS):
        return Detected(MIMES["pdf"], "pdf")
    if head.startswith(b"{\\rtf"):
        return Detected(MIMES["rtf"], "rtf")
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")):
        return _zip(file, promised, extension)
    if head.startswith(_OLE):
        return _ole(file, head, promised, extension)
    for magic, mime in MAGIC:
        if head.startswith(magic) and not (promised in TEXTS and _is_text(head)):
            return _medium(file, _kind(head, mime))
    if promised == "xls" and _OLD_SHEET.match(head):
        return Detected(MIMES["xls"], "xls")
    container = _container(head, extension)
    if container:
        return _medium(file, container)
    return _text_or_unknown(file, head, promised, extension)


def _by_mime(mime: str | None, extension: str) -> str | None:
    """The format that the declared type promises, where the name promises nothing."""
    if not mime or extension in MEDIA:
        return None
    plain = mime.partition(";")[0].strip().lower()
    for known, its_mime in MIMES.items():
        if its_mime == plain:
            # `text/plain` is what clients say of any source code: the content decides then.
            return known
    return None


def _program(head: bytes) -> str | None:
    if head.startswith(b"MZ") and b"\x00" in head:
        return "application/vnd.microsoft.portable-executable"
    for magic, mime in PROGRAMS:
        if head.startswith(magic):
            return mime
    if re.match(rb"(?:\xef\xbb\xbf)?#!\s*/", head):
        return "text/x-script"
    return None


def _refuse_disguise(program: str, promised: str | None, extension: str) -> Detected:
    """Refuse a program that is named like a document; one that says what it is, is only skipped."""
    disguised = promised is not None or extension in MEDIA
    if program == "text/x-script" and (promised in TEXTS or not disguised):
        # A script is text, and is read as such under any name that does not deny it.
        kind = promised or "text"
        return Detected(MIMES[kind], kind, "utf-8")
    if not disguised:
        return Detected(program, None)
    raise ReadError(
        "magic_mismatch", f"The file is named .{extension}, but it is a program ({program})."
    )


def _zip(file: BinaryIO, promised: str | None, extension: str) -> Detected:
    """Tell Office documents from other archives by the parts inside."""
    is_whole = True
    try:
        _check_directory(file)
        with zipfile.ZipFile(file) as archive:
            names = {name.lower().lstrip("/") for name in archive.namelist()}
            mimetype = ""
            if "mimetype" in names:
                with archive.open("mimetype") as member:
                    mimetype = member.read(200).decode("ascii", errors="replace").strip()
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, OSError, KeyError):
        names, mimetype, is_whole = set(), "", False
        if promised in OFFICE:
            raise ReadError("corrupt", "The file is damaged: it is no complete archive.") from None
    finally:
        file.seek(0)
    office = _office(names) or _open_document(mimetype)
    if mimetype == MIMES["epub"] or (promised == "epub" and "meta-inf/container.xml" in names):
        office = "epub"
    if office:
        return Detected(MIMES[office], office)
    if "classes.dex" in names or "meta-inf/manifest.mf" in names:
        return _refuse_disguise("application/java-archive", promised, extension)
    if promised in OFFICE:
        raise ReadError("corrupt", f"The file is named .{extension}, but holds no such document.")
    mime = mimetype if re.fullmatch(r"[\w.+-]+/[\w.+-]+", mimetype) else MIMES["zip"]
    return Detected(mime, "zip" if is_whole else None)


def _check_directory(file: BinaryIO) -> None:
    """Raise BadZipFile when the list of members is too long to be read: each costs memory."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _ZIP_TAIL))
    tail = file.read()
    end = tail.rfind(b"PK\x05\x06")
    if end >= 0 and int.from_bytes(tail[end + 12 : end + 16], "little") > _MOST_DIRECTORY:
        raise zipfile.BadZipFile("the directory is too long")


def _office(names: set[str]) -> str | None:
    if "[content_types].xml" not in names and "_rels/.rels" not in names:
        return None
    for folder, kind in (("word/", "docx"), ("ppt/", "pptx"), ("xl/", "xlsx")):
        if any(name.startswith(folder) and name.endswith(".xml") for name in names):
            return kind
    return None


def _open_document(mime: str) -> str | None:
    """The format of an OpenDocument file of that type."""
    word = mime.removeprefix("application/vnd.oasis.opendocument.")
    return None if word == mime else OPEN_DOCUMENTS.get(word.removesuffix("-template"))


def _ole(file: BinaryIO, head: bytes, promised: str | None, extension: str) -> Detected:
    """Tell the documents of older Office programs, and Outlook's mail, by the streams inside."""
    # Imported late: a file of this kind is rare.
    import olefile

    try:
        with olefile.OleFileIO(file) as archive:
            names = {"/".join(path).lower() for path in archive.listdir()}
    except Exception:  # a broken archive may fail in any way
        names = set()
    finally:
        file.seek(0)
    if "encryptedpackage" in names or "EncryptedPackage".encode("utf-16-le") in head:
        raise ReadError("encrypted", "The document is locked with a password.")
    for name, kind in OLE_STREAMS.items():
        if name in names:
            return Detected(MIMES[kind], kind)
    if promised in OFFICE:
        raise ReadError("corrupt", f"The file is named .{extension}, but holds no such document.")
    return Detected(_OLE_STORAGE, None)


def _is_packed_tar(file: BinaryIO, mime: str) -> bool:
    """Whether a compressed file holds a tar archive."""
    opener = _PACKERS.get(mime)
    if opener is None:
        return False
    try:
        with opener(file) as unpacked:
            return bool(unpacked.read(512)[257:262] == b"ustar")
    except (OSError, EOFError, lzma.LZMAError, zlib.error):
        return False
    finally:
        file.seek(0)


def _medium(file: BinaryIO, mime: str) -> Detected:
    """What is recognised by its mark: a picture, sound, an archive, or nothing that is read."""
    if mime in PICTURES:
        return Detected(mime, "image")
    if mime in DEMUXERS:
        return Detected(mime, mime.partition("/")[0])
    return Detected(mime, "tar" if mime == MIMES["tar"] or _is_packed_tar(file, mime) else None)


def _kind(head: bytes, mime: str) -> str:
    """Tell the web's kind of Matroska from the others: it says so among its first values."""
    return "video/webm" if mime == MEDIA["mkv"] and b"webm" in head[:64] else mime


def _container(head: bytes, extension: str) -> str | None:
    """Media whose mark does not stand at the very start."""
    if head[4:8] == b"ftyp":
        plain = MEDIA["m4a"] if MEDIA.get(extension) == MEDIA["m4a"] else MEDIA["mp4"]
        return _BRANDS.get(head[8:12], plain)
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12], "application/octet-stream")
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "audio/aiff"
    if head[:1] == b"\xff" and head[1:2] in (b"\xfb", b"\xfa", b"\xf3", b"\xf2"):
        return "audio/mpeg"
    if head[:2] in (b"\xff\xf1", b"\xff\xf9"):
        return "audio/aac"
    if head[257:262] == b"ustar":
        return MIMES["tar"]
    return None


def _text_or_unknown(file: BinaryIO, head: bytes, promised: str | None, extension: str) -> Detected:
    """Decide what no mark decides: text of some kind, or something unknown."""
    if promised == "pdf" and _PDF_PARTS.search(head):
        return Detected(MIMES["pdf"], "pdf")
    if not _is_text(head, tolerant=promised in TEXTS):
        if promised in OFFICE | {"pdf"}:
            raise ReadError(
                "corrupt", f"The file is named .{extension}, but holds no such document."
            )
        mime = MEDIA.get(extension, "application/octet-stream")
        return _medium(file, mime) if mime in DEMUXERS else Detected(mime, None)
    charset = find_charset(_whole_characters(head))
    text = head[:8192].decode(charset, errors="replace").lstrip("\ufeff")
    if extension == "svg" or (promised not in TEXTS and _SVG.match(text)):
        return Detected("image/svg+xml", "svg", charset)
    flat = _FLAT.search(text)
    kind = _open_document(flat[1]) if flat and promised in (None, "xml", *OFFICE) else None
    if kind:
        return Detected(MIMES[kind], kind)
    if promised in TEXTS and not (promised == "xml" and _XHTML.match(text)):
        return Detected(MIMES[promised], promised, charset)
    # What promises another format, or nothing, is read as the text that it is.
    kind = (
        "html"
        if _HTML.match(text)
        else "xml"
        if text.startswith("<?xml ")
        else "eml"
        if _is_mail(head)
        else "text"
    )
    return Detected(MIMES[kind], kind, charset)


def _is_mail(head: bytes) -> bool:
    fields = _MAIL.match(head)
    return fields is not None and len(set(_MAIL_FIELDS.findall(fields.group().lower()))) >= 3


def _is_text(head: bytes, *, tolerant: bool = False) -> bool:
    """Whether `head` is text in some encoding; `tolerant` of NUL and other strays."""
    if find_charset(head[:4096]).startswith(("utf-16", "utf-32")):
        return True
    controls = sum(head.count(byte) for byte in _CONTROLS)
    if tolerant:  # a few strays in a short text, next to none in a long one
        return controls * (5 if len(head) < 512 else 20) <= len(head)
    return b"\x00" not in head and controls * 50 <= len(head)


def _whole_characters(head: bytes) -> bytes:
    """Drop the bytes of a character that the end of the sample cuts in two."""
    if len(head) < _HEAD:
        return head
    end = max(head.rfind(b"\n"), head.rfind(b" "))
    return head[: end + 1] if end > _HEAD // 2 else head
