"""Embedding spaces: `narwhal spaces …`, over DATABASE_URL."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from narwhal.cli.options import AsJson, DryRun, Home, Yes, confirm
from narwhal.errors import NarwhalError
from narwhal.output import human_size, say, show, show_json
from narwhal.settings import load_settings

if TYPE_CHECKING:
    from narwhal.spaces import Spaces

spaces_app = typer.Typer(
    no_args_is_help=True,
    help="Change the model that search uses, while it is searched.\n\n"
    "In order: spaces add, spaces backfill, spaces compare, eval run --space, spaces activate; "
    "spaces rollback if need be; spaces retire the old one.",
)
Name = Annotated[str, typer.Argument(help="The name of the space.")]
Other = Annotated[
    str | None,
    typer.Option("--with", metavar="SPACE", help="Another space.", show_default="the active one"),
]
COLUMNS = [
    "name",
    "kind",
    "state",
    "dimension",
    "model",
    "vectors",
    "missing_chunks",
    "missing_files",
    "size",
]


class Kind(StrEnum):
    """What is embedded."""

    text = "text"
    page = "page"
    image = "image"


def register(app: typer.Typer) -> None:
    """Add these commands to the app."""
    app.add_typer(spaces_app, name="spaces")


@spaces_app.command("list")
def list_spaces(as_json: AsJson = False, home: Home = None) -> None:
    """List the spaces with what they hold and what they lack.

    Example: narwhal spaces list --json | jq -r '.[] | select(.state == "active").name'
    """
    with _spaces(home) as spaces:
        rows = spaces.all()
    show([_sized(row) for row in rows] if not as_json else rows, COLUMNS, as_json=as_json)


@spaces_app.command("show")
def show_space(name: Name, as_json: AsJson = False, home: Home = None) -> None:
    """Show all about one space: counts, jobs, evaluations, when it was active.

    Example: narwhal spaces show bge-m3
    """
    with _spaces(home) as spaces:
        _show_one(spaces.named(name), as_json)


@spaces_app.command("add")
def add(
    name: Name,
    model: Annotated[
        str | None,
        typer.Option(
            help="A packaged model, the folder of a checkpoint, or OWNER/NAME of the hub.",
            show_default="what the name stands for",
        ),
    ] = None,
    dim: Annotated[
        int | None,
        typer.Option("--dim", help="Numbers in a vector, 1 to 4000.", show_default="the model's"),
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option(help="Which weights: a commit of the hub.", show_default="the model's"),
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest text it reads.", show_default="the model's")
    ] = None,
    kind: Annotated[Kind, typer.Option(help="What is embedded.")] = Kind.text,
    language: Annotated[
        list[str] | None,
        typer.Option(
            help="A language that the model was made for, as en; may be given several times. "
            "Passages in others are ranked more by their words.",
            show_default="any",
        ),
    ] = None,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Register a space: from now on new and changed files are embedded in it, too.

    It is searched only when it is named, until it is activated.

    Example: narwhal spaces add bge-m3 --dim 1024
    """
    from narwhal.spaces import describe_model

    with _spaces(home) as spaces:
        described = describe_model(name, model, revision, dim, max_tokens, kind.value, language)
        space = spaces.add(name, kind.value, described)
    _show_one(space, as_json)
    say(f"next: narwhal spaces backfill {name}")


@spaces_app.command("backfill")
def backfill(
    name: Name,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Only say how much it is, how long, and what for.")
    ] = False,
    rate: Annotated[
        float | None,
        typer.Option(
            help="Chunks that a worker embeds in a minute.",
            show_default="as measured in the space, or spaces.chunks_per_minute",
        ),
    ] = None,
    price: Annotated[
        float | None,
        typer.Option(
            help="US dollars for an hour of a worker.", show_default="spaces.price_per_hour"
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Workers to reckon with.")] = 1,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait until workers have done it.")
    ] = True,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Embed everything that a space lacks; workers do it, after what users wait for.

    Stopped or killed, it goes on where it was when it is started again.

    Example: narwhal spaces backfill bge-m3 --estimate
    """
    with _spaces(home) as spaces:
        expected = spaces.estimate(name, rate, price, workers)
        if estimate:
            if as_json:
                show_json(expected)
            else:
                show([expected], ["files", "chunks", "to_embed", "minutes", "cost_usd"])
                say(
                    f"at {expected['chunks_per_minute']:g} chunks a minute (from the "
                    f"{expected['rate_from']}), {workers} workers, "
                    f"${expected['price_per_hour']:g} an hour"
                )
            return
        say(f"{expected['to_embed']} texts to embed, about {expected['minutes']} minutes")
        space = spaces.backfill(name, Steps(), wait=wait)
    _show_one(space, as_json)


@spaces_app.command("compare")
def compare(
    name: Name,
    other: Other = None,
    questions: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="Questions, one a line, asked to the files of --as."
        ),
    ] = None,
    as_user: Annotated[
        str | None, typer.Option("--as", metavar="EMAIL", help="Whose files are asked.")
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Labelled questions, as for eval run: nDCG per space.",
        ),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, max=10_000, help="Passages picked.")] = 100,
    top_k: Annotated[int, typer.Option(min=1, max=100, help="How many hits are compared.")] = 10,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Say how far a space agrees with the active one, before it is activated.

    Without more, passages picked at random look for their neighbours in both, which takes no model:
    overlap is the mean share of the first top_k that both find. With --folder each space is
    evaluated, and the figures are kept for spaces activate.

    Example: narwhal spaces compare bge-m3 --folder data/scifact
    """
    if (questions is None) != (as_user is None):
        raise typer.BadParameter("--questions and --as belong together")
    with _spaces(home) as spaces:
        if questions is not None and as_user is not None:
            lines = [line.strip() for line in questions.read_text("utf-8").splitlines()]
            asked = [line for line in lines if line]
            if not asked:
                raise typer.BadParameter(f"there is no question in {questions}")
            answer = spaces.compare_questions(name, other, asked, as_user, top_k)
        else:
            answer = spaces.compare(name, other, samples, top_k)
        if folder is not None:
            answer["evaluations"] = {
                each: _evaluated(spaces, folder, each, home)
                for each in (answer["space"], answer["with"])
            }
    if as_json:
        show_json(answer)
        return
    show([answer], ["space", "with", "samples", "top_k", "overlap", "least"])
    if folder is not None:
        figures = [{"space": each, **found} for each, found in answer["evaluations"].items()]
        show(figures, ["space", "ndcg_at_10", "recall_at_100", "mrr_at_10", "hit_at_5"])


@spaces_app.command("activate")
def activate(
    name: Name,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for files that are still being read.")
    ] = 0,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Make a space the one that is searched, in one step, while it is searched.

    Refused while it lacks anything that the active one has, and when an evaluation found it worse.
    The one before is written on, so that a rollback finds it complete.

    Example: narwhal spaces activate bge-m3
    """
    with _spaces(home) as spaces:
        answer = spaces.activate(name, wait, Steps())
    if as_json:
        show_json(answer)
    elif answer["changed"]:
        print(f"{name} is active; before: {answer['previous'] or 'none'}")
    else:
        print(f"{name} is active already")


@spaces_app.command("train")
def train(
    name: Annotated[str | None, typer.Argument(help="The name of the space.")] = None,
    due: Annotated[
        bool, typer.Option("--due", help="All spaces that have outgrown their codebook.")
    ] = False,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Learn which pages are worth a full comparison, for a space of pages.

    Up to 500 pages that somebody may read are all compared; above, centroids learnt from a sample
    choose. Workers train by themselves when a space has more than pages.codebook_from pages, and
    again at pages.codebook_growth times as many: this is for whoever does not want to wait. Search
    goes on meanwhile. Stopped or killed, it goes on where it was when it is started again.

    Example: narwhal spaces train --due
    """
    if (name is None) != due:
        raise typer.BadParameter("name a space, or say --due")
    from narwhal.codebooks import train as train_codebook
    from narwhal.codebooks import train_due

    def progress(done: int, total: int) -> None:
        say(f"{done} of {total} pages signed")

    with _spaces(home) as spaces:
        if name is None:
            made = train_due(spaces.connection, progress)
        else:
            made = [train_codebook(spaces.connection, name, progress=progress)]
    if as_json:
        show_json([asdict(each) for each in made])
        return
    if not made:
        print("nothing to train")
    for each in made:
        print(f"{each.space}: {each.centroids} centroids for {each.pictures} pages")


@spaces_app.command("rollback")
def rollback(
    kind: Annotated[Kind, typer.Option(help="Of which kind.")] = Kind.text,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Go back to the space that was active before the last activation, at once.

    Example: narwhal spaces rollback
    """
    with _spaces(home) as spaces:
        answer = spaces.rollback(kind.value)
    if as_json:
        show_json(answer)
        return
    print(f"{answer['space']} is active again; before: {answer['previous']}")
    if answer["missing_chunks"]:
        say(f"note: {answer['missing_chunks']} chunks are still being embedded in it")


@spaces_app.command("index")
def index(
    name: Name,
    drop: Annotated[bool, typer.Option("--drop", help="Remove the index.")] = False,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Build it where it does not pay.")
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Build the HNSW index of a space, if it pays: for owners with very many chunks.

    Others are searched exactly with or without it; all that is written pays for it. Searches and
    writes go on meanwhile. Broken off, it starts anew when it is started again.

    Example: narwhal spaces index minilm-l6-v2 --dry-run
    """
    with _spaces(home) as spaces:
        found = spaces.index(name)
        if drop and not dry_run:
            found = spaces.drop_index(name)
        elif not drop and not dry_run and not found["is_valid"]:
            if not found["pays"] and not anyway:
                raise NarwhalError(
                    f"An index does not pay: nobody has enough of the {found['chunks']} chunks; "
                    f"the largest owner has {found['largest_owner_chunks']}.",
                    "Exact search is fast enough for them. To build it all the same: --anyway.",
                    error="CONFLICT_STATE",
                    status=409,
                    details=found,
                )
            say(f"indexing {found['chunks']} vectors")
            found = spaces.build_index(name)
    columns = ["name", "index", "is_valid", "chunks", "largest_owner_chunks", "pays"]
    if as_json:
        show_json(found)
    else:
        show([found], columns)


@spaces_app.command("retire")
def retire(
    name: Name,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Take a space out of use for good, and remove its vectors in batches.

    Stopped or killed, it goes on where it was when it is started again. The active one is refused.

    Example: narwhal spaces retire minilm-l6-v2 --yes
    """
    with _spaces(home) as spaces:
        space = spaces.named(name)
        if space["state"] == "active":
            raise NarwhalError(
                f'The space "{name}" is active.',
                "Activate another one first, or roll back.",
                error="CONFLICT_STATE",
                status=409,
                details={"state": "active"},
            )
        if not dry_run:
            confirm(
                f"Remove the space {name} with {space['vectors']} vectors in service and "
                f"{space['texts']} texts embedded?",
                yes,
            )
            space = spaces.retire(name, Steps())
    if as_json:
        show_json(space | {"dry_run": dry_run})
    elif dry_run:
        print(
            f"would remove {space['vectors']} vectors in service, {space['texts']} texts embedded "
            f"and {sum(space['jobs'].values())} jobs ({human_size(space['bytes'])})"
        )
    else:
        print(f"{name} is retired; {space['removed']} rows removed")


@spaces_app.command("export")
def export(
    name: Name,
    collection: Annotated[str, typer.Option(help="The collection; it is made anew.")],
    owner: Annotated[
        str | None, typer.Option(metavar="EMAIL", help="Only the files of this user.")
    ] = None,
    all_owners: Annotated[
        bool, typer.Option("--all-owners", help="The files of everybody.")
    ] = False,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Copy a text space into a collection of vecs, to explore it.

    Whoever can read the schema vecs can read it, with no regard to shares: it is for you alone.
    Needs the extra: pip install 'narwhal[vecs]'.

    Example: narwhal spaces export minilm-l6-v2 --collection mine --owner you@example.com
    """
    from narwhal.vectors import export_space

    _one_or_all(owner, all_owners)
    url = load_settings(home).require("database_url")
    with _spaces(home) as spaces:
        answer = export_space(url, spaces, name, collection, owner)
    if as_json:
        show_json(answer)
    else:
        print(f"{answer['exported']} vectors in the collection {collection}")


@spaces_app.command("import")
def import_(
    name: Name,
    collection: Annotated[str, typer.Option(help="A collection of vecs; its ids are chunks.")],
    model: Annotated[str, typer.Option(help="The model that made the vectors.")],
    revision: Annotated[str, typer.Option(help="Which weights it had.")],
    owner: Annotated[
        str | None, typer.Option(metavar="EMAIL", help="Only the files of this user.")
    ] = None,
    all_owners: Annotated[
        bool, typer.Option("--all-owners", help="The files of everybody.")
    ] = False,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Make a new text space of a collection of vecs, such as one that was computed elsewhere.

    Its ids are those of chunks, as export gives them. Vectors of chunks that are gone, or whose
    text_hash in the metadata is another one now, are left out; a back-fill embeds what is missing.
    Needs the extra: pip install 'narwhal[vecs]'.

    Example: narwhal spaces import new --collection mine --model m --revision 1 --all-owners
    """
    from narwhal.vectors import import_space

    _one_or_all(owner, all_owners)
    url = load_settings(home).require("database_url")
    with _spaces(home) as spaces:
        answer = import_space(url, spaces, name, collection, model, revision, owner)
    if as_json:
        show_json(answer)
    else:
        print(f"{answer['imported']} vectors imported, {answer['left_out']} left out")


class Steps:
    """Says where a long command is, at most twice a second unless it is something new."""

    def __init__(self) -> None:
        self._last = ""
        self._at = 0.0

    def __call__(self, text: str) -> None:
        """Say a step."""
        now = time.monotonic()
        if text == self._last or (now - self._at < 0.5 and text[-6:] == self._last[-6:]):
            return
        self._last, self._at = text, now
        say(text)


@contextmanager
def _spaces(home: Path | None) -> Iterator[Spaces]:
    url = load_settings(home).require("database_url")
    from narwhal.spaces import Spaces

    spaces = Spaces(url)
    try:
        yield spaces
    finally:
        spaces.close()


def _one_or_all(owner: str | None, all_owners: bool) -> None:
    if (owner is None) != all_owners:
        raise typer.BadParameter("say whose: --owner EMAIL or --all-owners")


def _evaluated(spaces: Spaces, folder: Path, name: str, home: Path | None) -> dict[str, Any]:
    from narwhal.evaluation.collection import load_collection
    from narwhal.evaluation.running import evaluate

    settings = load_settings(home)
    figures = evaluate(
        load_collection(folder),
        database_url=settings.require("database_url"),
        settings=None,
        cache=settings.home / "cache",
        space=name,
        shares=False,
    ).figures
    spaces.record_figures(figures, has_passed=True)
    found: dict[str, Any] = next(iter(figures["shares"].values()))["modes"]["hybrid"]
    return found


def _sized(space: dict[str, Any]) -> dict[str, Any]:
    return space | {"size": human_size(space["bytes"])}


def _show_one(space: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show_json(space)
        return
    show([_sized(space)], COLUMNS)
    jobs = ", ".join(f"{count} {state}" for state, count in space["jobs"].items() if count)
    if jobs:
        print(f"jobs: {jobs}")
    for collection, found in space["evaluations"].items():
        passed = "" if found["has_passed"] else ", failed its gate"
        print(
            f"{collection}: nDCG@10 {found['ndcg']:.3f} of {found['query_count']} questions{passed}"
        )
    for flip in space["flips"]:
        until = f", rolled back {flip['rolled_back_at']}" if flip["rolled_back_at"] else ""
        print(f"activated {flip['activated_at']} after {flip['before'] or 'none'}{until}")
    sys.stdout.flush()
