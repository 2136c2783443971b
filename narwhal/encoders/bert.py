"""A BERT sentence encoder in numpy: a sentence-transformers checkpoint without torch."""

from __future__ import annotations

import hashlib
import importlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from narwhal.encoders.activations import ACTIVATIONS
from narwhal.encoders.pooling import POOLINGS, Pooling
from narwhal.errors import NarwhalError

Floats = NDArray[np.float32]

# Families of one architecture; RoBERTa's leave out the positions before and of the padding token.
FAMILIES = ("bert", "roberta", "xlm-roberta")

# Padded tokens in one batch: its activations then stay in a core's cache, and a text waits for
# few others.
BATCH_TOKENS = 1024


@dataclass(frozen=True)
class _Layer:
    """One transformer layer. Matrices are stored (in, out), contiguous, ready for `x @ w`."""

    qkv: Floats  # (hidden, 3 * hidden), the queries already divided by sqrt(head width)
    qkv_bias: Floats
    attention_out: Floats
    attention_out_bias: Floats
    attention_norm: tuple[Floats, Floats]
    up: Floats
    up_bias: Floats
    down: Floats
    down_bias: Floats
    output_norm: tuple[Floats, Floats]


class BertEncoder:
    """Embeds texts with a BERT checkpoint; safe to share between threads."""

    def __init__(
        self,
        *,
        name: str,
        revision: str,
        tokenizer: Tokenizer,
        max_tokens: int,
        heads: int,
        epsilon: float,
        embeddings: tuple[Floats, Floats, tuple[Floats, Floats]],
        layers: Sequence[_Layer],
        activation: Callable[[Floats], Floats],
        pooling: Pooling,
    ) -> None:
        self.name = name
        self.revision = revision
        self.max_tokens = max_tokens
        self._tokenizer = tokenizer
        self._heads = heads
        self._epsilon = np.float32(epsilon)
        self._words, self._positions, self._embedding_norm = embeddings
        self._layers = tuple(layers)
        self._activation = activation
        self._pooling = pooling
        self.dimension = int(self._words.shape[1])

    @classmethod
    def from_folder(cls, folder: Path, *, name: str, revision: str | None = None) -> Self:
        """Load the checkpoint in `folder` (config.json, tokenizer.json, model.safetensors, …).

        `revision` names the weights; without it they are named by their hash. Raises NarwhalError
        INVALID_ARGUMENT when a file is missing or the model is no BERT.
        """
        try:
            config = _json(folder / "config.json")
            weights = _read_weights(folder)
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except (OSError, ValueError, SafetensorError) as error:
            raise _unusable(name, f"it cannot be read ({error})") from error
        except Exception as error:  # tokenizers raises plain Exception
            raise _unusable(name, f"its tokenizer cannot be read ({error})") from error
        if config.get("model_type") not in FAMILIES:
            raise _unusable(name, f"it is a {config.get('model_type')!r}, not a BERT")
        skipped = 0 if config["model_type"] == "bert" else int(config.get("pad_token_id", 1)) + 1
        if config.get("position_embedding_type", "absolute") != "absolute":
            raise _unusable(name, "its position embeddings are not absolute")
        activation = ACTIVATIONS.get(str(config.get("hidden_act", "gelu")))
        if activation is None:
            raise _unusable(name, f"its activation {config['hidden_act']!r} is unknown")
        heads = int(config["num_attention_heads"])
        try:
            embeddings, layers = _weights(weights, int(config["num_hidden_layers"]), heads, skipped)
        except KeyError as error:
            raise _unusable(name, f"its weights lack {error}") from error
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return cls(
            name=name,
            revision=revision or _fingerprint(folder / "model.safetensors"),
            tokenizer=tokenizer,
            max_tokens=_max_tokens(folder, config, skipped),
            heads=heads,
            epsilon=float(config.get("layer_norm_eps", 1e-12)),
            embeddings=embeddings,
            layers=layers,
            activation=activation,
            pooling=_pooling(folder, name),
        )

    def count_tokens(self, text: str) -> int:
        """Count the tokens of `text`, the special ones included, before any truncation."""
        return len(self._tokenizer.encode(text).ids)

    def encode(self, texts: Sequence[str]) -> Floats:
        """Embed `texts`: float32 of shape (len(texts), dimension), every row of length 1.

        A text is cut off after `max_tokens` tokens.
        """
        vectors = np.empty((len(texts), self.dimension), np.float32)
        ids = [self._truncated(encoding.ids) for encoding in self._tokenizer.encode_batch(texts)]
        # Sorted by length, a batch holds next to no padding.
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        start = 0
        while start < len(order):
            end = start + 1
            while end < len(order) and (end + 1 - start) * len(ids[order[end]]) <= BATCH_TOKENS:
                end += 1
            batch = order[start:end]
            vectors[batch] = self._embed([ids[i] for i in batch])
            start = end
        return vectors

    def _truncated(self, ids: list[int]) -> list[int]:
        """Keep the first tokens and the closing special token, as the model was trained."""
        if len(ids) <= self.max_tokens:
            return ids
        return [*ids[: self.max_tokens - 1], ids[-1]]

    def _embed(self, ids: Sequence[Sequence[int]]) -> Floats:
        """Run the model over texts of similar length; returns (len(ids), dimension)."""
        length = max(map(len, ids))
        tokens = np.zeros((len(ids), length), np.int64)
        mask = np.zeros((len(ids), length), np.float32)
        for row, text in enumerate(ids):
            tokens[row, : len(text)] = text
            mask[row, : len(text)] = 1
        x: Floats = self._words[tokens] + self._positions[:length]
        _normalise(x, self._embedding_norm, self._epsilon)
        # Padding must not be attended to; batches without padding skip the addition.
        bias: Floats | None = None
        if not mask.all():
            bias = ((mask - np.float32(1)) * np.float32(1e9))[:, None, None, :]
        # Written to again in every layer: fresh memory would cost a tenth of the time.
        inner = np.empty((*x.shape[:2], self._layers[0].up.shape[1]), np.float32)
        qkv = np.empty((len(ids) * length, 3 * self.dimension), np.float32)
        for layer in self._layers:
            x += self._attend(x, layer, bias, qkv)
            _normalise(x, layer.attention_norm, self._epsilon)
            np.matmul(x, layer.up, out=inner)
            inner += layer.up_bias
            x += self._activation(inner) @ layer.down
            x += layer.down_bias
            _normalise(x, layer.output_norm, self._epsilon)
        pooled = self._pooling(x, mask).copy()
        norms = np.sqrt(np.einsum("nd,nd->n", pooled, pooled))[:, None]
        pooled /= np.maximum(norms, np.float32(1e-12))
        return pooled

    def _attend(self, x: Floats, layer: _Layer, bias: Floats | None, qkv: Floats) -> Floats:
        """Multi-head self-attention of (batch, length, hidden), output projection included.

        `qkv` (batch * length, 3 * hidden) is room to work in.
        """
        batch, length, hidden = x.shape
        np.matmul(x.reshape(-1, hidden), layer.qkv, out=qkv)
        qkv += layer.qkv_bias
        heads = qkv.reshape(batch, length, 3, self._heads, -1).transpose(2, 0, 3, 1, 4)
        queries, keys, values = np.ascontiguousarray(heads)
        scores = queries @ keys.transpose(0, 1, 3, 2)
        if bias is not None:
            scores += bias
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        context = scores @ values
        # Dividing the context instead of the scores touches `head width` numbers, not `length`.
        context /= scores.sum(axis=-1, keepdims=True)
        joined = context.transpose(0, 2, 1, 3).reshape(-1, hidden)
        out: Floats = joined @ layer.attention_out
        out += layer.attention_out_bias
        return out.reshape(batch, length, hidden)


def _normalise(x: Floats, norm: tuple[Floats, Floats], epsilon: np.float32) -> None:
    """Layer normalisation over the last axis, in place."""
    weight, bias = norm
    x -= x.mean(axis=-1, keepdims=True)
    variance = np.einsum("...d,...d->...", x, x)[..., None] / np.float32(x.shape[-1])
    x /= np.sqrt(variance + epsilon)
    x *= weight
    x += bias


def _weights(
    weights: dict[str, Floats], count: int, heads: int, skipped: int
) -> tuple[tuple[Floats, Floats, tuple[Floats, Floats]], list[_Layer]]:
    """Arrange a checkpoint's tensors for multiplication from the left; KeyError for a lack."""
    # Some checkpoints keep the encoder below a `bert.` prefix.
    found = {
        key.removeprefix("bert.").removeprefix("roberta."): np.asarray(value, np.float32)
        for key, value in weights.items()
        if not key.endswith("position_ids")
    }

    def matrix(name: str) -> Floats:
        return np.ascontiguousarray(found[f"{name}.weight"].T)

    def norm(name: str) -> tuple[Floats, Floats]:
        return found[f"{name}.weight"], found[f"{name}.bias"]

    words = found["embeddings.word_embeddings.weight"]
    # A single text has one segment only, so its type embedding is a constant of the position.
    positions = (
        found["embeddings.position_embeddings.weight"][skipped:]
        + found["embeddings.token_type_embeddings.weight"][0]
    )
    scale = np.float32(1 / math.sqrt(words.shape[1] // heads))
    layers = []
    for index in range(count):
        at = f"encoder.layer.{index}"
        own = f"{at}.attention.self"
        layers.append(
            _Layer(
                qkv=np.concatenate(
                    [
                        matrix(f"{own}.query") * scale,
                        matrix(f"{own}.key"),
                        matrix(f"{own}.value"),
                    ],
                    axis=1,
                ),
                qkv_bias=np.concatenate(
                    [
                        found[f"{own}.query.bias"] * scale,
                        found[f"{own}.key.bias"],
                        found[f"{own}.value.bias"],
                    ]
                ),
                attention_out=matrix(f"{at}.attention.output.dense"),
                attention_out_bias=found[f"{at}.attention.output.dense.bias"],
                attention_norm=norm(f"{at}.attention.output.LayerNorm"),
                up=matrix(f"{at}.intermediate.dense"),
                up_bias=found[f"{at}.intermediate.dense.bias"],
                down=matrix(f"{at}.output.dense"),
                down_bias=found[f"{at}.output.dense.bias"],
                output_norm=norm(f"{at}.output.LayerNorm"),
            )
        )
    return (words, positions, norm("embeddings.LayerNorm")), layers


def _pooling(folder: Path, name: str) -> Pooling:
    """Read which pooling the checkpoint was trained with; mean where it does not say."""
    path = folder / "1_Pooling" / "config.json"
    if not path.is_file():
        return POOLINGS["mean_tokens"]
    chosen = [
        key.removeprefix("pooling_mode_")
        for key, value in _json(path).items()
        if key.startswith("pooling_mode_") and value is True
    ]
    if len(chosen) != 1 or chosen[0] not in POOLINGS:
        raise _unusable(name, f"its pooling {chosen} is unknown")
    return POOLINGS[chosen[0]]


def _read_weights(folder: Path) -> dict[str, Any]:
    safe, pickled = folder / "model.safetensors", folder / "pytorch_model.bin"
    if safe.is_file() or not pickled.is_file():
        return load_file(safe)
    try:  # older checkpoints are published in torch's own format only
        torch = importlib.import_module("torch")
    except ModuleNotFoundError as error:
        raise ValueError("pytorch_model.bin needs torch: pip install 'narwhal[ml]'") from error
    stored = torch.load(pickled, map_location="cpu", weights_only=True)
    return {key: value.float().numpy() for key, value in stored.items()}


def _max_tokens(folder: Path, config: dict[str, Any], skipped: int) -> int:
    limit = int(config.get("max_position_embeddings", 512)) - skipped
    path = folder / "sentence_bert_config.json"
    if path.is_file():
        limit = min(limit, int(_json(path).get("max_seq_length") or limit))
    return limit


def _fingerprint(path: Path) -> str:
    """Name the weights by what they are: a path or a tag may be moved to others."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def _json(path: Path) -> dict[str, Any]:
    parsed = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(parsed, dict):
        raise ValueError(f"{path.name} is not an object")
    return parsed


def _unusable(name: str, why: str) -> NarwhalError:
    return NarwhalError(
        f"The text model {name!r} cannot be used: {why}.",
        "Give the folder of a sentence-transformers BERT checkpoint with model.safetensors.",
        error="INVALID_ARGUMENT",
        status=422,
        details={"field": "model"},
    )
