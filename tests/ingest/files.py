"""Small files of every format, made by hand: what a test reads is all there on its page."""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
import zlib
from typing import Any
from xml.sax.saxutils import escape

_PADDING = bytes.fromhex("28bf4e5e4e758a4164004e56fffa01082e2e00b6d0683e802f0ca9fe6453697a")


def text_at(x: float, y: float, text: str, size: int = 12) -> str:
    """PDF operators that draw one line of text, from the bottom left."""
    quoted = text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
    return f"BT /F1 {size} Tf {x} {y} Td ({quoted}) Tj ET\n"


def pdf(
    *contents: str,
    box: str = "0 0 600 800",
    page_extra: str = "",
    catalog_extra: str = "",
    objects: dict[int, str] | None = None,
    user_password: str | None = None,
    compress: bool = False,
) -> bytes:
    """A PDF with a page for each content stream; `objects`, from number 100 on, are added."""
    count = len(contents)
    kids = " ".join(f"{10 + 2 * index} 0 R" for index in range(count))
    bodies: dict[int, bytes] = {
        1: f"<</Type/Catalog/Pages 2 0 R{catalog_extra}>>".encode(),
        2: f"<</Type/Pages/Kids[{kids}]/Count {count}>>".encode(),
        3: b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>",
    }
    key = None
    trailer = ""
    if user_password is not None:
        key, owner, user = _encryption(user_password)
        bodies[4] = f"<</Filter/Standard/V 1/R 2/P -4/O<{owner.hex()}>/U<{user.hex()}>>>".encode()
        trailer = "/Encrypt 4 0 R/ID[<00><00>]"
    for index, content in enumerate(contents):
        number = 10 + 2 * index
        bodies[number] = (
            f"<</Type/Page/Parent 2 0 R/MediaBox[{box}]/Contents {number + 1} 0 R"
            f"/Resources<</Font<</F1 3 0 R>>>>{page_extra}>>"
        ).encode()
        data = content.encode("cp1252")
        if compress:
            data = zlib.compress(data, 9)
        if key:
            data = _rc4(_object_key(key, number + 1), data)
        flate = "/Filter/FlateDecode" if compress else ""
        head = f"<</Length {len(data)}{flate}>>stream\n".encode()
        bodies[number + 1] = head + data + b"\nendstream"
    bodies.update({number: body.encode() for number, body in (objects or {}).items()})
    return _assemble(bodies, trailer)


def _assemble(bodies: dict[int, bytes], trailer: str) -> bytes:
    out = bytearray(b"%PDF-1.4\n")
    places = {}
    for number, body in sorted(bodies.items()):
        places[number] = len(out)
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 1\n0000000000 65535 f \n"
    for number, place in places.items():
        out += b"%d 1\n%010d 00000 n \n" % (number, place)
    size = max(places) + 1
    out += f"trailer\n<</Size {size}/Root 1 0 R{trailer}>>\nstartxref\n{start}\n%%EOF\n".encode()
    return bytes(out)


def _encryption(password: str) -> tuple[bytes, bytes, bytes]:
    """The file's key, and its O and U entries, by the standard handler of revision 2."""
    padded = (password.encode("latin-1") + _PADDING)[:32]
    owner = _rc4(hashlib.md5(padded).digest()[:5], padded)
    key = hashlib.md5(padded + owner + (-4).to_bytes(4, "little", signed=True) + b"\x00").digest()[
        :5
    ]
    return key, owner, _rc4(key, _PADDING)


def _object_key(key: bytes, number: int) -> bytes:
    return hashlib.md5(key + number.to_bytes(3, "little") + b"\x00\x00").digest()[:10]


def _rc4(key: bytes, data: bytes) -> bytes:
    state = list(range(256))
    j = 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]
    out = bytearray()
    i = j = 0
    for byte in data:
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        out.append(byte ^ state[(state[i] + state[j]) % 256])
    return bytes(out)


def package(parts: dict[str, str | bytes]) -> bytes:
    """A zip archive of `parts`."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return out.getvalue()


def relationships(*links: tuple[str, str, str]) -> str:
    """A .rels part of (id, last word of the type, target)."""
    rows = "".join(
        f'<Relationship Id="{identifier}" Type="http://x/relationships/{kind}" Target="{target}"/>'
        for identifier, kind, target in links
    )
    return f'<?xml version="1.0"?><Relationships>{rows}</Relationships>'


def _office(main: str, parts: dict[str, str | bytes]) -> bytes:
    return package(
        {
            "[Content_Types].xml": "<Types/>",
            "_rels/.rels": relationships(("rId1", "officeDocument", main)),
            **parts,
        }
    )


def paragraph(text: str, style: str = "", extra: str = "") -> str:
    """A Word paragraph."""
    properties = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f"<w:p>{properties}<w:r><w:t>{escape(text)}</w:t></w:r>{extra}</w:p>"


def docx(body: str, parts: dict[str, str | bytes] | None = None) -> bytes:
    """A Word file; `parts` below word/ are linked by their names, `header1.xml` as `header`."""
    parts = parts or {}
    links = [(f"r{i}", name.rstrip("0123456789.xml"), f"{name}") for i, name in enumerate(parts)]
    return _office(
        "word/document.xml",
        {
            "word/document.xml": f'<w:document xmlns:w="w"><w:body>{body}</w:body></w:document>',
            "word/_rels/document.xml.rels": relationships(*links),
            **{f"word/{name}": content for name, content in parts.items()},
        },
    )


def shape(text: str, placeholder: str = "") -> str:
    """A PowerPoint shape with a paragraph for each line."""
    kind = f'<p:nvPr><p:ph type="{placeholder}"/></p:nvPr>' if placeholder else ""
    lines = "".join(f"<a:p><a:r><a:t>{escape(line)}</a:t></a:r></a:p>" for line in text.split("\n"))
    return f"<p:sp><p:nvSpPr>{kind}</p:nvSpPr><p:txBody>{lines}</p:txBody></p:sp>"


def pptx(*slides: str, notes: dict[int, str] | None = None) -> bytes:
    """A PowerPoint file; the first slide is stored last, so that only the list gives the order."""
    parts: dict[str, str | bytes] = {}
    links, ids = [], ""
    for number, content in enumerate(slides, start=1):
        stored = len(slides) - number + 1
        links.append((f"rId{stored}", "slide", f"slides/slide{stored}.xml"))
        ids += f'<p:sldId id="{255 + number}" r:id="rId{stored}"/>'
        name = f"ppt/slides/slide{stored}.xml"
        parts[name] = f'<p:sld xmlns:p="p"><p:spTree>{content}</p:spTree></p:sld>'
        if notes and number in notes:
            parts[f"ppt/slides/_rels/slide{stored}.xml.rels"] = relationships(
                ("n", "notesSlide", f"../notesSlides/notes{stored}.xml")
            )
            parts[f"ppt/notesSlides/notes{stored}.xml"] = f"<p:notes>{notes[number]}</p:notes>"
    return _office(
        "ppt/presentation.xml",
        {
            "ppt/presentation.xml": f"<p:presentation><p:sldIdLst>{ids}</p:sldIdLst>"
            '<p:sldSz cx="9144000" cy="6858000"/></p:presentation>',
            "ppt/_rels/presentation.xml.rels": relationships(*links),
            **parts,
        },
    )


def xlsx(sheets: dict[str, str], strings: str = "", styles: str = "", book: str = "") -> bytes:
    """An Excel file of sheets given as the XML of their rows."""
    links = [
        (f"rId{i}", "worksheet", f"worksheets/sheet{i}.xml") for i in range(1, len(sheets) + 1)
    ]
    names = "".join(
        f'<sheet name="{escape(name)}" sheetId="{i}" r:id="rId{i}"/>'
        for i, name in enumerate(sheets, start=1)
    )
    parts: dict[str, str | bytes] = {
        f"xl/worksheets/sheet{i}.xml": f"<worksheet><sheetData>{rows}</sheetData></worksheet>"
        for i, rows in enumerate(sheets.values(), start=1)
    }
    if strings:
        parts["xl/sharedStrings.xml"] = f"<sst>{strings}</sst>"
        links.append(("rIdS", "sharedStrings", "sharedStrings.xml"))
    if styles:
        parts["xl/styles.xml"] = f"<styleSheet>{styles}</styleSheet>"
        links.append(("rIdT", "styles", "styles.xml"))
    parts["xl/workbook.xml"] = f"<workbook>{book}<sheets>{names}</sheets></workbook>"
    parts["xl/_rels/workbook.xml.rels"] = relationships(*links)
    return _office("xl/workbook.xml", parts)


def odf(
    kind: str, body: str, styles: str = "", parts: dict[str, str | bytes] | None = None
) -> bytes:
    """An OpenDocument file: `body` goes inside office:text, office:spreadsheet, …"""
    return package(
        {
            "mimetype": f"application/vnd.oasis.opendocument.{kind}",
            "META-INF/manifest.xml": "<m:manifest xmlns:m='m'/>",
            "content.xml": _odf_root("document-content", _odf_body(kind, body)),
            "styles.xml": _odf_root("document-styles", styles),
            **(parts or {}),
        }
    )


def flat_odf(kind: str, body: str, styles: str = "") -> bytes:
    """The same as one file of XML."""
    return _odf_root(
        "document",
        styles + _odf_body(kind, body),
        f'\n office:mimetype="application/vnd.oasis.opendocument.{kind}"',
    ).encode()


def _odf_body(kind: str, body: str) -> str:
    element = {"graphics": "drawing"}.get(kind, kind)
    return f"<office:body><office:{element}>{body}</office:{element}></office:body>"


def _odf_root(name: str, content: str, attributes: str = "") -> str:
    prefixes = ("office", "style", "text", "table", "draw", "svg", "dc", "presentation", "fo")
    spaces = "".join(f' xmlns:{prefix}="urn:{prefix}"' for prefix in (*prefixes, "xlink"))
    return f"<?xml version='1.0'?>\n<office:{name}{spaces}{attributes}>{content}</office:{name}>"


def ole(streams: dict[str, bytes]) -> bytes:
    """A compound file of streams; a slash in a name makes a folder of what stands before it."""
    entries: list[dict[str, Any]] = [{"name": "Root Entry", "kind": 5, "children": []}]
    folders = {"": entries[0]}
    sectors: list[bytes] = []
    small = b""
    chains: list[list[int]] = []
    small_chain: list[int] = []
    for path, data in streams.items():
        folder, _, name = path.rpartition("/")
        for depth in range(1, len(folder.split("/")) + 1 if folder else 1):
            part = "/".join(folder.split("/")[:depth])
            if part not in folders:
                folders[part] = {"name": part.rpartition("/")[2], "kind": 1, "children": []}
                _attach(entries, folders[part.rpartition("/")[0]], folders[part])
        entry = {"name": name, "kind": 2, "children": [], "size": len(data)}
        if len(data) < 4096:
            count = -(-len(data) // 64)
            first = len(small) // 64
            entry["first"] = first if count else 0xFFFFFFFE
            small_chain += [first + i + 1 for i in range(count - 1)] + [0xFFFFFFFE] * bool(count)
            small += data.ljust(64 * count, b"\0")
        else:
            entry["first"] = _store(data, sectors, chains)
        _attach(entries, folders[folder], entry)
    entries[0]["size"] = len(small)
    entries[0]["first"] = _store(small, sectors, chains) if small else 0xFFFFFFFE
    fat_of_small = struct.pack(f"<{len(small_chain)}I", *small_chain)
    fat_of_small = fat_of_small.ljust(-(-len(fat_of_small) // 512) * 512, b"\xff")
    first_small = _store(fat_of_small, sectors, chains) if small_chain else 0xFFFFFFFE
    directory = b"".join(_directory_entry(entry) for entry in entries)
    first_directory = _store(directory, sectors, chains)
    fat = [0xFFFFFFFF] * len(sectors)
    for chain in chains:
        for sector, following in zip(chain, [*chain[1:], 0xFFFFFFFE], strict=True):
            fat[sector] = following
    count = 1
    while count * 128 < len(fat) + count:
        count += 1
    places = list(range(len(sectors), len(sectors) + count))
    fat += [0xFFFFFFFD] * count
    table = struct.pack(f"<{len(fat)}I", *fat).ljust(count * 512, b"\xff")
    head = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 16
    head += struct.pack("<5H", 0x3E, 3, 0xFFFE, 9, 6) + b"\0" * 6
    head += struct.pack(
        "<9I", 0, count, first_directory, 0, 4096, first_small,
        len(fat_of_small) // 512, 0xFFFFFFFE, 0,
    )  # fmt: skip
    head += struct.pack(f"<{count}I", *places)
    return head.ljust(512, b"\xff") + b"".join(sectors) + table


def _attach(entries: list[dict[str, Any]], folder: dict[str, Any], entry: dict[str, Any]) -> None:
    entry["index"] = len(entries)
    entries.append(entry)
    if folder["children"]:
        folder["children"][-1]["next"] = entry["index"]
    folder["children"].append(entry)


def _store(data: bytes, sectors: list[bytes], chains: list[list[int]]) -> int:
    first = len(sectors)
    sectors += [data[at : at + 512].ljust(512, b"\0") for at in range(0, len(data), 512)]
    chains.append(list(range(first, len(sectors))))
    return first


def _directory_entry(entry: dict[str, Any]) -> bytes:
    name = (entry["name"] + "\0").encode("utf-16-le")
    child = entry["children"][0]["index"] if entry["children"] else 0xFFFFFFFF
    links = struct.pack("<3I", 0xFFFFFFFF, entry.get("next", 0xFFFFFFFF), child)
    kind = struct.pack("<HBB", len(name), entry["kind"], 1)
    place = struct.pack("<IQ", entry.get("first", 0), entry.get("size", 0))
    return name.ljust(64, b"\0") + kind + links + b"\0" * 36 + place
