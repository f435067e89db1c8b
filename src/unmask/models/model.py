"""`load`: a trained model with its denoiser and its way of reading and writing data."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, TypeAlias, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from unmask import recipes
from unmask.base import checkpoints
from unmask.base.checkpoints import one_line
from unmask.base.devices import check_device
from unmask.base.profile import Profile
from unmask.base.types import Denoiser, Estimate, Plan, Selector
from unmask.data.vocabularies import Tokenizer, Vocabulary, from_record
from unmask.denoisers import NetworkDenoiser, from_logits, take_symbols
from unmask.engine.likelihood import log_likelihood, nelbo
from unmask.engine.sampling import check_tokens
from unmask.models.sizes import Bounded
from unmask.orders import presets
from unmask.orders.selectors import in_blocks
from unmask.recipes import Run
from unmask.recipes.run import tuples
from unmask.variants import genmd4, upscale


@dataclass(frozen=True)
class Model:
    """A trained model: denoiser, ``encode(data) -> tokens``, ``decode(tokens) -> data``, the run's config.

    `log_likelihood` and `nelbo` measure whatever ``encode`` returns. The functions of these names in `unmask` know the
    denoiser only: where lengths are given (`end` is not None) tell them ``visible=model.visible(tokens)``, or they score
    the ends, which the network never says, and give -inf.
    """

    name: str
    denoiser: NetworkDenoiser
    encode: Callable[..., Tensor]
    decode: Callable[[Tensor], Any]
    config: dict[str, Any]
    vocabulary: Vocabulary | None = None

    @property
    def length(self) -> int:
        """Positions per sequence."""
        return int(self.config["network"]["length"])

    @property
    def hash(self) -> str:
        """SHA-256 of the weights, in hexadecimal: which model a measurement belongs to."""
        digest = hashlib.sha256()
        for name, value in sorted(self.denoiser.network.state_dict().items()):
            digest.update(name.encode() + _bytes(value))
        return digest.hexdigest()

    @property
    def end(self) -> int | None:
        """The symbol that marks where a sequence of given length ends and is always visible; None without."""
        return self.denoiser.mask_id - 1 if self.config["network"].get("ends") else None

    def all_masked(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """``count`` sequences with every position hidden, int64 [count, length].

        Where lengths are given, they are drawn from those of the training data; without a generator they are spread evenly
        over that law, the same at every call.
        """
        tokens = torch.full((count, self.length), self.denoiser.mask_id)
        if self.end is None:
            return tokens
        shares = (torch.arange(count, dtype=torch.float64) + 0.5) / max(count, 1)
        if generator is not None:
            shares = torch.rand(count, dtype=torch.float64, generator=generator)
        lengths = torch.searchsorted(self._length_law().cumsum(0), shares).clamp(max=self.length)
        return tokens.where(torch.arange(self.length) < lengths[:, None], self.end)

    def visible(self, tokens: Tensor) -> Tensor | None:
        """What is no symbol to be scored: the ends in tokens int64 [B, L], bool [B, L]; None without."""
        return None if self.end is None else tokens == self.end

    def selector(self) -> Selector:
        """The model's own order (``config["order"]``), one position per call; stage by stage where there are stages.

        A causal model reads from left to right. ValueError for an order that needs settings of its own.
        """
        network = self.config["network"]
        name = "left-to-right" if network.get("causal") else str(self.config.get("order", "left-to-right"))
        if name not in _OWN:
            raise ValueError(f"order '{name}' of model '{self.name}' has settings; expected a selector")
        stages = upscale.stages_of(network)
        own = _OWN[name](1)
        return own if stages == 1 else in_blocks(own, self.length // stages)

    def log_likelihood(
        self,
        tokens: Tensor,
        selector: Selector | None = None,
        *,
        order_ids: Tensor | None = None,
        substeps: int = 1,
        with_length: bool = False,
    ) -> Tensor:
        """Log-probability float64 [B], nats, of tokens int64 [B, L] along an order, by default the model's own.

        Where lengths are given, it is that of the symbols given the lengths, as ends are visible; ``with_length`` adds the
        log-probability of each length (minus `length_cost`). ``order_ids`` (default 0 for every row) choose random orders.
        ValueError for masked tokens: those are not data.
        """
        found = log_likelihood(
            self.denoiser,
            tokens,
            self.selector() if selector is None else selector,
            visible=self.visible(tokens),
            substeps=substeps,
            order_ids=order_ids,
        )
        return found - self.length_cost(tokens) if with_length else found

    def nelbo(
        self,
        tokens: Tensor,
        *,
        generator: torch.Generator,
        samples: int = 16,
        item_ids: Tensor | None = None,
        with_length: bool = False,
    ) -> Estimate:
        """The bound of tokens int64 [B, L] that suits the model's training, nats per sequence: value and standard error.

        Of a causal model it is exact, of one in stages the sum over stages, of one told the time the integral over time,
        and otherwise the mean over random orders. Given lengths as in `log_likelihood`, where ``with_length`` adds their
        cost. Noise belongs to ``item_ids`` int64 [B] (default 0..B-1).
        """
        measure, _ = self.bound(samples)
        found = measure(tokens, generator, item_ids)
        return replace(found, value=found.value + self.length_cost(tokens)) if with_length else found

    def bound(self, samples: int) -> tuple[Bound, str]:
        """How `nelbo` measures with ``samples`` mask sets a sequence, and what that is called."""
        denoiser, network = self.denoiser, self.config["network"]
        each = f"{samples} mask sets per sequence"
        if network.get("causal"):  # one call gives all factors of the chain
            return lambda tokens, *_: _chain(denoiser, tokens), "exact from left to right"
        if (count := upscale.stages_of(network)) > 1:
            return lambda tokens, generator, ids: upscale.nelbo(
                denoiser, tokens, count, generator=generator, samples=samples, item_ids=ids
            ), f"sum of the bounds of {count} stages, {each} and stage"
        if network.get("timed"):
            powers = getattr(denoiser.network, "powers", torch.ones(denoiser.vocab_size))
            return lambda tokens, generator, ids: genmd4.nelbo(
                denoiser, tokens, powers, generator=generator, samples=samples, item_ids=ids
            ), f"integral over time with its end terms (MD4, GenMD4), {each}"
        return lambda tokens, generator, ids: nelbo(
            denoiser,
            tokens,
            generator=generator,
            samples=samples,
            visible=self.visible(tokens),
            item_ids=ids,
        ), f"bound over random orders, {each}"

    def length_cost(self, tokens: Tensor) -> Tensor:
        """-log probability of each sequence's length, nats, float64 [B]: 0 where all are equally long.

        The law of lengths is that of the training data with one more of each. A part of every sequence's bits.
        """
        if self.end is None:
            return torch.zeros(len(tokens), dtype=torch.float64, device=tokens.device)
        return -self._length_law().log().to(tokens.device)[(tokens != self.end).sum(1)]

    def _length_law(self) -> Tensor:
        """Probability of each length 0..L, float64 [L + 1]."""
        counts = torch.tensor(self.config["lengths"], dtype=torch.float64) + 1
        return counts / counts.sum()


Bound: TypeAlias = Callable[[Tensor, torch.Generator, Tensor | None], Estimate]
"""(tokens int64 [B, L], generator, item_ids) -> nats per sequence."""

_OWN: dict[str, Callable[[Plan], Selector]] = {
    "random": presets.random,
    "left-to-right": presets.left_to_right,
    "bisection": presets.bisection,
    "confidence": presets.confidence,
    "margin": presets.margin,
    "entropy": presets.entropy,
}
"""Orders that a recipe may name and that need no settings."""


def _chain(denoiser: Denoiser, tokens: Tensor) -> Estimate:
    """-log p of a causal model, exact."""
    check_tokens(tokens, denoiser, masks=False)
    values = -take_symbols(denoiser(tokens), tokens).double().sum(1)
    return Estimate(values, torch.zeros_like(values))


def _bytes(value: Tensor) -> bytes:
    """A tensor's memory, row-major."""
    return value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def load(name_or_folder: str | Path, *, device: str = "cpu") -> Model:
    """A shipped model by name, or a folder that `unmask train` wrote; a shipped name wins over a folder.

    ValueError lists what exists when the name or the device is unknown, and says what is wrong with a truncated or
    foreign folder. Weights in bfloat16 or float16 are read into the float32 that networks compute in.
    """
    check_device(device)
    folder = _find(name_or_folder)
    config = checkpoints.read_json(folder / "config.json")
    recipe = _recipe_of(config, folder)
    config.setdefault("order", recipe.order)
    recipe = replace(
        recipe,
        network=_network_config(recipe, config, folder),
        vocabulary=_vocabulary(recipe, config, folder),
    )
    _check_lengths(recipe, config, folder)
    weights = folder / "weights.safetensors"
    tensors = checkpoints.read_tensors(weights)
    network = _built(recipe, tensors, folder)
    checkpoints.fill(network.state_dict(), tensors, weights)
    vocab_size = int(config["network"]["vocab_size"])
    denoiser = from_logits(network.to(device).eval(), mask_id=vocab_size, vocab_size=vocab_size)
    encode, decode = partial(recipe.encode, recipe), partial(recipe.decode, recipe)
    return Model(config["name"], denoiser, encode, decode, config, recipe.vocabulary)


def measured_profile(model: Model) -> Profile | None:
    """The information profile that ships with a model, if one does and it was measured on these weights."""
    path = _pretrained() / model.name / "profile.json"
    found = Profile.load(path) if path.exists() else None
    return found if found is not None and found.provenance.get("model_hash") == model.hash else None


def shipped() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(p.parent.name for p in _pretrained().glob("*/config.json"))


def _pretrained() -> Path:
    """The folder of the models that come with the package."""
    return Path(str(resources.files("unmask"))) / "pretrained"


def _find(name_or_folder: str | Path) -> Path:
    """The folder with config.json and weights.safetensors."""
    if str(name_or_folder) in shipped():
        return _pretrained() / str(name_or_folder)
    for folder in (Path(name_or_folder), Path(name_or_folder) / "model"):
        if _exists(folder / "config.json"):
            return folder
    if _exists(Path(name_or_folder) / "run.json"):
        raise ValueError(
            f"the training in '{name_or_folder}' has not finished: expected its 'model' folder; train on"
        )
    near = difflib.get_close_matches(str(name_or_folder), shipped(), n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    raise ValueError(
        f"no model '{name_or_folder}': {hint}shipped models: {', '.join(shipped()) or 'none'}; "
        "or give a folder that `unmask train` wrote"
    )


def _exists(path: Path) -> bool:
    """Whether there is something of this name; ValueError where that cannot be found out."""
    try:
        return path.exists()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{str(path)!r} cannot be read ({error}); expected a folder that you may read"
        ) from None


def _recipe_of(config: dict[str, Any], folder: Path) -> Run:
    """The recipe that the model was trained with: it knows how to build the network and read the data."""
    if not isinstance(config.get("name"), str) or not isinstance(config.get("network"), dict):
        raise ValueError(
            f"{folder / 'config.json'} has no name and network; expected a file written by `unmask train`"
        )
    if not isinstance(config.get("order", ""), str):
        raise ValueError(f"{folder / 'config.json'}: order {config['order']!r}; expected the name of one")
    known = recipes.all_recipes()
    if config["name"] not in known:
        raise ValueError(
            f"{folder} was trained by recipe {config['name'][:60]!r}; this version knows {', '.join(known)}"
        )
    return known[config["name"]]()


def _network_config(recipe: Run, config: dict[str, Any], folder: Path) -> Any:
    """The stored network configuration as the recipe's typed record."""
    kind, stored = type(recipe.network), config["network"]
    known = {f.name for f in fields(kind)}
    needed = {f.name for f in fields(kind) if f.default is MISSING} | {"length"}
    if wrong := sorted((set(stored) - known) | (needed - set(stored))):
        state = "unknown" if wrong[0] in stored else "missing"
        raise ValueError(
            f"{folder / 'config.json'}: {state} network field {wrong[0]!r}; this version knows "
            f"{', '.join(sorted(known))}"
        )
    values = {k: tuples(v) for k, v in stored.items()}
    try:
        record = kind(**values)
    except (TypeError, ValueError, ArithmeticError) as error:
        if not isinstance(error, ValueError):
            _check_types(kind, values, folder)
        raise ValueError(f"{folder / 'config.json'}: network field {one_line(error)}") from None
    _check_types(kind, values, folder)
    if record.length != stored["length"] or getattr(record, "loops", 1) > LOOPS:
        raise ValueError(
            f"{folder / 'config.json'}: length {one_line(stored['length'])} and loops {getattr(record, 'loops', 1)}; "
            f"expected length {record.length} and at most {LOOPS} loops"
        )
    return record


LOOPS = 1024
"""More passes through the same blocks than any network of ours needs; weights do not tell how many there are."""


def _check_types(kind: type, values: Mapping[str, Any], folder: Path) -> None:
    """ValueError unless every value read from JSON has the type that the field of a record declares."""
    for name, hint in get_type_hints(kind).items():
        if name in values and not _fits(values[name], hint):
            raise ValueError(
                f"{folder / 'config.json'}: field {name!r} is {one_line(repr(values[name]))}; expected "
                f"{getattr(hint, '__name__', str(hint))}"
            )


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value has a type: a plain one, ``X | None`` or ``tuple[X, ...]``."""
    inner = get_args(hint)
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_fits(v, inner[0]) for v in value)
    return any(_fits(value, kind) for kind in inner) if inner else type(value) is hint


def _vocabulary(recipe: Run, config: dict[str, Any], folder: Path) -> Vocabulary | None:
    """The stored vocabulary, or the recipe's where none is; ValueError where it has fewer symbols than the network."""
    own, stored = recipe.vocabulary, config.get("vocabulary")
    if stored is None or own is None:
        if stored is not None:
            raise ValueError(
                f"{folder / 'config.json'}: recipe '{recipe.name}' has no vocabulary; expected none"
            )
        found = own
    else:
        found = from_record(stored)
        _check_types(type(found), vars(found), folder)
    if own is not None and found is not None and not isinstance(found, Tokenizer):
        network = config["network"]
        extra = getattr(recipe.network, "levels", recipe.network.vocab_size) - own.size
        wanted = network.get("levels", network["vocab_size"]) - extra
        if found.size < wanted:  # of more, `encode` refuses those that the network does not know
            raise ValueError(
                f"{folder / 'config.json'}: a vocabulary of {found.size} symbols, expected {wanted} for the network"
            )
    return found


def _check_lengths(recipe: Run, config: dict[str, Any], folder: Path) -> None:
    """ValueError unless a network that is told lengths comes with how often each was seen."""
    if not getattr(recipe.network, "ends", False):
        return
    counts, longest = config.get("lengths"), recipe.network.length
    good = isinstance(counts, list) and all(type(n) is int and 0 <= n < 2**53 for n in counts)
    if not good or len(counts) != longest + 1:  # type: ignore[arg-type]
        raise ValueError(
            f"{folder / 'config.json'}: lengths {one_line(counts)}; expected {longest + 1} whole numbers, how often each "
            f"length 0..{longest} occurs"
        )


def _built(recipe: Run, tensors: dict[str, Tensor], folder: Path) -> nn.Module:
    """The recipe's network, not yet filled; ValueError for sizes that have nothing to do with the weights."""
    try:
        with torch.random.fork_rng(devices=()), Bounded(tensors):  # what it draws is not the caller's loss
            return recipe.build(recipe.network)
    except (ValueError, TypeError, RuntimeError, ArithmeticError, IndexError) as error:
        raise ValueError(
            f"{folder / 'config.json'}: no network of these sizes ({one_line(error)}); expected those of the weights"
        ) from None
