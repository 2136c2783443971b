"""Search: `narwhal search`."""

from __future__ import annotations

import shutil
import textwrap
from enum import StrEnum
from typing import Annotated, Any

import typer

from narwhal.cli.options import AsJson, AsUser, Home
from narwhal.output import printable, say, show_json
from narwhal.settings import load_settings


class Mode(StrEnum):
    """How to search."""

    hybrid = "hybrid"
    keyword = "keyword"
    semantic = "semantic"
    pages = "pages"


class Context(StrEnum):
    """What to show around a passage."""

    none = "none"
    neighbours = "neighbours"
    section = "section"


def register(app: typer.Typer) -> None:
    """Add these commands to the app."""
    app.command("search")(search)


def search(
    query: Annotated[str, typer.Argument(help="Words or a question.")],
    mode: Annotated[Mode, typer.Option(help="By words, by meaning, or both.")] = Mode.hybrid,
    folder: Annotated[
        str, typer.Option(metavar="PATH", help="Only below this folder of the drive.")
    ] = "",
    types: Annotated[
        list[str] | None,
        typer.Option("--type", metavar="EXT", help="Only this extension; may be repeated."),
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, max=100, help="At most this many hits.")] = 8,
    by_file: Annotated[
        bool, typer.Option("--by-file", help="One hit a file, with its best passages.")
    ] = False,
    context: Annotated[
        Context, typer.Option(help="Also show the text around: of the neighbours, or the section.")
    ] = Context.none,
    explain: Annotated[bool, typer.Option("--explain", help="Show how the hits were found.")] = (
        False
    ),
    as_user: AsUser = None,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Find the passages that answer a question, best first, with file and page.

    Example: narwhal search 'who approved the budget' --folder Projects --type pdf
    """
    settings = load_settings(home)
    from narwhal.drive import Drive
    from narwhal.session import user_client

    filters: dict[str, Any] = {}
    options: dict[str, Any] = {}
    if by_file:
        options["group_by"] = "file"
    if context is not Context.none:
        options["context"] = context.value
    with user_client(settings, as_user) as client:
        if folder.strip("/"):
            filters["folder_id"] = Drive(client, settings).folder_id(folder)
        if types:
            filters["types"] = [extension.lower().lstrip(".") for extension in types]
        answer: Any = client.functions.invoke(
            "ai/search",
            {
                "body": {
                    "query": query,
                    "mode": mode.value,
                    "filters": filters,
                    "options": options,
                    "top_k": top_k,
                    "explain": explain,
                },
                "responseType": "json",
            },
        )
    if as_json:
        show_json(answer)
    else:
        _show_hits(answer, explain)


def _show_hits(answer: dict[str, Any], explain: bool) -> None:
    """Print hits as a person reads them: where, how well, and the passage."""
    width = min(shutil.get_terminal_size().columns, 100)
    for rank, hit in enumerate(answer["hits"], start=1):
        print(f"{rank}. {_place(hit)}  ({hit['score']:.3f})")
        _show_passage(hit, width)
        for more in (hit.get("passages") or [])[1:]:
            page = f"page {more['page']}" if more.get("page") is not None else "also"
            print(f"   - {page}  ({more['score']:.3f})")
            _show_passage(more, width)
        copies = hit.get("copies") or {}
        if copies.get("count"):
            names = ", ".join(printable(str(file["name"])) for file in copies["files"])
            print(f"   (the same in {names})")
        if explain:
            print(f"   [{_parts(hit.get('parts') or {})}]")
    if not answer["hits"]:
        say("nothing found")
    if explain and answer.get("explain"):
        print(f"how: {_parts(answer['explain'])}")
    if answer.get("degraded"):
        say("note: answered by keyword only; the text encoder was not available")
    if answer.get("pending_files"):
        say(f"note: {answer['pending_files']} files are still being read")


def _show_passage(hit: dict[str, Any], width: int) -> None:
    """Print the snippet, between what stands around it when that was asked for."""
    context = hit.get("context") or {}
    for text in (context.get("before"), hit.get("snippet"), context.get("after")):
        if passage := printable(" ".join(str(text or "").split())):
            print(textwrap.fill(passage, width, initial_indent="   ", subsequent_indent="   "))


def _place(hit: dict[str, Any]) -> str:
    """Write where a hit is: its path, and the page when the file has pages."""
    path = hit.get("path")
    if isinstance(path, list):
        path = "/".join(str(part) for part in path)
    text = printable(str(path or hit.get("name") or hit.get("file_id")))
    return f"{text}, page {hit['page']}" if hit.get("page") is not None else text


def _parts(values: dict[str, Any]) -> str:
    """Write what a score or an answer consists of: name and number, unset ones left out."""
    known = [
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
        if value is not None and not isinstance(value, dict)
    ]
    return ", ".join(known)
