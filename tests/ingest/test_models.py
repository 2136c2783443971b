"""Which spaces a worker finds the models of."""

from __future__ import annotations

from typing import Any

import pytest

from narwhal.ingest import models
from narwhal.ingest.models import Models

MINILM = {
    "id": 1,
    "name": "minilm",
    "kind": "text",
    "model": "sentence-transformers/all-MiniLM-L6-v2",
    "revision": "53aa51172d14",
    "dimension": 384,
}


def test_a_model_is_here_or_it_is_not(caplog: pytest.LogCaptureFixture) -> None:
    found = Models()
    found.look(
        [
            MINILM,
            MINILM | {"id": 2, "name": "other-weights", "revision": "0" * 12},
            MINILM | {"id": 3, "name": "other-length", "dimension": 385},
            MINILM | {"id": 4, "name": "nowhere", "model": "nowhere"},
            MINILM | {"id": 5, "name": "pages", "kind": "page"},
        ]
    )
    assert found.space_ids == (1,)
    assert found.local.is_set()
    assert found.all.is_set()
    for name in ("other-weights", "other-length", "nowhere"):
        assert f"jobs of the space {name} are left to others" in caplog.text
    found.look([])
    assert found.space_ids == ()


def test_what_failed_is_tried_again_after_a_while_and_what_is_known_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[str] = []
    here = {"near"}

    def load(space: dict[str, Any]) -> None:
        tried.append(space["name"])
        if space["name"] not in here:
            raise OSError("no network")

    monkeypatch.setattr(models, "space_encoder", load)
    now = 1000.0
    monkeypatch.setattr(models.time, "monotonic", lambda: now)
    # what comes over the network does not hold up what is here
    spaces = [
        MINILM | {"id": 7, "name": "far", "model": "owner/far"},
        MINILM | {"id": 8, "name": "near", "model": "near"},
    ]
    found = Models()
    found.look(spaces)
    assert tried == ["near", "far"]
    assert found.space_ids == (8,)
    found.look(spaces)
    assert tried == ["near", "far"]
    now += models.RETRY_S + 1
    here.add("far")
    found.look(spaces)
    assert tried == ["near", "far", "far"]
    assert found.space_ids == (7, 8)
