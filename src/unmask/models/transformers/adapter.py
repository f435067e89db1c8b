"""`from_transformers`: a module or a folder of transformers to a `Model`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unmask.base.devices import check_device
from unmask.base.records import TEMPORARY
from unmask.data.vocabularies import Foreign, to_record
from unmask.denoisers import from_logits
from unmask.models.model import Model
from unmask.models.transformers import checks, reading
from unmask.models.transformers.network import Network, PaddedDenoiser
from unmask.models.transformers.tokenizers import Symbols, ids_of, symbols_of, text_of


def from_transformers(
    module_or_folder: Any, tokenizer: Any = None, *, name: str | None = None, device: str | None = None
) -> Model:
    """A masked language model of transformers 5, a module or the folder of one, as a `Model` (extra `hf`).

    ``tokenizer`` is a folder, a fast tokenizer of transformers, or a list of tokens; by default what lies in the folder:
    a vocab.txt of single characters, or a tokenizer.json. Special tokens and pads are visible, never scored and never
    drawn: the law is that of the network given that the symbol is one of `Model.symbols`. No code of a folder is run, and
    only safetensors are read, or a pickle by torch's weights-only loader. ValueError on one line says what a folder
    lacks: see `checks` and `reading`. It runs on ``device``, by default where the module is, which is
    ``model.denoiser.network.module``.
    """
    check_installed()
    if device is not None:
        check_device(device)
    if isinstance(module_or_folder, nn.Module):
        return _built(module_or_folder, tokenizer, name or type(module_or_folder).__name__, device)
    folder = Path(module_or_folder)
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"no folder '{folder}' with config.json and model.safetensors; expected one, such as a copy that you downloaded"
        )
    module = reading.module_of(folder)
    own = folder if tokenizer is None else tokenizer
    model = _built(module, own, name or folder.resolve().name, device)
    checks.check_probe(model, folder)
    return model


def check_installed() -> None:
    """ImportError unless transformers 5 is there."""
    try:
        import transformers
    except ImportError:
        raise ImportError("transformers is not installed: pip install 'unmask[hf]'") from None
    if int(transformers.__version__.split(".")[0]) < 5:
        raise ImportError(
            f"transformers {transformers.__version__}; expected 5 or newer: pip install 'unmask[hf]'"
        )


def _built(module: nn.Module, tokenizer: Any, name: str, device: str | None) -> Model:
    """The model of a loaded module, checked."""
    config: Any = getattr(module, "config", None)
    if config is None or not hasattr(module, "get_output_embeddings"):
        raise ValueError(f"{type(module).__name__}: expected a masked language model of transformers")
    reading.check_kind(config.to_dict() | {"architectures": [type(module).__name__]}, Path(name))
    if tokenizer is None:
        raise ValueError(
            f"{type(module).__name__} alone does not tell its symbols; expected a tokenizer, a folder or tokens"
        )
    size = int(config.vocab_size)
    symbols = symbols_of(tokenizer, config, size)
    never = torch.ones(size, dtype=torch.bool)
    never[list(symbols.frame.drawn)] = False
    longest = _longest(module)
    here = next(module.parameters()).device if device is None else torch.device(device)
    network = Network(module, symbols.frame.pad, symbols.mask_id, never, longest).to(here)
    plain = from_logits(network, symbols.mask_id, size, timed=False)
    denoiser = PaddedDenoiser(**vars(plain), pad=symbols.frame.pad)
    length = longest - len(symbols.frame.before) - len(symbols.frame.after)
    model = Model(
        name,
        denoiser,
        partial(_encoded, symbols, length),
        partial(_decoded, symbols),
        _config(name, length, size, config, symbols),
        symbols.vocabulary,
        symbols.frame,
        partial(_written, symbols),
    )
    checks.check_padding(model)
    return model


def _longest(module: nn.Module) -> int:
    """Tokens of the longest row: the positions of the network, less those that begin behind the pad's (Roberta, ESM)."""
    config: Any = module.config
    most = int(getattr(config, "max_position_embeddings", 0) or 2**20)
    for path, part in module.named_modules():
        if (
            path.endswith("position_embeddings")
            and isinstance(part, nn.Embedding)
            and part.padding_idx is not None
        ):
            return most - part.padding_idx - 1
    return most


def _config(name: str, length: int, size: int, config: Any, symbols: Symbols) -> dict[str, Any]:
    """What `Model.config` says: enough to tell this model from any other."""
    record = json.loads(json.dumps(config.to_diff_dict(), default=str))
    record = {k: v for k, v in record.items() if k not in _ELSEWHERE}
    own = {"model_type": config.model_type, "transformers": record}
    return {
        "name": name,
        "order": "left-to-right",
        "network": {"length": length, "vocab_size": size, **own},
        "vocabulary": to_record(symbols.vocabulary),
    }


_ELSEWHERE = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures")
"""What a configuration says that does not tell models apart."""


def _encoded(symbols: Symbols, length: int, texts: str | Iterable[str], *, left: bool = False) -> Tensor:
    """Tokens int64 [n, L] of a text or several, in their frame; ValueError names the first that is no such text."""
    found = []
    for number, text in enumerate([texts] if isinstance(texts, str) else texts):
        if not isinstance(text, str):
            raise ValueError(f"item {number} is a {type(text).__name__}; expected a text")
        try:
            ids = ids_of(symbols, text)
        except Foreign as error:
            raise ValueError(f"item {number}, position {error.at}: {error.message}") from None
        except ValueError as error:
            raise ValueError(f"item {number}: {error}") from None
        if len(ids) > length:
            raise ValueError(f"item {number} has {len(ids)} symbols; expected at most {length}")
        found.append(ids)
    return symbols.frame.rows(found, left=left)


def _decoded(symbols: Symbols, tokens: Tensor) -> list[str]:
    """The text of each row; ``_`` (or the mask's name) for what is masked."""
    return [text_of(symbols, row.tolist()) for row in tokens]


def _written(symbols: Symbols, folder: Path, network: nn.Module) -> None:
    """Writes a `Network`'s module and the tokenizer as a folder in the layout of transformers, in place of an older one."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.", suffix=TEMPORARY) as place:
        staging = Path(place) / "model"
        with reading.quiet():
            network.module.save_pretrained(staging)  # type: ignore[operator, union-attr]
        for name, data in symbols.files.items():
            (staging / name).write_bytes(data)
        if folder.exists():
            folder.replace(Path(place) / "old")
        staging.replace(folder)
