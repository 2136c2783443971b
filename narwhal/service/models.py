"""Language models and re-rankers: what search may use of them, behind two small interfaces."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

TIMEOUT_S = 15.0


class ModelError(Exception):
    """A model that was asked gave no usable answer."""


class LanguageModel(Protocol):
    """Writes text."""

    async def complete(self, instruction: str, text: str, max_tokens: int) -> str:
        """Return what the model writes to an instruction and a text; raises ModelError."""
        ...


class Reranker(Protocol):
    """Judges passages by a question."""

    async def score(self, query: str, passages: list[str]) -> list[float]:
        """Return one score a passage, higher is better; raises ModelError."""
        ...


@dataclass(frozen=True)
class Models:
    """The models that a deployment offers; None where there is none."""

    language: LanguageModel | None = None
    reranker: Reranker | None = None


def configured_models(environment: Mapping[str, str] = os.environ) -> Models:
    """Return the models named by NARWHAL_LLM_MODEL and NARWHAL_RERANK_MODEL, as litellm names them.

    Their keys are the providers' own variables, such as OPENAI_API_KEY; litellm reads those.
    """
    language = environment.get("NARWHAL_LLM_MODEL")
    reranker = environment.get("NARWHAL_RERANK_MODEL")
    return Models(
        LitellmModel(language) if language else None,
        LitellmReranker(reranker) if reranker else None,
    )


class LitellmModel:
    """A language model of any provider that litellm knows (extra `llm`)."""

    def __init__(self, model: str, **options: Any) -> None:
        self.model = model
        self.options = options

    async def complete(self, instruction: str, text: str, max_tokens: int) -> str:
        """Ask once, without sampling; raises ModelError for whatever goes wrong."""
        litellm = _litellm()
        try:
            answer = await litellm.acompletion(
                model=self.model,
                messages=[
                    {"role": "system", "content": instruction},
                    {"role": "user", "content": text},
                ],
                max_tokens=max_tokens,
                temperature=0,
                timeout=TIMEOUT_S,
                **self.options,
            )
            content = answer.choices[0].message.content
        except Exception as error:  # each provider has its own
            raise ModelError(type(error).__name__) from error
        if not isinstance(content, str) or not content.strip():
            raise ModelError("empty answer")
        return content


class LitellmReranker:
    """A cross-encoder of any provider that litellm knows (extra `llm`)."""

    def __init__(self, model: str, **options: Any) -> None:
        self.model = model
        self.options = options

    async def score(self, query: str, passages: list[str]) -> list[float]:
        """Have all passages scored in one call; raises ModelError for whatever goes wrong."""
        litellm = _litellm()
        try:
            answer = await litellm.arerank(
                model=self.model,
                query=query,
                documents=passages,
                top_n=len(passages),
                timeout=TIMEOUT_S,
                **self.options,
            )
            scores = {row["index"]: float(row["relevance_score"]) for row in answer.results}
            return [scores[index] for index in range(len(passages))]
        except Exception as error:  # each provider has its own
            raise ModelError(type(error).__name__) from error


def _litellm() -> Any:
    """Import litellm when it is first needed: that takes seconds."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it downloads one
    try:
        litellm: Any = importlib.import_module("litellm")
    except ImportError as error:
        raise ModelError("litellm is not installed: pip install 'narwhal[llm]'") from error
    litellm.suppress_debug_info = True
    return litellm
