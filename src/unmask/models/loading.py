"""How does a name or a folder become a model? `load`, and what is refused on the way."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from unmask import recipes
from unmask.base import checkpoints
from unmask.base.checkpoints import one_line
from unmask.base.devices import check_device
from unmask.data.sources.cache import cache
from unmask.data.sources.models import MODELS, is_there
from unmask.data.vocabularies import Tokenizer, Vocabulary, from_record
from unmask.denoisers import from_logits
from unmask.models import published, receptors
from unmask.models.model import Model
from unmask.models.pretrained import pretrained_folder, shipped
from unmask.models.sizes import Limited
from unmask.recipes import Run
from unmask.recipes.run import tuples


def load(name_or_folder: str | Path, *, device: str = "cpu") -> Model:
    """A shipped or fetched model by name, or a folder: of `unmask train`, transformers, or a published diffusion model.

    A shipped name wins, and a folder before a fetched name (`unmask data fetch`). See `from_transformers` and
    `published`. ValueError lists what exists when the name or the device
    is unknown, and says what is wrong with a truncated or foreign folder. Weights in bfloat16 or float16 are read into
    float32.
    """
    check_device(device)
    folder = _find(name_or_folder)
    config = checkpoints.read_json(folder / "config.json")
    if published.is_published(config):
        return published.model(folder, device=device)
    if config.get("model_type") == "sceptr":
        return receptors.model(folder, device=device)
    if "model_type" in config or "architectures" in config:
        from unmask.models.transformers import from_transformers

        return from_transformers(folder, device=device)
    recipe = _recipe_of(config, folder)
    config.setdefault("order", recipe.order)
    recipe = replace(
        recipe,
        network=_network_config(recipe, config, folder),
        data=_data_of(recipe, config, folder),
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


def _data_of(recipe: Run, config: dict[str, Any], folder: Path) -> Any:
    """The recipe's data as the config describes them: sizes of puzzles decide how they are written as tokens."""
    said = config.get("data")
    if not isinstance(said, dict) or not is_dataclass(recipe.data) or isinstance(recipe.data, type):
        return recipe.data
    if not set(said) <= {f.name for f in fields(recipe.data)}:
        return recipe.data  # of another version: what it does not know, it does not need
    try:
        return replace(recipe.data, **{k: tuples(v) for k, v in said.items()})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder / 'config.json'}: field 'data': {error}") from None


def _find(name_or_folder: str | Path) -> Path:
    """The folder with config.json and weights.safetensors."""
    if str(name_or_folder) in shipped():
        return pretrained_folder() / str(name_or_folder)
    for folder in (Path(name_or_folder), Path(name_or_folder) / "model"):
        if _exists(folder / "config.json"):
            return folder
    if _exists(Path(name_or_folder) / "run.json"):
        raise ValueError(
            f"the training in '{name_or_folder}' has not finished: expected its 'model' folder; train on"
        )
    if _exists(Path(name_or_folder) / "model_index.json"):
        raise ValueError(
            f"'{name_or_folder}' is a pipeline of diffusers, which needs a caption; expected "
            "unmask.models.published.amused(folder) for one of aMUSEd, the others are not read"
        )
    if (name := str(name_or_folder)) in MODELS:
        if not is_there(name):
            raise ValueError(f"model '{name}' is not there yet; expected `unmask data fetch {name}` before")
        return cache() / name
    near = difflib.get_close_matches(str(name_or_folder), (*shipped(), *MODELS), n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    raise ValueError(
        f"no model '{name_or_folder}': {hint}shipped models: {', '.join(shipped()) or 'none'}; "
        "or give a folder that `unmask train` wrote, or one with config.json and model.safetensors (transformers), "
        "or fetch a model of `unmask data fetch --list`"
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
    if own is not None and found is not None and not any(isinstance(v, Tokenizer) for v in (own, found)):
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
        with torch.random.fork_rng(devices=()), Limited(tensors):  # what it draws is not the caller's loss
            return recipe.build(recipe.network)
    except (ValueError, TypeError, RuntimeError, ArithmeticError, IndexError) as error:
        raise ValueError(
            f"{folder / 'config.json'}: no network of these sizes ({one_line(error)}); expected those of the weights"
        ) from None
