"""`load`: a trained model with its denoiser and its way of reading and writing data."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unmask import checkpoints, recipes
from unmask.data.vocabularies import Vocabulary, from_record
from unmask.denoisers import NetworkDenoiser, from_logits
from unmask.profiles import Profile
from unmask.recipes import Run
from unmask.recipes.run import tuples


@dataclass(frozen=True)
class Model:
    """A trained model: denoiser, ``encode(data) -> tokens``, ``decode(tokens) -> data``, the run's config."""

    name: str
    denoiser: NetworkDenoiser
    encode: Callable[[Any], Tensor]
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


def _bytes(value: Tensor) -> bytes:
    """A tensor's memory, row-major."""
    return value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def load(name_or_folder: str | Path, *, device: str = "cpu") -> Model:
    """A shipped model by name, or a folder that `unmask train` wrote; a shipped name wins over a folder.

    ValueError lists what exists when the name is unknown, and says what is wrong with a truncated or
    foreign folder.
    """
    folder = _find(name_or_folder)
    config = checkpoints.read_json(folder / "config.json")
    recipe = _recipe_of(config, folder)
    config.setdefault("order", recipe.order)
    vocabulary = config.get("vocabulary")
    recipe = replace(
        recipe,
        network=_network_config(recipe, config, folder),
        vocabulary=recipe.vocabulary if vocabulary is None else from_record(vocabulary),
    )
    with torch.random.fork_rng(devices=()):  # what initialisation draws is not the caller's loss
        network = recipe.build(recipe.network)
    weights = folder / "weights.safetensors"
    checkpoints.fill(network.state_dict(), checkpoints.read_tensors(weights), weights)
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
        if (folder / "config.json").exists():
            return folder
    if (Path(name_or_folder) / "run.json").exists():
        raise ValueError(
            f"the training in '{name_or_folder}' has not finished: expected its 'model' folder; train on"
        )
    near = difflib.get_close_matches(str(name_or_folder), shipped(), n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    raise ValueError(
        f"no model '{name_or_folder}': {hint}shipped models: {', '.join(shipped()) or 'none'}; "
        "or give a folder that `unmask train` wrote"
    )


def _recipe_of(config: dict[str, Any], folder: Path) -> Run:
    """The recipe that the model was trained with: it knows how to build the network and read the data."""
    if not isinstance(config.get("name"), str) or not isinstance(config.get("network"), dict):
        raise ValueError(
            f"{folder / 'config.json'} has no name and network; expected a file written by `unmask train`"
        )
    known = recipes.all_recipes()
    if config["name"] not in known:
        raise ValueError(
            f"{folder} was trained by recipe '{config['name']}'; this version knows {', '.join(known)}"
        )
    return known[config["name"]]()


def _network_config(recipe: Run, config: dict[str, Any], folder: Path) -> Any:
    """The stored network configuration as the recipe's typed record."""
    kind, stored = type(recipe.network), config["network"]
    known = {f.name for f in fields(kind)}
    needed = {f.name for f in fields(kind) if f.default is MISSING}
    if wrong := sorted((set(stored) - known) | (needed - set(stored))):
        state = "unknown" if wrong[0] in stored else "missing"
        raise ValueError(
            f"{folder / 'config.json'}: {state} network field '{wrong[0]}'; this version knows "
            f"{', '.join(sorted(known))}"
        )
    return kind(**{k: tuples(v) for k, v in stored.items()})
