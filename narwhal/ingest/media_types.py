"""The tables behind detection: names, MIME types and first bytes of the formats we know of."""

from __future__ import annotations

MIMES = {
    "pdf": "application/pdf",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "odt": "application/vnd.oasis.opendocument.text",
    "ods": "application/vnd.oasis.opendocument.spreadsheet",
    "odp": "application/vnd.oasis.opendocument.presentation",
    "doc": "application/msword",
    "xls": "application/vnd.ms-excel",
    "ppt": "application/vnd.ms-powerpoint",
    "msg": "application/vnd.ms-outlook",
    "epub": "application/epub+zip",
    "rtf": "application/rtf",
    "zip": "application/zip",
    "tar": "application/x-tar",
    "html": "text/html",
    "markdown": "text/markdown",
    "csv": "text/csv",
    "tsv": "text/tab-separated-values",
    "eml": "message/rfc822",
    "json": "application/json",
    "xml": "application/xml",
    "srt": "application/x-subrip",
    "vtt": "text/vtt",
    "ics": "text/calendar",
    "vcf": "text/vcard",
    "text": "text/plain",
}

# Names that promise a format, macro-carrying and template variants included.
EXTENSIONS = {
    **dict.fromkeys(("pdf",), "pdf"),
    **dict.fromkeys(("docx", "docm", "dotx", "dotm"), "docx"),
    **dict.fromkeys(("pptx", "pptm", "potx", "potm", "ppsx", "ppsm"), "pptx"),
    **dict.fromkeys(("xlsx", "xlsm", "xltx", "xltm"), "xlsx"),
    **dict.fromkeys(("odt", "ott", "odm", "fodt"), "odt"),
    **dict.fromkeys(("ods", "ots", "fods"), "ods"),
    **dict.fromkeys(("odp", "otp", "fodp", "odg", "otg", "fodg"), "odp"),
    **dict.fromkeys(("doc", "dot"), "doc"),
    **dict.fromkeys(("xls", "xlt"), "xls"),
    **dict.fromkeys(("ppt", "pps", "pot"), "ppt"),
    **dict.fromkeys(("msg", "oft"), "msg"),
    "epub": "epub",
    "rtf": "rtf",
    "zip": "zip",
    **dict.fromkeys(("tar", "tgz", "tbz", "tbz2", "txz"), "tar"),
    **dict.fromkeys(("html", "htm", "xhtml"), "html"),
    **dict.fromkeys(("md", "markdown", "mdown", "mkd"), "markdown"),
    "csv": "csv",
    **dict.fromkeys(("tsv", "tab"), "tsv"),
    "eml": "eml",
    **dict.fromkeys(("json", "jsonl", "ndjson", "geojson", "topojson", "json5", "ipynb"), "json"),
    **dict.fromkeys(("xml", "xsd", "xsl", "xslt", "wsdl", "resx", "plist", "rdf", "owl"), "xml"),
    **dict.fromkeys(("rss", "atom", "opml", "kml", "gpx", "gml", "tmx", "xlf", "xliff"), "xml"),
    **dict.fromkeys(("tei", "dbk", "docbook", "dita", "fb2"), "xml"),
    "srt": "srt",
    "vtt": "vtt",
    **dict.fromkeys(("ics", "ical", "ifb"), "ics"),
    **dict.fromkeys(("vcf", "vcard"), "vcf"),
    **dict.fromkeys(
        ("txt", "text", "log", "nfo", "asc", "rst", "adoc", "org", "tex", "bib"), "text"
    ),
    **dict.fromkeys(("yaml", "yml", "toml", "ini", "cfg", "conf", "properties", "env"), "text"),
    **dict.fromkeys(("py", "js", "ts", "jsx", "tsx", "java", "c", "h", "cpp", "hpp", "cs"), "text"),
    **dict.fromkeys(("go", "rs", "rb", "php", "pl", "swift", "kt", "scala", "r", "lua"), "text"),
    **dict.fromkeys(("sh", "bat", "ps1", "sql", "css", "scss", "less", "vue", "diff"), "text"),
}
# The formats of OpenDocument by the word that ends their types, templates' without `-template`.
OPEN_DOCUMENTS = {
    "text": "odt",
    "text-master": "odt",
    "text-web": "odt",
    "spreadsheet": "ods",
    "presentation": "odp",
    "graphics": "odp",
}
# The stream that tells what an archive of an older Office program is.
OLE_STREAMS = {
    "__properties_version1.0": "msg",
    "workbook": "xls",
    "book": "xls",
    "powerpoint document": "ppt",
    "worddocument": "doc",
}
# Formats that are archives of parts: what is named so must be one.
OFFICE = {
    *("docx", "pptx", "xlsx", "odt", "ods", "odp", "epub", "doc", "xls", "ppt", "msg"),
}
TEXTS = {
    *("html", "markdown", "csv", "tsv", "eml", "text", "json", "xml", "srt", "vtt", "ics", "vcf"),
}

# Read by OCR.
PICTURES = {
    f"image/{name}"
    for name in ("avif", "bmp", "gif", "heic", "heif", "jpeg", "png", "tiff", "webp")
}

# Media that later stages read or that nothing reads; a name with such an extension over a program
# is as much a disguise as one of a document.
MEDIA = {
    **{name: f"image/{name}" for name in ("png", "gif", "bmp", "webp", "heic", "heif", "avif")},
    **dict.fromkeys(("jpg", "jpeg"), "image/jpeg"),
    **dict.fromkeys(("tif", "tiff"), "image/tiff"),
    "svg": "image/svg+xml",
    **{name: f"audio/{name}" for name in ("flac", "aac", "amr")},
    **dict.fromkeys(("ogg", "oga", "opus"), "audio/ogg"),
    "mp3": "audio/mpeg",
    "wav": "audio/wav",
    **dict.fromkeys(("m4a", "m4b"), "audio/mp4"),
    **dict.fromkeys(("aif", "aiff", "aifc"), "audio/aiff"),
    **dict.fromkeys(("mp4", "m4v", "3gp"), "video/mp4"),
    "mov": "video/quicktime",
    "webm": "video/webm",
    "mkv": "video/x-matroska",
    "avi": "video/x-msvideo",
    **dict.fromkeys(("wma", "wmv", "asf"), "video/x-ms-asf"),
    "flv": "video/x-flv",
    **dict.fromkeys(("mpg", "mpeg"), "video/mpeg"),
}

# Listened to, and by which demuxer of FFmpeg: no other may look at a file, for some open others.
DEMUXERS = {
    "audio/aac": "aac",
    "audio/aiff": "aiff",
    "audio/amr": "amr",
    "audio/flac": "flac",
    "audio/mp4": "mov",
    "audio/mpeg": "mp3",
    "audio/ogg": "ogg",
    "audio/wav": "wav",
    "video/mp4": "mov",
    "video/mpeg": "mpeg",
    "video/quicktime": "mov",
    "video/webm": "matroska",
    "video/x-flv": "flv",
    "video/x-matroska": "matroska",
    "video/x-ms-asf": "asf",
    "video/x-msvideo": "avi",
}

PROGRAMS = (
    (b"\x7fELF", "application/x-executable"),
    (b"\xfe\xed\xfa\xce", "application/x-mach-binary"),
    (b"\xfe\xed\xfa\xcf", "application/x-mach-binary"),
    (b"\xce\xfa\xed\xfe", "application/x-mach-binary"),
    (b"\xcf\xfa\xed\xfe", "application/x-mach-binary"),
    (b"\xca\xfe\xba\xbe", "application/x-mach-binary"),
    (b"dex\n", "application/vnd.android.dex"),
    (b"\x00asm", "application/wasm"),
    (b"L\x00\x00\x00\x01\x14\x02\x00", "application/x-ms-shortcut"),
)
MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"fLaC", "audio/flac"),
    (b"OggS", "audio/ogg"),
    (b"ID3", "audio/mpeg"),
    (b"#!AMR", "audio/amr"),
    (b"\x1aE\xdf\xa3", "video/x-matroska"),
    (b"0&\xb2u\x8ef\xcf\x11", "video/x-ms-asf"),
    (b"FLV\x01", "video/x-flv"),
    (b"\x00\x00\x01\xba", "video/mpeg"),
    (b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (b"Rar!\x1a\x07", "application/vnd.rar"),
    (b"\x1f\x8b", "application/gzip"),
    (b"BZh", "application/x-bzip2"),
    (b"\xfd7zXZ\x00", "application/x-xz"),
    (b"\x28\xb5\x2f\xfd", "application/zstd"),
    (b"SQLite format 3\x00", "application/vnd.sqlite3"),
    (b"%!PS", "application/postscript"),
)
