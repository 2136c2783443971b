"""Quality of search: `narwhal eval …`."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from narwhal.cli.options import AsJson, Home
from narwhal.output import say, show, show_json
from narwhal.settings import Settings, load_settings

if TYPE_CHECKING:
    from narwhal.evaluation.baseline import Loss

eval_app = typer.Typer(no_args_is_help=True, help="Measure how good search is.")
REPORT_EVERY_S = 10.0
COLUMNS = [
    "readable",
    "language",
    "mode",
    "questions",
    "ndcg_at_10",
    "recall_at_100",
    "mrr_at_10",
    "hit_at_5",
    "recall_of_brute_force",
    "p50_ms",
    "p95_ms",
]


def register(app: typer.Typer) -> None:
    """Add these commands to the app."""
    app.add_typer(eval_app, name="eval")


@eval_app.callback()
def _group() -> None:
    """Keep `run` a command of its own, although it is the only one."""


@eval_app.command("run")
def run(
    folder: Annotated[
        Path,
        typer.Argument(
            exists=True,
            file_okay=False,
            help="corpus.jsonl, queries.jsonl (or .gz) and qrels/test.tsv; or files under a "
            "manifest.jsonl with questions.",
        ),
    ],
    space: Annotated[
        str, typer.Option(help="Embedding space to evaluate, in service or not.")
    ] = "active",
    gate: Annotated[
        bool, typer.Option("--gate", help="Fail when a figure is lower than in the baseline.")
    ] = False,
    update_baseline: Annotated[
        bool, typer.Option("--update-baseline", help="Store the figures as the baseline.")
    ] = False,
    baseline: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            help="The baseline to compare with, or to store.",
            show_default="the one in the package, by the folder's name",
        ),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(min=0, max=1, help="Loss that --gate allows; one question's worth always is."),
    ] = 0.005,
    shares: Annotated[
        bool,
        typer.Option(
            "--shares/--no-shares", help="Ask also as readers of 10 % and 1 % of the files."
        ),
    ] = True,
    questions: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Ask at most this many questions of each language, the same ones every time.",
            show_default="all",
        ),
    ] = None,
    scratch: Annotated[
        bool,
        typer.Option("--scratch", help="Use a database of this run's own, whatever is configured."),
    ] = False,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Ask labelled questions as an ordinary user, and show how good the answers are.

    The collection is loaded for accounts made for this run, which are removed in the end: into the
    configured project (DATABASE_URL), or else into a database of this run's own. Figures: nDCG@10,
    recall@100, MRR@10, hit@5, the share of an exact search's ten nearest that the dense leg found,
    and latency; for a reader of everything, of 10 % and of 1 % of the files, and by language.

    In a project, the figures of hybrid search are also kept with the space: `narwhal spaces
    activate` refuses a space that failed its gate, or is worse than the active one.

    Example: narwhal eval run data/scifact --gate
    """
    from narwhal.evaluation.baseline import losses, read_baseline, shipped, write_baseline
    from narwhal.evaluation.collection import load_collection
    from narwhal.evaluation.database import scratch_database
    from narwhal.evaluation.running import evaluate

    settings = load_settings(home)
    collection = load_collection(folder)
    if questions:
        collection = collection.sampled(questions)
    path = baseline or shipped(collection.name)
    # before the work: a gate without a baseline fails at once
    before = read_baseline(path) if gate else None
    with ExitStack() as stack:
        url = settings.database_url
        if scratch or url is None:
            url = stack.enter_context(scratch_database())
            api = None
            is_own = True
        else:
            api = _api(settings)
            is_own = False
        figures = evaluate(
            collection,
            database_url=url,
            settings=api,
            cache=settings.home / "cache",
            space=space,
            shares=shares,
            clean_up=not is_own,
            report=Reporter(),
        ).figures
    lost = losses(before, figures, tolerance) if before else []
    if settings.database_url and not scratch:
        _keep(url, figures, has_passed=not lost)
    if update_baseline:
        write_baseline(path, figures)
        say(f"stored {path}")
    if as_json:
        show_json(figures | {"losses": [vars(loss) for loss in lost]})
    else:
        show(_rows(figures), _columns(figures))
    _end(lost, gate)


def _api(settings: Settings) -> Settings | None:
    """Ask through PostgREST when all is there that it takes."""
    needed = (settings.supabase_url, settings.anon_key, settings.service_role_key)
    return settings if all(needed) else None


def _keep(url: str, figures: dict[str, Any], *, has_passed: bool) -> None:
    """Keep the figures with their space: one that is worse than the active one is not activated."""
    from narwhal.spaces import Spaces

    spaces = Spaces(url)
    try:
        spaces.record_figures(figures, has_passed=has_passed)
    finally:
        spaces.close()


def _end(lost: list[Loss], gate: bool) -> None:
    for loss in lost:
        say(f"lost: {loss}")
    if lost:
        raise typer.Exit(1)
    if gate:
        say("nothing is lower than in the baseline")


def _columns(figures: dict[str, Any]) -> list[str]:
    languages = {name for share in figures["shares"].values() for name in share["languages"]}
    return [name for name in COLUMNS if name != "language" or len(languages) > 1]


def _rows(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a reader, language and mode; languages only where there are several."""
    rows = []
    for share, of_share in figures["shares"].items():
        groups = {"all": of_share}
        if len(of_share["languages"]) > 1:
            groups |= of_share["languages"]
        for language, group in groups.items():
            for mode, values in group["modes"].items():
                rows.append(
                    {
                        "readable": share,
                        "language": language,
                        "mode": mode,
                        "questions": group["questions"],
                        **{
                            name: f"{value:.1f}" if name.endswith("_ms") else f"{value:.3f}"
                            for name, value in values.items()
                        },
                    }
                )
    return rows


class Reporter:
    """Says on stderr how far a run is, every few seconds."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Report progress."""
        if time.monotonic() - self._last >= REPORT_EVERY_S:
            self._last = time.monotonic()
            say(f"{what}: {done} of {total}")
