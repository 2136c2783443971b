"""Files of many kinds, each of its own words; some of them nobody can read."""

from __future__ import annotations

import json
import random
import re
import zipfile
from email.message import EmailMessage
from io import BytesIO

from tests.conftest import ROOT
from tests.ingest.files import docx, odf, paragraph, pdf, pptx, shape, text_at, xlsx

SAMPLES = ROOT / "scripts" / "samples"
WORDS = (
    *("anchor", "beacon", "current", "dolphin", "estuary", "ferry", "gannet", "harbour", "island"),
    *("jetty", "kelp", "lantern", "marina", "needle", "oyster", "plankton", "quay", "reef", "seal"),
    *("tide", "urchin", "vessel", "whale", "yacht", "zebrafish", "breakwater"),
)


def mixture(chance: random.Random, count: int) -> list[tuple[str, bytes]]:
    """`count` files as (name, bytes): the samples, then small ones made at random."""
    files = [
        (path.name, path.read_bytes())
        for path in sorted(SAMPLES.iterdir())
        if path.name not in ("README.md", "make.py") and path.stat().st_size < 2**20
    ]
    makers = sorted(MAKERS)
    while len(files) < count:
        kind = makers[len(files) % len(makers)]
        files.append((f"{len(files):03}.{kind}", MAKERS[kind](sentence(chance))))
    return files[:count]


def another(name: str, chance: random.Random) -> bytes:
    """Other bytes for the next version of a file, of the same kind: none that was not readable is.

    A version that cannot be read leaves a readable one before it in service, and no later upload of
    the same bytes would come to that.
    """
    plain = re.sub(r" \(\d+\)", "", name)  # of a copy
    kinds = [kind for kind in MAKERS if plain.endswith(f".{kind}")]
    return MAKERS[max(kinds, key=len)](sentence(chance)) if kinds else b""


def sentence(chance: random.Random) -> str:
    """A few words that no other file has in this order."""
    words = " ".join(chance.choice(WORDS) for _ in range(20))
    return f"Note {chance.randrange(10**9)}: {words}."


def _mail(text: str) -> bytes:
    message = EmailMessage()
    message["Subject"] = text[:30]
    message["From"] = "crew@example.test"
    message["To"] = "harbour@example.test"
    message["Date"] = "Fri, 21 Nov 2025 10:00:00 +0100"
    message.set_content(text)
    message.add_attachment(text.encode(), "text", "plain", filename="note.txt")
    return message.as_bytes()


def _zip(text: str) -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(zipfile.ZipInfo("notes/first.txt"), text)
    return out.getvalue()


def _xlsx(text: str) -> bytes:
    row = f'<row r="1"><c r="A1" t="inlineStr"><is><t>{text}</t></is></c></row>'
    return xlsx({"Log": row})


MAKERS = {
    "txt": lambda text: f"{text}\n\n{text[::-1]}\n".encode(),
    "md": lambda text: f"# Log\n\n{text}\n".encode(),
    "html": lambda text: f"<h1>Log</h1><p>{text}</p>".encode(),
    "csv": lambda text: f"day,note\n1,{text}\n".encode(),
    "json": lambda text: json.dumps({"note": text}).encode(),
    "xml": lambda text: f"<log><note>{text}</note></log>".encode(),
    "eml": _mail,
    "zip": _zip,
    "pdf": lambda text: pdf(text_at(72, 700, text), text_at(72, 700, text[::-1])),
    "docx": lambda text: docx(paragraph("Log", "Heading1") + paragraph(text)),
    "pptx": lambda text: pptx(shape("Log", "title") + shape(text)),
    "xlsx": _xlsx,
    "odt": lambda text: odf("text", f"<text:p>{text}</text:p>"),
    # what cannot be read, and why
    "locked.pdf": lambda text: pdf(text_at(72, 700, text), user_password="secret"),
    "broken.docx": lambda text: b"PK\x03\x04" + text.encode(),
    "program.pdf": lambda text: b"MZ\x90\x00\x03" + bytes(60) + b"PE\0\0" + text.encode(),
    "unknown.bin": lambda text: bytes(range(256)) + text.encode(),
    "empty.txt": lambda text: b"",
}
