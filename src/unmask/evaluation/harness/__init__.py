"""Models in lm-evaluation-harness (extra `lm-eval`): importing this registers the model type ``unmask`` there.

At the command line ``python -m unmask.evaluation.harness`` is `lm_eval` with that type known.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from unmask.evaluation.harness.scoring import Nats, Scorer
from unmask.models import Model, load

try:
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
except ImportError:  # all but the registration works without it
    LM, register_model = object, None

__all__ = ["Nats", "Scorer", "UnmaskLM", "register_model", "text_of"]

MOST = 256
"""Symbols that are written where a task does not say how many."""


class UnmaskLM(LM):  # type: ignore[misc, unused-ignore]
    """A model of ours, or one that `unmask.load` finds, as a language model of lm-evaluation-harness.

    ``order``, ``plan``, ``samples``, ``block`` and ``seed`` are those of `Scorer`. Likelihoods are `Nats`, which say what
    they are; `meanings` counts all that were given out. Requests are the harness's, of which only ``args`` is read.
    """

    def __init__(
        self,
        model: str | Model,
        *,
        order: str = "left-to-right",
        plan: int = 1,
        samples: int = 0,
        block: int = 32,
        seed: int = 0,
        batch_size: int | str = 16,
        device: str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        loaded = model if isinstance(model, Model) else load(str(model), device=_device(device))
        rows = int(batch_size) if str(batch_size).isdigit() else 16
        if max_batch_size is not None:
            rows = min(rows, int(max_batch_size))
        self.scorer = Scorer(loaded, order, plan, samples, block, seed, rows)
        self.meanings: dict[str, int] = {}

    @property
    def tokenizer_name(self) -> str:
        """The model's name."""
        return str(self.scorer.model.name)

    def loglikelihood(self, requests: Iterable[Any], disable_tqdm: bool = False) -> list[tuple[Nats, bool]]:
        """log p(continuation | context), nats, and whether each of its symbols was the likeliest in its turn."""
        del disable_tqdm
        found = self.scorer.given_contexts([request.args[:2] for request in requests])
        self._counted(value for value, _ in found)
        return found

    def loglikelihood_rolling(self, requests: Iterable[Any], disable_tqdm: bool = False) -> list[Nats]:
        """log p of whole texts, nats."""
        del disable_tqdm
        found = self.scorer.rolling([request.args[0] for request in requests])
        self._counted(found)
        return found

    def generate_until(self, requests: Iterable[Any], disable_tqdm: bool = False) -> list[str]:
        """What follows each context, cut before the first stop string."""
        del disable_tqdm
        return [text_of(self.scorer, *request.args[:2]) for request in requests]

    def _counted(self, numbers: Iterable[Nats]) -> None:
        for number in numbers:
            if number.meaning not in self.meanings:
                print(f"unmask: log-probabilities, nats: {number.meaning}", file=sys.stderr)
            self.meanings[number.meaning] = self.meanings.get(number.meaning, 0) + 1


def _device(name: str | None) -> str:
    """The device; the processor for cuda where there is none, for the harness asks for it unless told otherwise."""
    return "cpu" if name is None or (name.startswith("cuda") and not torch.cuda.is_available()) else name


def text_of(scorer: Scorer, context: str, settings: dict[str, Any]) -> str:
    """What follows a context by a task's settings: until, max_gen_toks, do_sample, temperature."""
    until = settings.get("until") or ()
    stops: Sequence[str] = [until] if isinstance(until, str) else list(until)
    most = int(settings.get("max_gen_toks") or settings.get("max_new_tokens") or MOST)
    drawn = bool(settings.get("do_sample", False))
    return scorer.continued(context, stops, most, float(settings.get("temperature", 1.0)) if drawn else 0.0)


if register_model is not None:
    register_model("unmask")(UnmaskLM)
