"""`load`: a trained model with its denoiser and its way of reading and writing data."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unmask import checkpoints, recipes
from unmask.denoisers import NetworkDenoiser, from_logits
from unmask.recipes import Run


@dataclass(frozen=True)
class Model:
    """A trained model: denoiser, ``encode(data) -> tokens``, ``decode(tokens) -> data`` and the recipe's config."""

    name: str
    denoiser: NetworkDenoiser
    encode: Callable[[Any], Tensor]
    decode: Callable[[Tensor], Any]
    config: dict[str, Any]

    @property
    def length(self) -> int:
        """Positions per sequence."""
        return int(self.config["network"]["length"])

    @property
    def hash(self) -> str:
        """SHA-256 of the weights, in hexadecimal: which model a measurement belongs to."""
        digest = hashlib.sha256()
        for name, value in sorted(self.denoiser.network.state_dict().items()):
            digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def all_masked(self, count: int) -> Tensor:
        """``count`` sequences with every position hidden, int64 [count, length]."""
        return torch.full((count, self.length), self.denoiser.mask_id)


def load(name_or_folder: str | Path, *, device: str = "cpu") -> Model:
    """A shipped model by name, or a folder that `unmask train` wrote.

    ValueError lists what exists when the name is unknown, and says what is wrong with a truncated or foreign folder.
    """
    folder = _find(name_or_folder)
    config = checkpoints.read_json(folder / "config.json")
    recipe = _recipe_of(config, folder)
    network = recipe.build(_network_config(recipe, config, folder))
    checkpoints.fill(network, checkpoints.read_tensors(folder / "weights.safetensors"), folder / "weights.safetensors")
    network = network.to(device).eval()
    vocab_size = int(config["network"]["vocab_size"])
    denoiser = from_logits(network, mask_id=vocab_size, vocab_size=vocab_size)
    return Model(config["name"], denoiser, recipe.encode, recipe.decode, config)


def shipped() -> list[str]:
    """Names of the models that come with the package."""
    root = Path(str(resources.files("unmask"))) / "pretrained"
    return sorted(p.parent.name for p in root.glob("*/config.json"))


def _find(name_or_folder: str | Path) -> Path:
    """The folder with config.json and weights.safetensors."""
    for folder in (Path(name_or_folder), Path(name_or_folder) / "model"):
        if (folder / "config.json").exists():
            return folder
    if str(name_or_folder) in shipped():
        return Path(str(resources.files("unmask"))) / "pretrained" / str(name_or_folder)
    near = difflib.get_close_matches(str(name_or_folder), shipped(), n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    raise ValueError(
        f"no model '{name_or_folder}': {hint}shipped models: {', '.join(shipped()) or 'none'}; "
        "or give a folder that `unmask train` wrote"
    )


def _recipe_of(config: dict[str, Any], folder: Path) -> Run:
    """The recipe that the model was trained with: it knows how to build the network and read the data."""
    if not isinstance(config, dict) or not {"name", "network"} <= set(config):
        raise ValueError(f"{folder / 'config.json'} has no name and network; expected a file written by `unmask train`")
    known = recipes.all_recipes()
    if config["name"] not in known:
        raise ValueError(f"{folder} was trained by recipe '{config['name']}'; this version knows {', '.join(known)}")
    return known[config["name"]]()


def _network_config(recipe: Run, config: dict[str, Any], folder: Path) -> Any:
    """The stored network configuration as the recipe's typed record."""
    kind, stored = type(recipe.network), config["network"]
    known = {f.name for f in fields(kind)}
    if set(stored) - known:
        raise ValueError(
            f"{folder / 'config.json'}: unknown network field '{sorted(set(stored) - known)[0]}'; this version knows "
            f"{', '.join(sorted(known))}"
        )
    return kind(**{k: _tuples(v) for k, v in stored.items()})


def _tuples(value: Any) -> Any:
    """JSON lists as tuples."""
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
