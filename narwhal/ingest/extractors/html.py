"""HTML: the text that a browser would show, its headings, and nothing that the page hides."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

from narwhal.ingest.document import Page
from narwhal.ingest.extractors import Source
from narwhal.ingest.extractors.blocks import Blocks
from narwhal.ingest.extractors.reading import read_text
from narwhal.ingest.limits import Limits

PAGED = False


def _names(names: str) -> frozenset[str]:
    return frozenset(names.split())


_VOID = _names("area base br col embed frame hr img input link meta param source track wbr")
# Elements whose content is no visible text of the page.
_UNREAD = _names(
    "script style template noscript iframe object audio video canvas datalist noembed noframes "
    "applet defs symbol metadata desc annotation annotation-xml"
)
_PARAGRAPHS = _names("p blockquote pre table ul ol dl figure h1 h2 h3 h4 h5 h6 hr section")
_LINES = _names(
    "div li tr dt dd br option article aside header footer nav main form fieldset legend address "
    "figcaption caption summary details center body html title tbody thead tfoot button"
)
# What an opening tag closes when its own end tag was left out.
_CLOSES = {
    "p": {"p"},
    "li": {"li"},
    "tr": {"td", "th", "tr"},
    "td": {"td", "th"},
    "th": {"td", "th"},
    "dt": {"dt", "dd"},
    "dd": {"dt", "dd"},
    "option": {"option"},
    "body": {"head"},
}
_CLOSES.update({name: {"p"} for name in _PARAGRAPHS | {"div", "article", "form", "address"}})
# An end tag closes nothing outside the table cell it stands in, an implied end nothing outside the
# list or table.
_CELLS = {"table", "td", "th", "caption", "template"}
_TABLE_PARTS = _CELLS | {"tr", "tbody", "thead", "tfoot"}
_NESTS = {"ul", "ol", "dl", "table", "select", "body"}
_IN_CELL = {"p", "div", "br", "center", "address"}
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_LONG_CELL = 500
_HIDING = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)|opacity\s*:\s*0?\.?0+\s*(?:[;!]|$)"
    r"|font-size\s*:\s*0(?:\.0+)?\s*(?:px|pt|em|rem|%)?\s*(?:[;!]|$)"
    r"|(?:left|top|right|text-indent)\s*:\s*-\d{4,}|mso-hide\s*:\s*all",
    re.IGNORECASE,
)
_CHARSET = re.compile(
    rb"""<meta[^>]{0,300}?charset\s*=\s*["']?\s*([\w:.-]+)|<\?xml[^>]{0,200}?encoding\s*=\s*["']([\w.-]+)""",
    re.IGNORECASE,
)
_CELL = "\x1f"  # stands between two cells of a row until their block is complete
_BLANKS = re.compile(rf"[ \n\xa0]*{_CELL}[ \n\xa0{_CELL}]*")
_SPACES = re.compile(r"[ \t\n\r\f]+")
_SCRIPT_END = re.compile(r"</(script|style)[\s/][^>]*>", re.IGNORECASE)
_RULES = re.compile(r"([^{}]{1,2000})\{([^{}]{0,2000})\}")
_SIMPLE = re.compile(r"\s*([a-z0-9]*)([.#])([\w-]+)\s*", re.IGNORECASE)


def read(source: Source, limits: Limits) -> Iterator[Page]:
    """Yield the page's visible text as one page."""
    declared = declared_charset(source.file.read(4096))
    source.file.seek(0)
    blocks = Blocks(limits)
    read_html(read_text(source, limits, declared), blocks)
    yield blocks.page(1)


def declared_charset(data: bytes) -> str | None:
    """The encoding that the page itself names within its first bytes."""
    found = _CHARSET.search(data[:4096])
    if not found:
        return None
    return (found[1] or found[2]).decode("ascii", errors="replace")


def read_html(text: str, blocks: Blocks) -> None:
    """Add the visible text of an HTML page to `blocks`."""
    parser = _Page(blocks, _hidden_selectors(text))
    parser.feed(text)
    parser.close()
    parser.flush()


def _hidden_selectors(text: str) -> set[str]:
    """The `.class` and `#id` that the page's own style sheet hides on a screen."""
    hidden: set[str] = set()
    for sheet in re.findall(r"<style[^>]{0,300}>(.*?)</style", text, re.DOTALL | re.IGNORECASE):
        # Rules inside @media and the like hold at times only, for example on paper.
        sheet = re.sub(r"/\*.*?\*/", "", sheet, flags=re.DOTALL)
        sheet = re.sub(r"@[^{};]*\{(?:[^{}]*\{[^{}]*\})*[^{}]*\}", "", sheet)
        for selectors, rule in _RULES.findall(sheet):
            if _HIDING.search(rule):
                for selector in selectors.split(","):
                    simple = _SIMPLE.fullmatch(selector)
                    if simple:
                        hidden.add((simple[2] + simple[3]).lower())
    return hidden


class _Page(HTMLParser):
    """Turns tags and text into blocks."""

    def __init__(self, blocks: Blocks, hidden: set[str]) -> None:
        super().__init__(convert_charrefs=True)
        self._blocks = blocks
        self._hidden = hidden
        self._open: list[str] = []
        self._count: Counter[str] = Counter()
        # How many elements were open when the outermost unread one began.
        self._unread: int | None = None
        self._pieces: list[str] = []
        self._size = 0
        self._level: int | None = None
        self._gap = 1

    def set_cdata_mode(self, elem: str, **options: Any) -> None:
        """Let any `</script …>` end a script, as browsers do."""
        super().set_cdata_mode(elem, **options)
        if elem in ("script", "style"):
            self.interesting = re.compile(rf"</{elem}(?=[\s/>])", re.IGNORECASE)

    def parse_endtag(self, i: int) -> int:
        """Accept attributes on the end tag of a script."""
        end = _SCRIPT_END.match(self.rawdata, i) if self.cdata_elem else None
        if end and end[1].lower() == self.cdata_elem:
            self.clear_cdata_mode()
            self.handle_endtag(end[1].lower())
            return end.end()
        return super().parse_endtag(i)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open an element, after closing those whose end tags were left out."""
        self._close_implied(tag)
        if tag not in _VOID:
            self._open.append(tag)
            self._count[tag] += 1
        if self._unread is not None:
            return
        if tag not in _VOID and (tag in _UNREAD or self._is_hidden(tag, dict(attrs))):
            self._unread = len(self._open) - 1
        elif tag == "br":
            self._write("\n")
        elif tag == "img":
            self._write(f" {dict(attrs).get('alt') or ''} ")
        elif tag in ("td", "th"):
            self._write(_CELL)
        else:
            self._break(tag)
            self._level = _HEADINGS.get(tag, self._level)

    def handle_endtag(self, tag: str) -> None:
        """Close an element and what is open inside it; stray end tags do nothing."""
        if tag == "br":
            self.handle_starttag("br", [])
        if not self._count[tag]:
            return
        for index in range(len(self._open) - 1, -1, -1):
            if self._open[index] == tag:
                self._close_from(index, tag)
                return
            if self._open[index] in _CELLS and tag not in _TABLE_PARTS:
                return

    def handle_data(self, data: str) -> None:
        """Take text; white space counts only where it is preformatted."""
        if self._unread is None:
            preformatted = self._count["pre"] or self._count["textarea"]
            self._write(data if preformatted else _SPACES.sub(" ", data))

    def flush(self) -> None:
        """Finish the current block."""
        text = _BLANKS.sub("\t", "".join(self._pieces)).strip()
        text = re.sub(r" ?\n[ \n]*", "\n", re.sub(r" {2,}", " ", text))
        self._pieces.clear()
        self._size = 0
        if text:
            self._blocks.add(text, level=self._level, gap=self._gap)
            self._level = None
            self._gap = 1

    def _write(self, text: str) -> None:
        self._pieces.append(text)
        self._size += len(text)

    def _break(self, tag: str) -> None:
        """Begin a new block where `tag` does; inside a short cell, only a new line."""
        if tag not in _PARAGRAPHS and tag not in _LINES:
            return
        in_cell = self._count["td"] or self._count["th"]
        if in_cell and tag in _IN_CELL and self._size < _LONG_CELL:
            self._write("\n")
            return
        self.flush()
        is_list = tag in ("ul", "ol", "dl")
        self._gap = 2 if tag in _PARAGRAPHS and not is_list else 1
        # A list inside an item goes on with it.
        if self._gap == 2 or (is_list and not self._count["li"]):
            self._blocks.apart()

    def _close_implied(self, tag: str) -> None:
        closed = _CLOSES.get(tag)
        if not closed or not any(self._count[name] for name in closed):
            return
        for index in range(len(self._open) - 1, -1, -1):
            name = self._open[index]
            if name in closed:
                self._close_from(index, name)
                if tag != "tr":
                    return
            elif name in _NESTS or name in _CELLS:
                return

    def _close_from(self, index: int, tag: str) -> None:
        for name in self._open[index:]:
            self._count[name] -= 1
        del self._open[index:]
        if self._unread is not None:
            if self._unread >= index:
                self._unread = None
        elif tag in _HEADINGS:
            self.flush()
            self._level = None
        else:
            self._break(tag)

    def _is_hidden(self, tag: str, attributes: dict[str, str | None]) -> bool:
        if "hidden" in attributes or (tag == "dialog" and "open" not in attributes):
            return True
        if _HIDING.search(attributes.get("style") or ""):
            return True
        if not self._hidden:
            return False
        names = [f".{name}" for name in (attributes.get("class") or "").lower().split()]
        names.append(f"#{(attributes.get('id') or '').lower()}")
        return not self._hidden.isdisjoint(names)
