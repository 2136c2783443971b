"""The control words of RTF that matter to its text, and the encodings behind its numbers."""

from __future__ import annotations


def _words(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Groups without text of the document, or with text that stands in the file a second time. Groups
# that begin with \* are passed over anyway, unless they are among `ENTERED`.
SKIPPED = _words(
    "colortbl info pict nonshppict shprslt filetbl fldinst sn sv xe tc rxe pntext listtext "
    "mmathPict objclass objname objdata picprop private upr footnotesep ftnsep ftnsepc ftncn "
    "aftnsep aftnsepc aftncn nonesttables "
    "listtable listoverridetable list listoverride leveltext levelnumbers listname"
)
ENTERED = _words("shpinst annotation do shptxt fldrslt moMath footnote fonttbl stylesheet")
# Groups that hold text of their own, which is read after the paragraph they stand in.
ASIDES = _words("footnote annotation shptxt dptxbxtext")
FURNITURE = _words("header headerl headerr headerf footer footerl footerr footerf")
LABELS = _words("pntext listtext")  # of an item of a list

CHARACTERS = {
    "line": "\n",
    "lbr": "\n",
    "tab": "\t",
    "nestcell": "\t",
    "nestrow": "\n",
    "emdash": "\u2014",
    "endash": "\u2013",
    "emspace": " ",
    "enspace": " ",
    "qmspace": " ",
    "bullet": "\u2022",
    "lquote": "\u2018",
    "rquote": "\u2019",
    "ldblquote": "\u201c",
    "rdblquote": "\u201d",
}
# A font's character set as Windows numbers them; 1, the default, is the document's own codepage.
CHARSETS = {
    0: "cp1252",
    77: "mac_roman",
    78: "cp932",
    79: "cp949",
    81: "gb18030",
    82: "cp950",
    85: "mac_greek",
    86: "mac_turkish",
    88: "mac_latin2",
    89: "mac_cyrillic",
    128: "cp932",
    129: "cp949",
    130: "johab",
    134: "gb18030",
    136: "cp950",
    161: "cp1253",
    162: "cp1254",
    163: "cp1258",
    177: "cp1255",
    178: "cp1256",
    186: "cp1257",
    204: "cp1251",
    222: "cp874",
    238: "cp1250",
    254: "cp437",
    255: "cp850",
}
