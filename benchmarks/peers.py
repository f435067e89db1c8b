"""Published samplers, run as they are: loaded by path from checkouts, none of their code is here.

What a file imports but its sampler does not use (transformers, hydra, lightning) is stood in for by empty modules
while the file is read. Each sampler gets the network behind the interface that it asks for, and nothing else.
"""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FOLDERS = ("LLaDA", "dllm", "Fast-dLLM", "mdlm", "diffusers", "flow_matching")
"""Under the folder of checkouts; ``diffusers`` may be an unpacked wheel."""


@dataclass(frozen=True)
class Job:
    """What is sampled: ``batch`` all-masked sequences of ``length`` symbols out of ``vocab`` in ``steps`` steps."""

    vocab: int
    length: int
    batch: int
    steps: int
    greedy: bool
    blocks: int = 1


class Asked:
    """A network ``(tokens) -> logits`` that counts its calls and, where ``keep``, remembers what it saw and said."""

    def __init__(self, network: Any, keep: bool = False) -> None:
        self.network, self.keep, self.calls, self.passes = network, keep, 0, 0.0
        self.seen: list[tuple[Tensor, Tensor]] = []

    def __call__(self, tokens: Tensor) -> Tensor:
        """Logits [B, L, V] at every position."""
        self.calls, self.passes = self.calls + 1, self.passes + 1
        logits: Tensor = self.network(tokens)
        if self.keep:
            self.seen.append((tokens.clone(), logits.clone()))
        return logits

    def full(self, tokens: Tensor) -> tuple[Tensor, Any]:
        """The same with keys and values."""
        self.calls, self.passes = self.calls + 1, self.passes + 1
        return self.network.full(tokens)  # type: ignore[no-any-return]

    def partial(self, tokens: Tensor, rows: Tensor, cache: Any) -> Tensor:
        """Logits at rows int64 [B, m] alone, which counts m/L of a pass."""
        self.calls, self.passes = self.calls + 1, self.passes + rows.shape[1] / tokens.shape[1]
        return self.network.partial(tokens, rows, cache)  # type: ignore[no-any-return]


Sampler = Callable[[Asked], Tensor]
"""One run of a published sampler: tokens int64 [B, L]."""


# --- loading ----------------------------------------------------------------------------------------


class Empty(types.ModuleType):
    """A module in which every name is an empty class."""

    __path__ = ()

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def module(name: str, *paths: Path, **names: Any) -> types.ModuleType:
    """An empty module with these names, that finds its submodules in these folders."""
    made = Empty(name)
    made.__path__ = tuple(str(path) for path in paths)
    for key, value in names.items():
        setattr(made, key, value)
    return made


@contextmanager
def standing_in(*found: types.ModuleType, path: Path | None = None) -> Iterator[None]:
    """Modules of these names, and a folder to import from, for a while."""
    before = {m.__name__: sys.modules.get(m.__name__) for m in found}
    sys.modules.update({m.__name__: m for m in found})
    sys.path[:0] = [] if path is None else [str(path)]
    try:
        yield
    finally:
        for name, old in before.items():
            sys.modules.pop(name) if old is None else sys.modules.update({name: old})
        if path is not None:
            sys.path.remove(str(path))


def read(file: Path, name: str) -> Any:
    """The module of a file."""
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None or not file.exists():
        raise ValueError(f"{file}: no such file; expected a checkout, see --help")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def stated(folder: Path) -> str:
    """Commit and date of a checkout, or the release of an unpacked wheel."""
    releases = sorted(path.name.removesuffix(".dist-info") for path in folder.glob("*.dist-info"))
    if releases:
        return "wheel " + releases[0]
    git = ["git", "-C", str(folder)]
    commit = subprocess.run(
        [*git, "log", "-1", "--format=%h of %cs"], capture_output=True, text=True, check=True
    )
    clean = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "*.py"], check=False).returncode == 0
    return commit.stdout.strip() + ("" if clean else " with changes")


# --- their interfaces -------------------------------------------------------------------------------


class LanguageModel:
    """The interface of transformers as far as these samplers use it; caches as in Fast-dLLM's dual cache."""

    device = torch.device("cpu")

    def __init__(self, network: Asked) -> None:
        self.network = network

    def __call__(
        self,
        tokens: Tensor,
        attention_mask: Tensor | None = None,  # noqa: ARG002
        past_key_values: Any = None,
        use_cache: bool = False,
        replace_position: Tensor | None = None,
    ) -> types.SimpleNamespace:
        """An answer with logits, and with keys and values where asked."""
        if not use_cache:
            return types.SimpleNamespace(logits=self.network(tokens))
        if replace_position is None:
            logits, cache = self.network.full(tokens)
            return types.SimpleNamespace(logits=logits, past_key_values=cache)
        rows = replace_position.nonzero()[:, 1].view(len(tokens), -1)
        whole = torch.zeros(replace_position.shape, dtype=torch.int64).scatter(1, rows, tokens)
        return types.SimpleNamespace(logits=self.network.partial(whole, rows, past_key_values))


def prompts(job: Job) -> Tensor:
    """Empty prompts int64 [B, 0]."""
    return torch.empty(job.batch, 0, dtype=torch.int64)


def llada(folder: Path, job: Job) -> Sampler:
    """``generate`` of ML-GSAI/LLaDA, remasking by low confidence; temperature 0 or 1."""
    with standing_in(module("transformers")):
        generate = read(folder / "LLaDA/generate.py", "llada_generate").generate
    options = plan_options(job)
    return lambda network: generate(LanguageModel(network), prompts(job), **options)  # type: ignore[no-any-return]


def plan_options(job: Job) -> dict[str, Any]:
    """What LLaDA's and Fast-dLLM's functions are called with."""
    return {
        "steps": job.steps,
        "gen_length": job.length,
        "block_length": job.length // job.blocks,
        "temperature": 0.0 if job.greedy else 1.0,
        "mask_id": job.vocab,
    }


def fast_dllm(folder: Path, job: Job, function: str = "generate", threshold: float | None = None) -> Sampler:
    """A function of NVlabs/Fast-dLLM llada/generate.py, which takes one sequence at a time."""
    with standing_in(module("transformers"), module("model"), module("model.modeling_llada")):
        found = getattr(read(folder / "Fast-dLLM/llada/generate.py", "fast_dllm_generate"), function)
    options = plan_options(job) | {"threshold": threshold}
    return lambda network: found(LanguageModel(network), prompts(job), **options)[0]  # type: ignore[no-any-return]


def dllm(folder: Path, job: Job) -> Sampler:
    """``MDLMSampler`` of ZHZisZZ/dllm."""
    root = folder / "dllm/dllm"
    with standing_in(module("transformers"), module("dllm", root), module("dllm.core", root / "core")):
        made = importlib.import_module("dllm.core.samplers").MDLMSampler
    ids = types.SimpleNamespace(mask_token_id=job.vocab, bos_token_id=0, eos_token_id=0)
    options = {
        "steps": job.steps,
        "max_new_tokens": job.length,
        "block_size": job.length,
        "temperature": 0.0 if job.greedy else 1.0,
    }
    return lambda network: made(LanguageModel(network), ids).sample(list(prompts(job)), **options)  # type: ignore[no-any-return]


def mdlm(folder: Path, job: Job) -> Sampler:
    """``Diffusion._sample`` of kuleshov-group/mdlm as configured there: ddpm_cache and noise removal.

    The network has a logit for the mask too.
    """
    needless = ("hydra", "hydra.utils", "transformers", "dataloader", "models", "utils")
    lightning = module("lightning", LightningModule=Lightning)
    metrics = module("torchmetrics", aggregation=module("aggregation"))
    with standing_in(*map(module, needless), lightning, metrics, path=folder / "mdlm"):
        found = read(folder / "mdlm/diffusion.py", "mdlm_diffusion")
        noise = importlib.import_module("noise_schedule").LogLinearNoise()

    def sample(network: Asked) -> Tensor:
        model = type("Model", (found.Diffusion,), {"__init__": Lightning.__init__})()
        model.backbone, model.noise = lambda tokens, _: network(tokens), noise
        model.config = namespace(
            loader={"eval_batch_size": job.batch},
            sampling={"steps": job.steps, "noise_removal": True},
            model={"length": job.length},
            noise={"type": "loglinear"},
        )
        model.parameterization, model.sampler, model.time_conditioning = "subs", "ddpm_cache", False
        model.mask_index, model.neg_infinity = job.vocab, -1000000.0
        return model._sample()  # type: ignore[no-any-return]

    return sample


class Lightning(torch.nn.Module):
    """What mdlm uses of a LightningModule to sample."""

    device = torch.device("cpu")


def namespace(**parts: dict[str, Any]) -> types.SimpleNamespace:
    """A configuration of two levels."""
    return types.SimpleNamespace(**{k: types.SimpleNamespace(**v) for k, v in parts.items()})


def amused(folder: Path, job: Job, temperature: tuple[float, float], schedule: str = "cosine") -> Sampler:
    """``AmusedScheduler`` of diffusers in the loop of its pipeline: MaskGIT; symbols are always drawn."""
    root = folder / "diffusers/diffusers"
    settings = module(
        "diffusers.configuration_utils",
        ConfigMixin=type("ConfigMixin", (), {}),
        register_to_config=registered,
    )
    others = (module("diffusers.utils"), module("diffusers.schedulers.scheduling_utils"))
    with standing_in(
        module("diffusers", root), module("diffusers.schedulers", root / "schedulers"), settings, *others
    ):
        scheduler = importlib.import_module("diffusers.schedulers.scheduling_amused").AmusedScheduler(
            job.vocab, schedule
        )

    @torch.no_grad()
    def sample(network: Asked) -> Tensor:
        scheduler.set_timesteps(job.steps, temperature)
        tokens = torch.full((job.batch, job.length), job.vocab)
        for time in scheduler.timesteps:
            tokens = scheduler.step(network(tokens), time, tokens).prev_sample
        return tokens

    return sample


def registered(init: Callable[..., None]) -> Callable[..., None]:
    """The stand-in of ``register_to_config``: keeps the arguments of a scheduler."""

    def keeping(self: Any, mask_token_id: int, masking_schedule: str) -> None:
        self.config = types.SimpleNamespace(mask_token_id=mask_token_id, masking_schedule=masking_schedule)
        init(self, mask_token_id, masking_schedule)

    return keeping


def flow(folder: Path, job: Job) -> Sampler:
    """``MixtureDiscreteEulerSolver`` of facebookresearch/flow_matching from the all-masked source, linear schedule.

    The solver wants probabilities, of the mask too, and at visible positions the visible symbol.
    """
    with standing_in(module("torchdiffeq"), path=folder / "flow_matching"):
        solver = importlib.import_module("flow_matching.solver").MixtureDiscreteEulerSolver
        paths = importlib.import_module("flow_matching.path")
        linear = importlib.import_module("flow_matching.path.scheduler").PolynomialConvexScheduler(n=1.0)
    masked = torch.full((job.batch, job.length), job.vocab)

    def sample(network: Asked) -> Tensor:
        def model(x: Tensor, t: Tensor) -> Tensor:  # noqa: ARG001
            logits = network(x)
            logits[..., job.vocab] = -torch.inf
            probs = logits.softmax(-1)
            visible = x != job.vocab
            probs[visible] = 0.0
            probs[visible, x[visible]] = 1.0
            return probs

        path = paths.MixtureDiscreteProbPath(scheduler=linear)
        return solver(model, path, job.vocab + 1).sample(masked, step_size=1 / job.steps)  # type: ignore[no-any-return]

    return sample
