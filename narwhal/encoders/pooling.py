"""How the vectors of a text's tokens become the one vector of the text."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# (batch, length, hidden) and the mask (batch, length) of 1 and 0 -> (batch, hidden)
Pooling = Callable[[Floats, Floats], Floats]


def mean(x: Floats, mask: Floats) -> Floats:
    """The mean over the tokens that are no padding."""
    total: Floats = np.einsum("nld,nl->nd", x, mask)
    total /= mask.sum(axis=1, keepdims=True)
    return total


def first(x: Floats, _mask: Floats) -> Floats:
    """The vector of the leading [CLS] token."""
    return x[:, 0]


def largest(x: Floats, mask: Floats) -> Floats:
    """The largest value of each dimension over the tokens that are no padding."""
    masked: Floats = np.where(mask[:, :, None] > 0, x, np.float32(-np.inf)).max(axis=1)
    return masked


POOLINGS: dict[str, Pooling] = {"mean_tokens": mean, "cls_token": first, "max_tokens": largest}
