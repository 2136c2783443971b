"""The numpy encoder, against vectors of sentence-transformers and against the textbook."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from narwhal.encoders import TextEncoder, load_text_encoder
from narwhal.encoders.activations import gelu
from narwhal.encoders.bert import BertEncoder
from narwhal.errors import NarwhalError

GOLDEN = json.loads((Path(__file__).parent / "minilm_golden.json").read_text(encoding="utf-8"))
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "seal", "tide", "harbour", "storm", "bay"]


@pytest.fixture(scope="module")
def minilm() -> TextEncoder:
    return load_text_encoder("all-MiniLM-L6-v2")


def test_vectors_equal_those_of_sentence_transformers(minilm: TextEncoder) -> None:
    vectors = minilm.encode([case["text"] for case in GOLDEN["cases"]])
    expected = np.array([case["vector"] for case in GOLDEN["cases"]])

    assert vectors.dtype == np.float32
    assert np.abs(vectors - expected).max() < 2e-6
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_a_text_has_one_vector_in_any_company(minilm: TextEncoder) -> None:
    texts = ["seal", "", "the harbour " * 300, "storm warning for the bay", "x"]
    together = minilm.encode(texts)
    alone = np.vstack([minilm.encode([text]) for text in texts])

    assert together.shape == (5, 384)
    assert np.abs(together - alone).max() < 1e-6
    assert minilm.encode([]).shape == (0, 384)


def test_texts_are_cut_off_where_the_model_ends(minilm: TextEncoder) -> None:
    long = "harbour " * 254  # with its two special tokens as long as the model reads
    assert minilm.count_tokens(long) == minilm.max_tokens == 256
    assert minilm.count_tokens(long + "storm") == 257
    assert np.array_equal(minilm.encode([long]), minilm.encode([long + "storm"]))
    assert not np.allclose(minilm.encode([long]), minilm.encode(["storm " + long]), atol=1e-3)


def test_the_encoder_says_which_space_it_fills(minilm: TextEncoder) -> None:
    assert (minilm.name, minilm.dimension) == ("all-MiniLM-L6-v2", 384)
    assert minilm.revision == "53aa51172d14"
    assert load_text_encoder("sentence-transformers/all-MiniLM-L6-v2") is minilm


def test_gelu_is_exact() -> None:
    x = np.linspace(-10, 10, 20_001, dtype=np.float32)[None]
    exact = [v / 2 * (1 + math.erf(v / math.sqrt(2))) for v in x[0].astype(float)]
    assert np.abs(gelu(x.copy())[0] - exact).max() < 1e-6


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A BERT of random weights in the folder layout of sentence-transformers."""
    hidden, inner, layers = 8, 12, 2
    rng = np.random.default_rng(7)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (len(WORDS), hidden),
        "embeddings.position_embeddings.weight": (16, hidden),
        "embeddings.token_type_embeddings.weight": (2, hidden),
        "embeddings.LayerNorm.weight": (hidden,),
        "embeddings.LayerNorm.bias": (hidden,),
    }
    for layer in range(layers):
        at = f"encoder.layer.{layer}"
        for name, (wide, narrow) in {
            "attention.self.query": (hidden, hidden),
            "attention.self.key": (hidden, hidden),
            "attention.self.value": (hidden, hidden),
            "attention.output.dense": (hidden, hidden),
            "intermediate.dense": (inner, hidden),
            "output.dense": (hidden, inner),
        }.items():
            shapes[f"{at}.{name}.weight"] = (wide, narrow)
            shapes[f"{at}.{name}.bias"] = (wide,)
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[f"{at}.{name}.weight"] = shapes[f"{at}.{name}.bias"] = (hidden,)
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    save_file(
        {f"bert.{name}": value for name, value in weights.items()}, tmp_path / "model.safetensors"
    )
    config = {
        "model_type": "bert",
        "hidden_act": "gelu",
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "layer_norm_eps": 1e-6,
        "max_position_embeddings": 16,
    }
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_padding(length=16)  # as some published files have it: not to be believed
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "1_Pooling").mkdir()
    _pool(tmp_path, "mean_tokens")
    return tmp_path


def _pool(folder: Path, mode: str) -> None:
    modes = {
        f"pooling_mode_{name}": name == mode
        for name in ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    }
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes))


def _textbook(folder: Path, ids: list[int]) -> NDArray[np.float64]:
    """The model's last layer for one text, in float64 and straight from the paper."""
    from safetensors.numpy import load_file

    w = {
        k.removeprefix("bert."): v.astype(float)
        for k, v in load_file(folder / "model.safetensors").items()
    }

    def linear(x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        centred = x - x.mean(axis=1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-6)
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    x = w["embeddings.word_embeddings.weight"][ids]
    x = x + w["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for layer in range(2):
        at = f"encoder.layer.{layer}"
        q, k, v = (linear(x, f"{at}.attention.self.{part}") for part in ("query", "key", "value"))
        context = np.zeros_like(x)
        for head in (slice(0, 4), slice(4, 8)):
            scores = np.exp(q[:, head] @ k[:, head].T / math.sqrt(4))
            context[:, head] = scores / scores.sum(axis=1, keepdims=True) @ v[:, head]
        attended = linear(context, f"{at}.attention.output.dense")
        x = norm(x + attended, f"{at}.attention.output.LayerNorm")
        inner = linear(x, f"{at}.intermediate.dense")
        inner = inner / 2 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
        x = norm(x + linear(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")
    return x


@pytest.mark.parametrize(
    ("mode", "pool"),
    [
        ("mean_tokens", lambda x: x.mean(axis=0)),
        ("cls_token", lambda x: x[0]),
        ("max_tokens", lambda x: x.max(axis=0)),
    ],
)
def test_any_bert_checkpoint_loads_from_its_folder(checkpoint: Path, mode: str, pool: Any) -> None:
    _pool(checkpoint, mode)
    encoder = load_text_encoder(str(checkpoint))
    texts = {
        "seal tide": [2, 4, 5, 3],
        "harbour": [2, 6, 3],
        "storm bay whale seal": [2, 7, 8, 1, 4, 3],
    }
    vectors = encoder.encode(list(texts))

    assert (encoder.dimension, encoder.max_tokens) == (8, 16)
    for vector, ids in zip(vectors, texts.values(), strict=True):
        expected = pool(_textbook(checkpoint, ids))
        assert np.allclose(vector, expected / np.linalg.norm(expected), atol=1e-5)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "config.json").unlink(),
        lambda folder: (folder / "config.json").write_text('{"model_type": "gpt2"}'),
        lambda folder: (folder / "model.safetensors").write_bytes(b"junk"),
        lambda folder: (folder / "tokenizer.json").write_text("{}"),
        lambda folder: save_file({"x": np.zeros(1)}, folder / "model.safetensors"),
        lambda folder: _pool(folder, "mean_sqrt_len_tokens"),
    ],
    ids=["no config", "not a bert", "broken weights", "no tokenizer", "other weights", "pooling"],
)
def test_a_folder_that_is_no_usable_model_says_why(checkpoint: Path, spoil: Any) -> None:
    spoil(checkpoint)
    with pytest.raises(NarwhalError) as error:
        load_text_encoder(str(checkpoint))
    assert (error.value.error, error.value.hint is not None) == ("INVALID_ARGUMENT", True)


def test_an_unknown_model_names_the_known_ones() -> None:
    with pytest.raises(NarwhalError) as error:
        load_text_encoder("no-such-model")
    assert error.value.details["allowed"] == ["all-MiniLM-L6-v2"]


def _as_roberta(folder: Path) -> None:
    """Turn the BERT of a folder into the RoBERTa that computes the same."""
    weights = load_file(folder / "model.safetensors")
    positions = weights.pop("bert.embeddings.position_embeddings.weight")
    # RoBERTa counts from after the padding token: what is before is never read
    unread = np.full((2, positions.shape[1]), 1e3, np.float32)
    changed = {name.replace("bert.", "roberta.", 1): value for name, value in weights.items()}
    changed["roberta.embeddings.position_embeddings.weight"] = np.vstack([unread, positions])
    save_file(changed, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "xlm-roberta", "pad_token_id": 1, "max_position_embeddings": 18}
    (folder / "config.json").write_text(json.dumps(config))


def test_a_roberta_reads_its_positions_from_after_the_padding(checkpoint: Path) -> None:
    texts = ["seal tide", "storm bay harbour seal", "tide " * 30]
    bert = BertEncoder.from_folder(checkpoint, name="bert")
    _as_roberta(checkpoint)
    roberta = BertEncoder.from_folder(checkpoint, name="roberta")
    assert (roberta.max_tokens, roberta.dimension) == (bert.max_tokens, bert.dimension) == (16, 8)
    assert np.array_equal(roberta.encode(texts), bert.encode(texts))


def test_a_model_of_the_hub_is_read_from_its_cache_at_one_commit(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = tmp_path_factory.mktemp("hub")
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = cache / "models--some--model" / "snapshots" / commit
    shutil.copytree(checkpoint, snapshot)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    encoder = load_text_encoder("some/model", commit)
    # not the hash of the weights: the commit is what the space pins
    assert (encoder.name, encoder.revision, encoder.dimension) == ("model", commit, 8)
    expected = BertEncoder.from_folder(checkpoint, name="x").encode(["seal tide"])
    assert np.array_equal(encoder.encode(["seal tide"]), expected)
    with pytest.raises(NarwhalError) as error:  # a tag may be moved
        load_text_encoder("some/model", "main")
    assert error.value.error == "INVALID_ARGUMENT"


def test_a_model_that_cannot_be_downloaded_is_unavailable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(NarwhalError) as error:
        load_text_encoder("some/other", "f" * 40)
    assert (error.value.error, error.value.status) == ("SERVICE_UNAVAILABLE", 503)
