"""Where people may be sent after a link was opened: never where only the request says so."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

from starlette.requests import Request

from narwhal.local.auth.context import Auth

# browsers read a backslash as a slash, and skip control characters: parsers disagree on both
PLAIN = re.compile(r"[!-\[\]-~]+")


def is_allowed(url: str, site_url: str, allow_list: Sequence[str] = ()) -> bool:
    """Whether `url` is on the site itself or matches a pattern of the allow list.

    A site on the loopback means this machine, under whichever name and port: native applications
    (RFC 8252) and development servers choose theirs.
    """
    if not PLAIN.fullmatch(url):
        return False
    try:
        asked, site = urlsplit(url), urlsplit(site_url)
        asked_port, site_port = asked.port, site.port
    except ValueError:
        return False
    if "@" in asked.netloc:
        return False
    if asked.scheme == site.scheme:
        if (asked.hostname, asked_port) == (site.hostname, site_port):
            return True
        if _is_loopback(asked.hostname) and _is_loopback(site.hostname):
            return True
    bare = url.partition("#")[0]
    return any(_pattern(glob).fullmatch(bare) for glob in allow_list)


def _is_loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _pattern(glob: str) -> re.Pattern[str]:
    wild = {"**": ".*", "*": "[^./]*", "?": "[^./]"}
    parts = re.split(r"(\*\*|\*|\?)", glob)
    return re.compile("".join(wild.get(part) or re.escape(part) for part in parts))


def redirect_target(auth: Auth, request: Request, asked: str = "") -> str:
    """Return the first allowed of: what the request asks for, its Referer, the site's URL."""
    candidates = (
        asked,
        request.headers.get("redirect_to", ""),
        request.query_params.get("redirect_to", ""),
        request.headers.get("referer", ""),
    )
    site_url, allow_list = auth.config.site_url, auth.options.redirect_allow_list
    for url in candidates:
        if url and is_allowed(url, site_url, allow_list):
            return url
    return site_url


def with_fragment(url: str, values: dict[str, str], *, query: dict[str, str] | None = None) -> str:
    """Return `url` with its fragment replaced and query parameters set."""
    parts = urlsplit(url)
    kept = dict(parse_qsl(parts.query, keep_blank_values=True)) | (query or {})
    return urlunsplit(
        SplitResult(
            parts.scheme,
            parts.netloc,
            parts.path,
            urlencode(kept) if query else parts.query,
            urlencode(sorted(values.items())),
        )
    )
