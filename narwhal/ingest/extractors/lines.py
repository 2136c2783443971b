"""A page's text built line by line, each with its box."""

from __future__ import annotations

from narwhal.ingest.document import Box, Line


class PageText:
    """A page's text under construction."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.lines: list[Line] = []
        self.length = 0

    def add(self, text: str, box: Box | None, separator: str) -> None:
        """Append a line, after a separator unless it is the first."""
        if self.length:
            self.parts.append(separator)
            self.length += len(separator)
        self.parts.append(text)
        if box is not None:
            self.lines.append(Line(self.length, self.length + len(text), box))
        self.length += len(text)

    def joined(self) -> str:
        """All of it."""
        return "".join(self.parts)


def is_apart(last: Box | None, box: Box | None) -> bool:
    """Whether more than a line's space lies between two lines, or a column ends between them."""
    if last is None or box is None:
        return False
    size = min(last[3] - last[1], box[3] - box[1])
    gap = box[1] - last[3]
    return gap > 0.7 * size or box[3] < last[1]
