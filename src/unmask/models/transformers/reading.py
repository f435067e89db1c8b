"""A folder of transformers to a module: what is refused, what must be there, and nothing that is left to chance."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from logging import CRITICAL
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unmask.base import checkpoints
from unmask.base.checkpoints import one_line
from unmask.models.sizes import Limited

WEIGHTS = (
    *("model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
"""Where weights are, the first of these that is there; pickles are read by torch's weights-only loader."""

UNEXPECTED = re.compile(
    r"(^|\.)(pooler\.|cls\.seq_relationship\.|position_ids$|classifier\.|qa_outputs\.|contact_head\.|"
    r"rotary_embeddings\.inv_freq$|rotary_emb\.inv_freq$|masked_bias$|discriminator_predictions\.|"
    r"lm_head\.decoder\.bias$|predictions\.decoder\.bias$|embeddings\.position_ids$)"
)
"""Weights that a file may have and a masked language model does not need: other heads, and numbers made anew."""

TWICE = 2**28
"""Parameters up to which a folder is loaded twice, to see that nothing in it is random."""

UNIFORM = {"diffusion_gemma", "diffusiongemma", "duo", "udlm"}
"""Kinds of models whose noise is uniform over the symbols."""


def module_of(folder: Path) -> nn.Module:
    """The module of a folder, in evaluation mode and float32; ValueError on one line where anything is wrong with it."""
    record = checkpoints.read_json(folder / "config.json")
    check_kind(record, folder)
    with quiet():
        found = loaded(folder, "AutoModelForMaskedLM")
        if sum(p.numel() for p in found.parameters()) <= TWICE:
            _check_same(found, _loaded(folder, "AutoModelForMaskedLM"), folder)
    return found


def loaded(folder: Path, kind: str) -> nn.Module:
    """One load of a class of transformers, in evaluation mode and float32, after checks of what is there; see `quiet`."""
    _check_weights(folder)
    _check_sizes(folder, kind)
    return _loaded(folder, kind)


def check_kind(record: dict[str, Any], folder: Path) -> None:
    """ValueError unless config.json is that of a masked language model that transformers knows without a folder's code."""
    kind, classes = str(record.get("model_type", "")), [str(c) for c in record.get("architectures") or ()]
    place, known = folder / "config.json", _masked_kinds()
    names = {kind.lower(), *(re.sub("For.*", "", c).lower() for c in classes)}
    if names & UNIFORM:
        raise ValueError(
            f"{place}: {classes[0] if classes else kind} has uniform noise and no mask: nothing is hidden there that "
            "could be unmasked; expected a masked language model"
        )
    causal = any(
        c.endswith("ForCausalLM") or (c.endswith("LMHeadModel") and kind not in known) for c in classes
    )
    if causal and not any("Masked" in c for c in classes):
        raise ValueError(
            f"{place}: {classes[0]} is causal, it sees what stands before a position only; expected a masked language model"
        )
    if kind not in known:
        more = " (it needs code of its own, which is not run)" if "auto_map" in record else ""
        raise ValueError(
            f"{place}: model_type {one_line(kind)!r} is no masked language model of transformers{more}; expected one of "
            "bert, roberta, modernbert, esm, distilbert, electra, .."
        )
    if record.get("is_encoder_decoder") or record.get("is_decoder"):
        raise ValueError(f"{place}: model_type {kind!r} with a decoder; expected an encoder alone")


def _masked_kinds() -> set[str]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as names

    return set(names)


def _check_weights(folder: Path) -> None:
    """ValueError where no file of weights is there, or one that is no safetensors is called so."""
    found = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if found is None:
        raise ValueError(f"{folder} has no model.safetensors; expected it beside config.json")
    if found.suffix == ".safetensors" and checkpoints.is_pickle(found):
        raise ValueError(f"{found} is a pickle, not safetensors: the file is truncated or foreign")


def _check_sizes(folder: Path, kind: str) -> None:
    """ValueError where config.json asks for a network far beyond the size of its weights, before anything is made."""
    import transformers

    files = "*.safetensors" if any(folder.glob("*.safetensors")) else "*.bin"
    most = sum(path.stat().st_size for path in folder.glob(files))  # of weights of a byte each
    made: Any = getattr(transformers, kind)
    try:
        config = transformers.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        with (
            torch.device("meta"),
            Limited({str(i): torch.empty(most // 256, device="meta") for i in range(256)}),
        ):
            made.from_config(config, trust_remote_code=False) if kind.startswith("Auto") else made(config)
    except ImportError:
        raise
    except Exception as error:  # whatever a class raises, it cannot be made of this record
        raise ValueError(
            f"{folder / 'config.json'}: no network of these sizes ({one_line(error)}); expected those of the weights"
        ) from None


def _loaded(folder: Path, kind: str) -> nn.Module:
    """One load; ValueError names the first weight that is missing, misshapen, unexpected or not finite."""
    import transformers

    try:
        found, told = getattr(transformers, kind).from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            dtype=torch.float32,
            weights_only=True,
            ignore_mismatched_sizes=True,  # they are told, and refused below
        )
    except ImportError:
        raise
    except Exception as error:  # whatever its readers raise, the folder is not what it should be
        if "weights only load failed" in str(error).lower():
            raise ValueError(
                f"{folder}: its pickle holds more than tensors, which is not read; expected safetensors"
            ) from None
        raise ValueError(f"{folder} cannot be loaded ({one_line(error)}): it is damaged or foreign") from None
    missing = sorted(told["missing_keys"])
    foreign = sorted(name for name in told["unexpected_keys"] if not UNEXPECTED.search(name))
    shapes = sorted(str(entry[0]) for entry in told["mismatched_keys"])
    for names, state in ((shapes, "another shape of"), (missing, "no"), (foreign, "an unknown")):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise ValueError(
                f"{folder}: the file has {state} {names[0]!r}{more}; it belongs to another architecture"
            )
    if wrong := [n for n, p in found.named_parameters() if not torch.isfinite(p).all()]:
        raise ValueError(f"{folder}: {wrong[0]!r} holds NaN or infinite weights; expected finite ones")
    module: nn.Module = found.eval()
    return module


def _check_same(one: nn.Module, other: nn.Module, folder: Path) -> None:
    """ValueError unless two loads agree in every parameter and buffer: what differs was made up at random."""
    second = {**dict(other.named_parameters()), **dict(other.named_buffers())}
    for name, value in (*one.named_parameters(), *one.named_buffers()):
        if not torch.equal(value, second[name]):
            raise ValueError(
                f"{folder}: {name!r} is random, for the file has none; expected weights for all of it"
            )


@contextmanager
def quiet() -> Iterator[None]:
    """No reports, bars and warnings of transformers, and no random numbers of the caller spent; each load has its own."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(CRITICAL)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with torch.random.fork_rng(devices=()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.seed()
            yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
