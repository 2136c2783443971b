"""The demo: real files in through the official clients, found by their owner and by nobody else.

Run by scripts/demo. Everything below that talks to Narwhal is supabase-py or tuspy, as any
application would use them; only starting and stopping the stack goes through the `narwhal` command.
"""

from __future__ import annotations

import argparse
import json
import mimetypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from demo_view import View, megabytes
from supabase import Client, ClientOptions, create_client
from tusclient.client import TusClient

SAMPLES = Path(__file__).resolve().parent / "samples"
NOT_SAMPLES = {"README.md", "make.py"}
# names that a drive must carry, of files that a repository should not
NAMES = {"white-dolphins.zh.md": "白海豚观察记录.md"}
SETTLED = {"ready", "failed", "skipped", "rejected"}
PASSWORD = "correct horse battery staple"  # of two accounts that live for a minute
STALL_LIMIT_S = 60  # without any change: no worker is at work


@dataclass(frozen=True)
class Question:
    """A search and what it must find among its first hits."""

    mode: str
    query: str
    why: str
    file: str
    page: int | None = None
    within: int = 3  # the expected file is among the first so many hits


QUESTIONS = [
    Question(
        "keyword",
        "NP-2291-K",
        "an exact number, on a slide",
        "hollow-bank-briefing.pptx",
        page=4,
        within=1,
    ),
    Question("keyword", "白海豚 渔船 噪声", "Chinese words", "白海豚观察记录.md", within=1),
    Question(
        "semantic",
        "somebody cannot breathe under water any more",
        "by meaning, from the diving rules",
        "diving-handbook.docx",
    ),
    Question(
        "semantic",
        "how expensive is fuel for the ship",
        "by meaning: the sheet says marine diesel",
        "budget-2026.xlsx",
        page=2,
    ),
    Question(
        "hybrid",
        "Warum wächst das Seegras wieder?",
        "German, by words and by meaning",
        "Seegraswiesen-Zwischenbericht.docx",
    ),
    Question(
        "hybrid",
        "how deep is the trench beside the Hollow Bank",
        "in the file whose upload was interrupted",
        "seabed-atlas.pdf",
        page=3,
    ),
]


class DemoError(Exception):
    """Something that the demo promises did not happen."""


@dataclass
class Summary:
    """What happened, for --json."""

    files: list[dict[str, Any]] = field(default_factory=list)
    searches: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0


def shown_name(path: Path) -> str:
    """Return the name under which a sample is uploaded."""
    return NAMES.get(path.name, path.name)


def narwhal(home: Path, *arguments: str) -> str:
    """Run one narwhal command on the demo's home; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "narwhal", *arguments, "--home", str(home)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise DemoError(f"narwhal {arguments[0]} failed:\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout


def sign_up(url: str, anon_key: str, email: str, name: str) -> Client:
    """Make an account and return a client that is signed in to it."""
    client = create_client(url, anon_key, ClientOptions(auto_refresh_token=False))
    client.auth.sign_up(
        {"email": email, "password": PASSWORD, "options": {"data": {"full_name": name}}}
    )
    client.auth.sign_in_with_password({"email": email, "password": PASSWORD})
    return client


def upload(client: Client, url: str, anon_key: str, path: Path, view: View) -> dict[str, Any]:
    """Ask for a ticket, then send the bytes the way the ticket says; return the ticket."""
    mime = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    size = path.stat().st_size
    request = {
        "name": shown_name(path),
        "folder_id": None,
        "size": size,
        "mime": mime,
        "sha256": None,
        "on_conflict": "fail",
    }
    ticket: dict[str, Any] = client.rpc("begin_upload", request).execute().data
    if ticket["mode"] == "tus":
        upload_with_interruption(client, url, anon_key, path, ticket | {"mime": mime}, view)
    else:
        client.storage.from_(ticket["bucket"]).upload(ticket["key"], path, {"content-type": mime})
        view.note(f"{shown_name(path)}: {megabytes(size)}")
    return ticket


def upload_with_interruption(
    client: Client, url: str, anon_key: str, path: Path, ticket: dict[str, Any], view: View
) -> None:
    """Send a large file by TUS, lose the connection after the first part, and go on from there."""
    size = path.stat().st_size

    def uploader(upload_url: str | None) -> Any:
        session = client.auth.get_session()
        headers = {"Authorization": f"Bearer {session.access_token}", "apikey": anon_key}
        return TusClient(f"{url}/storage/v1/upload/resumable", headers=headers).uploader(
            str(path),
            url=upload_url,
            chunk_size=ticket["chunk_size"],
            metadata={
                "bucketName": ticket["bucket"],
                "objectName": ticket["key"],
                "contentType": ticket["mime"],
            },
        )

    first = uploader(None)
    first.upload_chunk()
    upload_url = first.url
    sent = first.offset
    del first  # the browser tab is closed, the cable is pulled: only the upload's URL is left
    share = 100 * sent // size
    view.note(f"{shown_name(path)}: {megabytes(size)}, sent in parts (TUS)")
    view.note(f"   interrupted after {megabytes(sent)} ({share} %) …")
    second = uploader(upload_url)  # asks the server how far it got
    if second.offset != sent:
        raise DemoError(f"the server kept {second.offset} of {sent} bytes of {shown_name(path)}")
    second.upload()
    view.note(f"   … resumed there by a new client, {megabytes(size - sent)} were left to send")


def watch(client: Client, tickets: dict[str, dict[str, Any]], view: View) -> dict[str, str]:
    """Poll the owner's own rows until every file is settled; return the status of each name."""
    started = changed = time.monotonic()
    settled_at: dict[str, float] = {}
    before: list[tuple[str, str, str]] = []
    while True:
        nodes = client.table("nodes").select("id,name,status").eq("kind", "file").execute().data
        jobs = (
            client.table("ingest_jobs")
            .select("file_id,stage,state,progress,pages_done,pages_total,error_code,error_message")
            .execute()
            .data
        )
        statuses = {node["name"]: node["status"] for node in nodes}
        rows = []
        for name, ticket in tickets.items():
            status = statuses.get(name, "missing")
            mine = [job for job in jobs if job["file_id"] == ticket["file_id"]]
            elapsed = time.monotonic() - started
            if status in SETTLED:
                settled_at.setdefault(name, elapsed)
            rows.append((name, status, _progress(status, mine, settled_at.get(name))))
        view.table(rows)
        if all(statuses.get(name) in SETTLED for name in tickets):
            view.table_done()
            return {name: statuses[name] for name in tickets}
        if rows != before:
            changed, before = time.monotonic(), rows
        if time.monotonic() - changed > STALL_LIMIT_S:
            view.table_done()
            raise DemoError(f"nothing was read for {STALL_LIMIT_S} s")
        time.sleep(0.3)


def _progress(status: str, jobs: list[dict[str, Any]], settled_after: float | None) -> str:
    """Say where one file stands: its running stage, or how it ended."""
    for job in jobs:
        if job["error_code"]:
            return f"{job['stage']}: {job['error_code']} ({job['error_message']})"
    if settled_after is not None:
        pages = max((job["pages_total"] or 0 for job in jobs), default=0)
        return f"after {settled_after:.1f} s" + (f", {pages} pages" if pages > 1 else "")
    running = [job for job in jobs if job["state"] == "running"]
    waiting = [job for job in jobs if job["state"] == "queued"]
    if running:
        share = round(10 * float(running[0]["progress"] or 0))
        return f"{'█' * share}{'░' * (10 - share)} {running[0]['stage']}"
    return f"waiting for {waiting[0]['stage']}" if waiting and status != "queued" else ""


def search(client: Client, question: Question) -> dict[str, Any]:
    """Ask ai/search as this client's user."""
    answer: Any = client.functions.invoke(
        "ai/search",
        {
            "body": {"query": question.query, "mode": question.mode, "top_k": 3},
            "responseType": "json",
        },
    )
    return dict(answer)


def check(question: Question, hits: list[dict[str, Any]]) -> str | None:
    """Return what is wrong with an answer, or None."""
    for hit in hits[: question.within]:
        if hit["name"] == question.file and question.page in (None, hit["page"]):
            return None
    place = question.file + (f", page {question.page}" if question.page else "")
    found = ", ".join(f"{hit['name']} p. {hit['page']}" for hit in hits) or "nothing"
    return f"{question.mode} search for {question.query!r}: {place} expected, {found} found"


def ask_all(owner: Client, stranger: Client, view: View, summary: Summary) -> None:
    """Run every search as the owner and show it, then as the stranger, who must see nothing."""
    view.step(4, "Search as the owner: by keyword, by meaning, by both")
    for number, question in enumerate(QUESTIONS, 1):
        started = time.monotonic()
        answer = search(owner, question)
        took = time.monotonic() - started
        view.question(number, question.mode, question.query, question.why)
        for hit in answer["hits"][:2]:
            view.hit(hit, question.query)
        problem = check(question, answer["hits"])
        if answer["degraded"] and question.mode != "keyword":
            problem = f"{question.mode} search for {question.query!r} was answered by keyword only"
        if problem:
            summary.problems.append(problem)
            view.line(view.paint("31", f"      NOT FOUND: {problem}"))
        summary.searches.append(
            {
                "query": question.query,
                "mode": question.mode,
                "milliseconds": round(took * 1000),
                "found": problem is None,
                "hits": [
                    {key: hit[key] for key in ("name", "page", "score")} for hit in answer["hits"]
                ],
            }
        )

    view.step(5, "The same six searches as the other user")
    for question, entry in zip(QUESTIONS, summary.searches, strict=True):
        entry["stranger_hits"] = len(search(stranger, question)["hits"])
        view.note(f"{question.query}: {entry['stranger_hits']} hits")
        if entry["stranger_hits"]:
            summary.problems.append(f"the other user found something: {question.query!r}")
    for table in ("nodes", "file_versions", "pages", "chunks", "ingest_jobs", "uploads"):
        seen = len(stranger.table(table).select("id").execute().data)
        mine = len(owner.table(table).select("id").execute().data)
        if seen or not mine:
            summary.problems.append(f"{table}: the other user sees {seen} rows, the owner {mine}")
    if not summary.problems:
        view.note(
            "Nothing found, and no row visible in any table: the owner's files do not exist here."
        )


def perform(home: Path, view: View, summary: Summary) -> dict[str, Any]:
    """Play the demo against a fresh stack in `home`; return the stack's status."""
    view.step(1, "Start the local stack: Postgres, PostgREST, gateway, worker")
    narwhal(home, "up", "--detach", "--port", "0")
    stack: dict[str, Any] = json.loads(narwhal(home, "status", "--json"))
    url, anon_key = stack["api_url"], stack["anon_key"]
    view.note(f"Running at {url}, everything it writes is in {home}")

    view.step(2, "Two people sign up; the first uploads the documents of scripts/samples")
    owner = sign_up(url, anon_key, "owner@skerrow.example", "Ailsa Renwick")
    stranger = sign_up(url, anon_key, "stranger@elsewhere.example", "A stranger")
    samples = sorted(path for path in SAMPLES.iterdir() if path.name not in NOT_SAMPLES)
    tickets = {shown_name(path): upload(owner, url, anon_key, path, view) for path in samples}

    view.step(3, "The worker reads, splits and embeds them")
    statuses = watch(owner, tickets, view)
    for path in samples:
        status = statuses[shown_name(path)]
        summary.files.append(
            {
                "name": shown_name(path),
                "size": path.stat().st_size,
                "mode": tickets[shown_name(path)]["mode"],
                "status": status,
            }
        )
        if status != "ready":
            summary.problems.append(f"{shown_name(path)} is {status}, not ready")

    ask_all(owner, stranger, view, summary)
    return stack


def say_how_to_connect(view: View, home: Path, stack: dict[str, Any]) -> None:
    """Print what a newcomer needs to go on from here with supabase-js."""
    view.step(6, "The stack keeps running")
    view.line(f"""
   npm install @supabase/supabase-js   # then save as demo.mjs and run
                                       # node demo.mjs (Node 20: node --experimental-websocket)

   import {{ createClient }} from '@supabase/supabase-js'
   const sb = createClient('{stack["api_url"]}',
     '{stack["anon_key"]}')
   await sb.auth.signInWithPassword({{
     email: 'owner@skerrow.example', password: '{PASSWORD}' }})
   const {{ data }} = await sb.functions.invoke('ai/search', {{
     body: {{ query: 'who chewed the cable of buoy 7?', mode: 'hybrid' }} }})
   console.log(data.hits.map(h => [h.name, h.page, h.snippet]))

   Look around:   .venv/bin/narwhal status --home {home}
   Stop it:       .venv/bin/narwhal down --home {home} && rm -r {home}""")


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/demo",
        description="Upload real files, watch them being read, and find them again.",
    )
    parser.add_argument(
        "--keep", action="store_true", help="leave the stack running and say how to connect to it"
    )
    parser.add_argument(
        "--json", action="store_true", help="print a summary as JSON to stdout, the rest to stderr"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Run the demo; return 0 when everything it promises was seen."""
    options = parse(arguments)
    view = View(sys.stderr if options.json else sys.stdout)
    summary = Summary()
    keep = options.keep
    # a closed terminal and a plain kill stop the stack just as Ctrl-C does
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.default_int_handler)
    home = Path(tempfile.mkdtemp(prefix="narwhal-demo-"))
    try:
        stack = perform(home, view, summary)
        if keep:
            say_how_to_connect(view, home, stack)
    except KeyboardInterrupt:
        keep = False
        summary.problems.append("interrupted")
    except DemoError as error:
        summary.problems.append(str(error))
        view.line(said_by(home))
    except Exception as error:  # a refusal by any of the services, or a defect: say where
        traceback.print_exc()
        summary.problems.append(f"{type(error).__name__}: {error}")
    finally:
        if not keep:
            stop(home, view)
    summary.seconds = round(time.monotonic() - view.started, 1)
    if options.json:
        print(json.dumps(asdict(summary), ensure_ascii=False, indent=2))
    view.line()
    if summary.problems:
        view.line(view.paint("1;31", "The demo failed:"))
        for problem in summary.problems:
            view.line(f"   {problem}")
        if keep:
            view.line(f"   The stack was left as it is; its logs are in {home / 'logs'}")
        else:
            view.line("   scripts/demo --keep leaves the stack and its logs to look into.")
        return 1
    view.line(view.paint("1;32", f"Everything was found, in {summary.seconds:.0f} s."))
    return 0


def said_by(home: Path) -> str:
    """The stack's own view of itself, for a demo that failed."""
    try:
        return narwhal(home, "status")
    except DemoError as error:
        return str(error)


def stop(home: Path, view: View) -> None:
    """Stop the stack and remove its home, whatever state it is in."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave servers behind
    try:
        narwhal(home, "down")
    except DemoError as error:
        view.line(str(error))
    shutil.rmtree(home, ignore_errors=True)
    if home.exists():
        view.line(f"   could not remove {home}")


if __name__ == "__main__":
    os.environ["PYTHONUNBUFFERED"] = "1"
    sys.exit(main(sys.argv[1:]))
