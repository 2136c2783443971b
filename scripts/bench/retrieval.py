"""Search beside its peers in one run: each leg, both together, end to end, as they grow.

Starts a stack of its own and gives one account per size that many chunks: files of 20 passages,
each passage made of whole sentences drawn at random from the collections given (BEIR layout), so
words and their frequencies are those of real text while no two passages are alike. Vectors are
clustered around 200 topics at random: exact search does not depend on what they mean. Questions
are those of the collections. When all accounts are there, each is asked, over the same passages,
vectors and questions:

keyword  hybrid_search by keyword / bm25s, tantivy, sparse vectors in a covering index
dense    hybrid_search by meaning / numpy brute force, LanceDB without an index, vectors in a
                                    covering index
hybrid   hybrid_search            / LanceDB's hybrid search, and the SQL of Supabase's guide (full
                                    text and HNSW, fused by rank) under row level security

as wall-clock and as CPU time of whoever does the work, which a busy machine distorts less; then
with the user's token through PostgREST, and through the gateway in front of it: one at a time and
32 at once, and with 100 hits instead of 8. Peers look at all passages: they have no permissions,
except the guide's SQL, whose table also holds another owner's passages, and the covering indexes,
whose simple designs set the bars (covering.py). The ten nearest by meaning must be those of numpy
(recall).

Peers are needed here only; --peers names the folder that they were installed into:
    pip install --target FOLDER bm25s PyStemmer tantivy lancedb
Example: scripts/bench/run retrieval path/to/scifact path/to/npl --sizes 10000 --peers FOLDER
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psycopg

from narwhal.evaluation.asking import DirectAsker, RestAsker, User
from narwhal.evaluation.collection import load_collection
from narwhal.local.home import Home
from narwhal.local.rest import SOCKET
from narwhal.local.state import StackState
from narwhal.settings import Settings
from scripts.bench.covering import covering
from scripts.bench.report import machine, write
from scripts.bench.stack import new_user, stack

DIMENSION = 384
CHUNKS_A_FILE = 20
CHUNK_CHARS = 900
TOPICS = 200
CANDIDATES = 50
TOP = 8
MOST = 100
AT_ONCE = 32
# end to end at 100,000 readable chunks, through PostgREST, one search at a time
BARS_MS = {"keyword": 40, "dense": 30}
HYBRID_MORE_MS = 10  # than both of them together
COVERING = {"keyword": "sparse vectors in a covering index", "dense": "vectors in a covering index"}
SENTENCE = re.compile(r"(?<=[.!?;])\s+")
MODES: dict[str, dict[str, Any]] = {
    # "cache": false, since a question asked before would be answered from what is kept
    "keyword": {"weights": {"vector": 0, "name": 0}, "cache": False},
    "dense": {"weights": {"keyword": 0, "name": 0}, "cache": False},
    "hybrid": {"cache": False},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("collections", type=Path, nargs="+", help="folders in BEIR layout")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--all", action="store_true", help="also 1,000,000 chunks")
    parser.add_argument("--questions", type=int, default=40)
    parser.add_argument("--peers", type=Path, help="folder that the peers were installed into")
    parser.add_argument("--seconds", type=float, default=15, help="of searches at once")
    options = parser.parse_args()
    if options.peers:
        sys.path.append(str(options.peers))
    sentences, questions = real_text(options.collections, options.questions)
    sizes = sorted({*options.sizes, *([1_000_000] if options.all else [])})
    with stack() as (state, settings), psycopg.connect(state.database_url, autocommit=True) as db:
        readers = []
        for size in sizes:
            readers.append(_load(db, settings, Corpus.make(size, sentences, questions)))
            print(f"{size} chunks are in service", file=sys.stderr, flush=True)
        found = []
        for size, reader in zip(sizes, readers, strict=True):
            corpus = Corpus.make(size, sentences, questions)
            found.append(_measure(db, state, settings, corpus, reader, options.seconds))
            print(json.dumps(found[-1], indent=2), file=sys.stderr, flush=True)
    write(
        "retrieval",
        {
            # of others' work too: wall-clock times of a busy machine say little, CPU times hold
            "machine": machine() | {"load_average": os.getloadavg()[0]},
            "text": "sentences of "
            + ", ".join(folder.resolve().name for folder in options.collections),
            "questions": len(questions),
            "sizes": {str(size): figures for size, figures in zip(sizes, found, strict=True)},
            "growth": _growth(sizes, found),
        },
    )


@dataclass
class Corpus:
    """Passages with their vectors, and questions with theirs."""

    passages: list[str]
    vectors: np.ndarray
    questions: list[tuple[str, np.ndarray]]

    @classmethod
    def make(cls, size: int, sentences: list[str], questions: list[str]) -> Corpus:
        """Make a corpus; the same size gives the same one."""
        pick, rng = random.Random(size), np.random.default_rng(size)
        passages = []
        for _ in range(size):
            passage = ""
            while len(passage) < CHUNK_CHARS * 0.8:
                passage = f"{passage} {pick.choice(sentences)}"[:CHUNK_CHARS]
            passages.append(passage.strip())
        centres = rng.normal(size=(TOPICS, DIMENSION)).astype("f4")
        vectors = _unit(centres[rng.integers(0, TOPICS, size)] + _noise(rng, size, 0.7))
        asked = _unit(
            vectors[rng.integers(0, size, len(questions))] + _noise(rng, len(questions), 0.02)
        )
        return cls(passages, vectors, list(zip(questions, asked, strict=True)))


@dataclass
class Times:
    """Wall-clock and CPU milliseconds of one way to ask."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        """The figures to report."""
        figures = {
            "p50_ms": round(statistics.median(self.wall), 2),
            "p95_ms": round(statistics.quantiles(self.wall, n=20)[-1], 2),
            "least_ms": round(min(self.wall), 2),
        }
        if self.cpu:
            # clock ticks are 10 ms: only the mean over all questions says something
            figures["cpu_ms"] = round(statistics.mean(self.cpu), 2)
        return figures


def _measure(
    db: psycopg.Connection[Any],
    state: StackState,
    settings: Settings,
    corpus: Corpus,
    reader: User,
    seconds: float,
) -> dict[str, Any]:
    times: dict[str, Times] = {}
    asker = DirectAsker(state.database_url, reader)
    pid = asker.connection.info.backend_pid
    for mode, options in MODES.items():
        times[mode] = _timed(
            lambda query, vector, options=options: asker.ask(_arguments(query, vector, options)),
            corpus,
            lambda: _cpu_of(pid),
        )
    recall = _recall(asker, corpus)
    explained = {
        mode: asker.ask(_arguments(*corpus.questions[0], options) | {"explain": True})[0]["explain"]
        for mode, options in MODES.items()
    }
    asker.close()
    times |= _peers(corpus)
    times |= _guide(db, corpus, reader)
    times |= _covering(db, corpus, reader)
    times |= _over_http(settings, corpus, reader)
    figures = {name: taken.figures() for name, taken in times.items()}
    return {
        "plan": {mode: answer.get("plan") for mode, answer in explained.items()},
        "recall_at_10_dense": recall,
        "times": figures,
        "ratios": _ratios(figures),
        "at_once": {
            mode: _at_once(settings, corpus, reader, options, seconds)
            for mode, options in MODES.items()
        },
        "bars": _bars(figures) if len(corpus.passages) == 100_000 else {},
    }


def _over_http(settings: Settings, corpus: Corpus, reader: User) -> dict[str, Times]:
    """With the user's token, through the gateway and past it, straight to PostgREST."""
    times: dict[str, Times] = {}
    gateway = RestAsker(settings, reader)
    socket = Home(settings.home).run / SOCKET
    with httpx.Client(
        transport=httpx.HTTPTransport(uds=str(socket)),
        base_url="http://postgrest",
        headers=gateway.http.headers,
        timeout=60,
    ) as rest:
        ways: dict[str, Callable[[dict[str, Any]], Any]] = {
            "PostgREST": lambda asked: rest.post(
                "/rpc/hybrid_search", json=asked
            ).raise_for_status(),
            "gateway": gateway.ask,
        }
        for way, ask in ways.items():
            for mode, options in MODES.items():
                times[f"{mode}, {way}"] = _timed(
                    lambda query, vector, ask=ask, options=options: ask(
                        _arguments(query, vector, options)
                    ),
                    corpus,
                )
            times[f"hybrid, {MOST} hits, {way}"] = _timed(
                lambda query, vector, ask=ask: ask(
                    _arguments(query, vector, MODES["hybrid"], MOST)
                ),
                corpus,
            )
    gateway.close()
    return times


def _bars(figures: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """What was promised for 100,000 chunks, what was found, and what set the bar takes here."""
    found = {mode: figures[f"{mode}, PostgREST"]["p50_ms"] for mode in MODES}
    bars = BARS_MS | {"hybrid": round(found["keyword"] + found["dense"] + HYBRID_MORE_MS, 2)}
    return {
        mode: {"bar_ms": bar, "p50_ms": found[mode]}
        | (
            {"covering_index_p50_ms": figures[COVERING[mode]]["p50_ms"]}
            if COVERING.get(mode) in figures
            else {}
        )
        for mode, bar in bars.items()
    }


def _recall(asker: DirectAsker, corpus: Corpus) -> float:
    """How many of the ten nearest in single precision are among the first ten hits."""
    found = []
    for query, vector in corpus.questions:
        # that copies come last has nothing to do with distances
        options = MODES["dense"] | {"dedup": False}
        hits = asker.ask(_arguments(query, vector, options, 10))[0]["hits"]
        scores = corpus.vectors @ vector
        least = np.partition(scores, -10)[-10]
        # in half precision, equally near ones may change places
        found.append(sum(hit["parts"]["vector_score"] >= least - 5e-4 for hit in hits) / 10)
    return round(statistics.mean(found), 4)


def _arguments(
    query: str, vector: np.ndarray, options: dict[str, Any], top_k: int = TOP
) -> dict[str, Any]:
    by_words = options.get("weights", {}).get("vector") == 0
    return {
        "query": query,
        "embedding": None if by_words else [round(float(x), 6) for x in vector],
        "top_k": top_k,
        "candidates": CANDIDATES,
        "options": options,
    }


def _timed(
    ask: Callable[[str, Any], Any],
    corpus: Corpus,
    cpu: Callable[[], float] | None = None,
) -> Times:
    """Ask a few questions to warm up, then each one for the figures."""
    for query, vector in corpus.questions[:5]:
        ask(query, vector)
    times, before = Times(), cpu() if cpu else 0.0
    for query, vector in corpus.questions:
        started = time.perf_counter()
        ask(query, vector)
        times.wall.append((time.perf_counter() - started) * 1000)
    if cpu:
        times.cpu = [(cpu() - before) / len(corpus.questions)]
    return times


def _peers(corpus: Corpus) -> dict[str, Times]:
    """Libraries in this process, over all passages."""
    own = lambda: time.process_time() * 1000  # noqa: E731
    times = {
        "numpy": _timed(
            lambda _query, vector: np.argpartition(-(corpus.vectors @ vector), CANDIDATES),
            corpus,
            own,
        )
    }
    for name, make in (("bm25s", _bm25s), ("tantivy", _tantivy)):
        try:
            ask = make(corpus)
        except ModuleNotFoundError as error:
            print(f"without {name}: {error}", file=sys.stderr)
        else:
            times[name] = _timed(ask, corpus, own)
    try:
        with _lancedb(corpus) as (dense, hybrid):
            times["lancedb, exact"] = _timed(dense, corpus, own)
            times["lancedb, hybrid"] = _timed(hybrid, corpus, own)
    except ModuleNotFoundError as error:
        print(f"without lancedb: {error}", file=sys.stderr)
    return times


def _bm25s(corpus: Corpus) -> Callable[[str, Any], Any]:
    import bm25s
    import Stemmer

    stemmer = Stemmer.Stemmer("english")
    retriever = bm25s.BM25(k1=0.9, b=0.4)
    tokens = bm25s.tokenize(corpus.passages, stopwords="en", stemmer=stemmer, show_progress=False)
    retriever.index(tokens, show_progress=False)

    def ask(query: str, _vector: Any) -> Any:
        asked = bm25s.tokenize([query], stopwords="en", stemmer=stemmer, show_progress=False)
        return retriever.retrieve(asked, k=CANDIDATES, show_progress=False)

    return ask


def _tantivy(corpus: Corpus) -> Callable[[str, Any], Any]:
    import tantivy

    builder = tantivy.SchemaBuilder()
    builder.add_text_field("body", tokenizer_name="en_stem")
    builder.add_integer_field("place", stored=True)
    index = tantivy.Index(builder.build())
    writer = index.writer(heap_size=200_000_000, num_threads=1)
    for place, passage in enumerate(corpus.passages):
        writer.add_document(tantivy.Document(body=passage, place=place))
    writer.commit()
    writer.wait_merging_threads()
    index.reload()
    searcher = index.searcher()

    def ask(query: str, _vector: Any) -> Any:
        words = re.sub(r"\W+", " ", query)
        return searcher.search(index.parse_query(words, ["body"]), CANDIDATES)

    return ask


@contextmanager
def _lancedb(
    corpus: Corpus,
) -> Iterator[tuple[Callable[[str, Any], Any], Callable[[str, Any], Any]]]:
    os.environ.setdefault("LANCE_LOG", "error")  # it warns of every search
    import lancedb
    import pyarrow
    from lancedb.index import FTS

    with tempfile.TemporaryDirectory(prefix="narwhal-bench-") as folder:
        rows = pyarrow.table(
            {
                "place": np.arange(len(corpus.passages)),
                "text": corpus.passages,
                "vector": pyarrow.FixedSizeListArray.from_arrays(
                    pyarrow.array(corpus.vectors.ravel()), DIMENSION
                ),
            }
        )
        table = lancedb.connect(folder).create_table("passages", rows)
        table.create_index("text", config=FTS())

        def dense(_query: str, vector: Any) -> Any:
            return (
                table.search(vector)
                .distance_type("dot")
                .select(["place"])
                .limit(CANDIDATES)
                .to_list()
            )

        def hybrid(query: str, vector: Any) -> Any:
            words = re.sub(r"\W+", " ", query)
            asked = table.search(query_type="hybrid").vector(vector).text(words)
            return asked.distance_type("dot").select(["place"]).limit(CANDIDATES).to_list()

        yield dense, hybrid


def _guide(db: psycopg.Connection[Any], corpus: Corpus, reader: User) -> dict[str, Times]:
    """Supabase's guide to hybrid search: one table, tsvector and HNSW, the ranks fused.

    As https://supabase.com/docs/guides/ai/hybrid-search has it, with owners and row security, as
    its users add them; so that both answer for one account among several.
    """
    if len(corpus.passages) > 100_000:
        return {}  # the index takes longer to build than everything else together
    db.execute(GUIDE)
    other = uuid.uuid4()
    with db.cursor().copy("copy guide.documents (owner_id, content, embedding) from stdin") as copy:
        for owner in (reader.id, other):
            for passage, vector in zip(corpus.passages, corpus.vectors, strict=True):
                copy.write_row((owner, passage, str(vector.tolist())))
    db.execute("set maintenance_work_mem = '1GB'")
    db.execute("create index on guide.documents using gin (fts)")
    db.execute("create index on guide.documents using hnsw (embedding extensions.vector_ip_ops)")
    db.execute("analyze guide.documents")
    with _as_reader(db, reader) as connection:
        times = _timed(
            lambda query, vector: connection.execute(
                "select id from guide.hybrid_search(%s, %s::extensions.vector, %s)",
                (query, str(vector.tolist()), TOP),
            ).fetchall(),
            corpus,
            lambda: _cpu_of(connection.info.backend_pid),
        )
    db.execute("drop schema guide cascade")
    return {"guide": times}


def _covering(db: psycopg.Connection[Any], corpus: Corpus, reader: User) -> dict[str, Times]:
    """Both designs with one row a chunk; as long to fill as they are wide."""
    if len(corpus.passages) > 100_000:
        return {}
    questions = [query for query, _ in corpus.questions]
    with (
        _as_reader(db, reader) as connection,
        covering(db, connection, reader, questions, CANDIDATES) as asks,
    ):
        return {
            name: _timed(ask, corpus, lambda: _cpu_of(connection.info.backend_pid))
            for name, ask in zip(COVERING.values(), asks, strict=True)
        }


@contextmanager
def _as_reader(db: psycopg.Connection[Any], reader: User) -> Iterator[psycopg.Connection[Any]]:
    """Connect once more, as PostgREST would for that user."""
    with psycopg.connect(db.info.dsn, password=db.info.password, autocommit=True) as connection:
        connection.execute(
            "select set_config('request.jwt.claims', %s, false)",
            (json.dumps({"sub": str(reader.id), "role": "authenticated"}),),
        )
        connection.execute("set role authenticated")
        yield connection


GUIDE = """
create schema guide;
create table guide.documents (
    id bigint primary key generated always as identity,
    owner_id uuid not null,
    content text,
    fts tsvector generated always as (to_tsvector('english', content)) stored,
    embedding extensions.vector(384)
);
create index on guide.documents (owner_id);
alter table guide.documents enable row level security;
create policy owners_can_select on guide.documents
for select to authenticated
using (owner_id = (select auth.uid()));
grant usage on schema guide to authenticated;
grant select on guide.documents to authenticated;
create function guide.hybrid_search(
    query_text text, query_embedding extensions.vector(384), match_count int,
    full_text_weight float = 1, semantic_weight float = 1, rrf_k int = 50
) returns setof guide.documents
language sql
as $$
    with full_text as (
        select id, row_number() over (
            order by ts_rank_cd(fts, websearch_to_tsquery('english', query_text)) desc
        ) as place
        from guide.documents
        where fts @@ websearch_to_tsquery('english', query_text)
        order by place
        limit least(match_count, 30) * 2
    ), semantic as (
        select
            id,
            row_number() over (order by embedding operator(extensions.<#>) query_embedding) as place
        from guide.documents
        order by place
        limit least(match_count, 30) * 2
    )
    select d.*
    from full_text as f
    full outer join semantic as s on f.id = s.id
    join guide.documents as d on d.id = coalesce(f.id, s.id)
    order by
        coalesce(1.0 / (rrf_k + f.place), 0.0) * full_text_weight
        + coalesce(1.0 / (rrf_k + s.place), 0.0) * semantic_weight desc
    limit least(match_count, 30)
$$;
grant execute on function guide.hybrid_search to authenticated;
"""


def _at_once(
    settings: Settings, corpus: Corpus, reader: User, options: dict[str, Any], seconds: float
) -> dict[str, float]:
    """Ask from many threads at once, each over a connection of its own, for some seconds."""
    askers = [RestAsker(settings, reader)]
    for _ in range(AT_ONCE - 1):  # one session serves all: signing in is slow on purpose
        askers.append(RestAsker.__new__(RestAsker))
        vars(askers[-1]).update(vars(askers[0]))
        askers[-1].http = httpx.Client(
            base_url=askers[0].http.base_url, headers=askers[0].http.headers, timeout=60
        )
    taken: list[float] = []
    ends = time.monotonic() + seconds

    def work(number: int) -> None:
        place = number
        while time.monotonic() < ends:
            query, vector = corpus.questions[place % len(corpus.questions)]
            taken.append(askers[number].ask(_arguments(query, vector, options))[1] * 1000)
            place += 7

    started = time.perf_counter()
    threads = [threading.Thread(target=work, args=(number,)) for number in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    passed = time.perf_counter() - started
    for asker in askers:
        asker.close()
    return {
        "p50_ms": round(statistics.median(taken), 1),
        "p95_ms": round(statistics.quantiles(taken, n=20)[-1], 1),
        "per_second": round(len(taken) / passed, 1),
    }


def _ratios(figures: dict[str, dict[str, float]]) -> dict[str, float]:
    """Ours over each peer: by CPU time, where the same work is done by one thread."""
    pairs = {
        "keyword": ("bm25s", "tantivy", COVERING["keyword"]),
        "dense": ("numpy", "lancedb, exact", COVERING["dense"]),
        "hybrid": ("lancedb, hybrid", "guide"),
    }
    found = {}
    for ours, peers in pairs.items():
        for peer in peers:
            for unit in ("cpu_ms", "p50_ms"):
                if figures.get(peer, {}).get(unit):
                    found[f"{ours} / {peer}, {unit}"] = round(
                        figures[ours][unit] / figures[peer][unit], 2
                    )
    return found


def _growth(sizes: list[int], found: list[dict[str, Any]]) -> dict[str, Any]:
    """CPU milliseconds of each leg by size, and how they grow from one size to the next."""
    return {
        mode: {
            "cpu_ms": {
                str(s): f["times"][mode]["cpu_ms"] for s, f in zip(sizes, found, strict=True)
            },
            "times_as_much": [
                round(after["times"][mode]["cpu_ms"] / before["times"][mode]["cpu_ms"], 2)
                for before, after in pairwise(found)
            ],
        }
        for mode in MODES
    }


def _load(db: psycopg.Connection[Any], settings: Settings, corpus: Corpus) -> User:
    """Give a new account the corpus, in service, by the function that ingestion calls."""
    user = new_user(settings)
    for start in range(0, len(corpus.passages), CHUNKS_A_FILE):
        passages = corpus.passages[start : start + CHUNKS_A_FILE]
        vectors = [str(vector.tolist()) for vector in corpus.vectors[start : start + CHUNKS_A_FILE]]
        with db.transaction():
            row = db.execute(ADD_FILE, (user.id, f"file {start}.txt", passages, vectors)).fetchone()
            assert row is not None
            db.execute(SET_HEAD, row)
            db.execute("select private.serve_version(%s)", row)
    db.execute("vacuum analyze")
    return user


SET_HEAD = """
update public.nodes as n
set head_version_id = v.id
from public.file_versions as v
where v.id = %s and n.id = v.file_id
"""
ADD_FILE = """
with ids as (
    select
        %s::uuid as owner_id, gen_random_uuid() as file_id, gen_random_uuid() as version_id,
        %s as name, %s::text[] as passages, %s::text[] as vectors,
        (select s.id from public.embedding_spaces as s where s.kind = 'text' and s.state = 'active')
        as space_id
), nodes as (
    insert into public.nodes (id, kind, name, owner_id, path, status)
    select file_id, 'file', name, owner_id, array[file_id], 'ready' from ids
    returning id
), versions as (
    insert into public.file_versions (id, file_id, no, size, status)
    select version_id, nodes.id, 1, 0, 'ready' from ids, nodes
    returning id, file_id
), jobs as (
    insert into public.ingest_jobs (file_id, version_id, owner_id, stage, space_id, state)
    select v.file_id, v.id, ids.owner_id, 'embed_text', ids.space_id, 'done' from ids, versions as v
), chunks as (
    insert into public.chunks
    (file_id, version_id, idx, content, char_start, char_end, language, text_hash)
    select
        v.file_id, v.id, t.place - 1, t.content, 0, char_length(t.content), 'en',
        sha256(convert_to(t.content, 'UTF8'))
    from ids, versions as v, unnest(ids.passages) with ordinality as t (content, place)
), vectors as (
    insert into private.text_vectors (owner_id, space_id, text_hash, embedding)
    select distinct on (t.content)
        ids.owner_id, ids.space_id, sha256(convert_to(t.content, 'UTF8')),
        t.vector::extensions.halfvec
    from ids, unnest(ids.passages, ids.vectors) as t (content, vector)
    on conflict do nothing
)
select id from versions
"""


def real_text(folders: list[Path], count: int) -> tuple[list[str], list[str]]:
    """The sentences and some questions of the collections."""
    sentences: list[str] = []
    questions: list[str] = []
    for folder in folders:
        collection = load_collection(folder)
        for file in collection.files:
            for page in file.document.pages:
                sentences += [s for s in SENTENCE.split(page.text) if 20 <= len(s) <= 600]
        questions += [query.text for query in collection.queries]
    random.Random(1).shuffle(questions)
    return sentences, questions[:count]


def _cpu_of(pid: int) -> float:
    """CPU milliseconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def _noise(rng: np.random.Generator, count: int, scale: float) -> np.ndarray:
    return rng.normal(size=(count, DIMENSION)).astype("f4") * np.float32(scale)


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype("f4")
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
