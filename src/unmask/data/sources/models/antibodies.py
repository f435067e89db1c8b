"""Masked models of antibody chains: AntiBERTy (Ruffolo et al., arXiv 2112.07782), Sapiens (Prihoda et al., mAbs 2022)."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unmask.data.sources import packages
from unmask.data.sources.models import layouts, pickles
from unmask.data.sources.models.folders import RESIDUES, Content, Symbols, read_config
from unmask.data.sources.packages import Package

ANTIBERTY = Package(
    tool="pip",
    name="antiberty",
    version="0.1.3",
    file="antiberty-0.1.3-py3-none-any.whl",
    sha256="30d910992b190013871bac49cdc032e01a19339f7d2b958ab99b0eb44638352a",
)
SAPIENS = Package(
    tool="pip",
    name="sapiens",
    version="1.0.5",
    file="sapiens-1.0.5-py3-none-any.whl",
    sha256="af1a8d445e9d7ab9f5f04512cf325acdfd9dd0930eb957b63ec234df1f141a8b",
)

BERT = Symbols(
    ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *RESIDUES),
    {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"},
)
FAIRSEQ = Symbols(
    ("<s>", "<pad>", "</s>", "<unk>", *RESIDUES, "<mask>"),
    {
        "bos": "<s>",
        "eos": "</s>",
        "pad": "<pad>",
        "unk": "<unk>",
        "cls": "<s>",
        "sep": "</s>",
        "mask": "<mask>",
    },
)
"""The order of fairseq's dictionaries: four special symbols, those of dict.txt, and the mask last."""

BEYOND = ("bert.embeddings.position_ids", "bert.pooler.", "cls.species.", "cls.chain.", "cls.graft.")
"""What AntiBERTy's file holds beyond the masked model: a row of positions, the pooler, and heads of other tasks."""

LIGHT = (
    "DIQMTQSPSSLSASVGDRVTITCRASQDVNTAVAWYQQKPGKAPKLLIYSASFLYSGVPSRFSGSRSGTDFTLTISSLQPEDFATYYCQQHYTTPPTFGQGTKVEIK",
    "DIQMTQSPSSLSASVGDRVTITCRASQGIRNYLAWYQQKPGKAPKLLIYAASTLQSGVPSRFSGSGSGTDFTLTISSLQPEDVATYYCQRYNRAPYTFGQGTKVEIK",
)
"""Light chains of trastuzumab and adalimumab, as their published international non-proprietary names give them."""

CAUTION = (
    "It was taught at low shares of masked residues: of chains masked to 90 to 100 % it knows little, and likelihoods "
    "along an order are real numbers of a model that was not taught as a diffusion model."
)


def antiberty() -> Content:
    """AntiBERTy, 25.8 million parameters: `BertForMaskedLM`."""
    wheel, place = packages.bring(ANTIBERTY), "antiberty/trained_models"
    vocabulary = packages.read(wheel, f"{place}/vocab.txt").decode().split()
    check_symbols(vocabulary, BERT.names, "AntiBERTy's vocab.txt")
    at = f"{place}/AntiBERTy_md_smooth"
    published = read_config(packages.read(wheel, f"{at}/config.json"), "AntiBERTy's config.json")
    return Content(
        config=(config := bert_config(published)),
        tensors=bert_tensors(packages.read(wheel, f"{at}/pytorch_model.bin"), config),
        symbols=BERT,
        probe=_chains_of(wheel, ANTIBERTY),
        about=_about("AntiBERTy (arXiv 2112.07782), 25.8 million parameters", ANTIBERTY, CAUTION),
        longest=config["max_position_embeddings"],
    )


def check_symbols(found: list[str], wanted: tuple[str, ...], what: str) -> None:
    """ValueError unless a package lists the symbols whose ids are known here."""
    if tuple(found) != wanted:
        raise ValueError(f"{what} lists {' '.join(found)[:80]}; expected {' '.join(wanted)}")


def bert_config(published: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a `BertForMaskedLM` from the published one; ValueError for another kind of model."""
    wanted = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
    if bad := [k for k, v in wanted.items() if published.get(k) != v]:
        raise ValueError(f"config.json: {bad[0]} is {published.get(bad[0])!r}; expected {wanted[bad[0]]!r}")
    sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    others = ("max_position_embeddings", "type_vocab_size", "layer_norm_eps", "initializer_range")
    return {
        "architectures": ["BertForMaskedLM"],
        **{k: published[k] for k in (*wanted, *sizes, *others)},
        **{k: published[k] for k in ("hidden_dropout_prob", "attention_probs_dropout_prob")},
        **_ids(BERT),
    }


def bert_tensors(data: bytes, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """AntiBERTy's masked model as `BertForMaskedLM` names it."""
    what = "AntiBERTy's pytorch_model.bin"
    found = pickles.tensors(pickles.read(data, what), what)
    head = "cls.predictions"
    same = {
        f"{head}.decoder.weight": "bert.embeddings.word_embeddings.weight",
        f"{head}.decoder.bias": f"{head}.bias",
    }
    layouts.tied(found, same, what)
    return layouts.fitted(found, layouts.bert(config), what, ignored=(*BEYOND, *same))


def sapiens(chain: str) -> Content:
    """Sapiens for heavy (``"h"``) or light (``"l"``) chains, 0.57 million parameters: `RobertaForMaskedLM`."""
    wheel, place = packages.bring(SAPIENS), "sapiens/models/v1"
    listed = [
        line.split()[0] for line in packages.read(wheel, f"{place}/dict.txt").decode().splitlines() if line
    ]
    check_symbols(listed, tuple(RESIDUES), "Sapiens' dict.txt")
    config, tensors = roberta(packages.read(wheel, f"{place}/checkpoint_v{chain}.pt"))
    name = {"h": "heavy", "l": "light"}[chain]
    about = f"Sapiens (mAbs 14:1, 2022), {name} chains, 0.57 million parameters"
    last = "Its last stage of training showed true and random residues in place of masks."
    probe = _chains_of(wheel, SAPIENS) if chain == "h" else LIGHT
    longest = config["max_position_embeddings"] - FAIRSEQ.id_of("pad") - 1
    return Content(config, tensors, FAIRSEQ, probe, _about(about, SAPIENS, f"{CAUTION} {last}"), longest)


def roberta(data: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and weights of a `RobertaForMaskedLM` from a checkpoint of fairseq.

    fairseq has no token types: their row, which transformers adds everywhere, is zero.
    """
    what = "Sapiens' checkpoint"
    record = pickles.read(data, what, (argparse.Namespace,))
    if not isinstance(record.get("args"), argparse.Namespace):
        raise ValueError(
            f"{what} holds {', '.join(map(str, record))[:80]}; expected fairseq's args and model"
        )
    config, found = roberta_config(vars(record["args"]), what), pickles.tensors(record.get("model"), what)
    names = roberta_names(config["num_hidden_layers"])
    same = {"decoder.lm_head.weight": names["roberta.embeddings.word_embeddings.weight"]}
    layouts.tied(found, same, what)
    shapes = layouts.roberta(config)
    types = "roberta.embeddings.token_type_embeddings.weight"
    wanted = {published: shapes[name] for name, published in names.items()}
    fitted = layouts.fitted(found, wanted, what, ignored=same)
    tensors = {name: fitted[published] for name, published in names.items()}
    return config, {types: torch.zeros(shapes[types]), **tensors}


def roberta_config(args: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The configuration of a `RobertaForMaskedLM` from fairseq's arguments; ValueError for another kind of model."""
    wanted = {"task": "masked_lm", "arch": "roberta_small", "activation_fn": "gelu"}
    if bad := [k for k, v in wanted.items() if args.get(k) != v]:
        raise ValueError(f"{what}: {bad[0]} is {args.get(bad[0])!r}; expected {wanted[bad[0]]!r}")
    pad = FAIRSEQ.id_of("pad")
    return {
        "architectures": ["RobertaForMaskedLM"],
        "model_type": "roberta",
        "vocab_size": len(FAIRSEQ.names),
        "hidden_size": args["encoder_embed_dim"],
        "num_hidden_layers": args["encoder_layers"],
        "num_attention_heads": args["encoder_attention_heads"],
        "intermediate_size": args["encoder_ffn_embed_dim"],
        "hidden_act": "gelu",
        "max_position_embeddings": args["max_positions"] + pad + 1,  # the first symbol stands at pad + 1
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
        "hidden_dropout_prob": args["dropout"],
        "attention_probs_dropout_prob": args["attention_dropout"],
        **_ids(FAIRSEQ),
    }


def roberta_names(layers: int) -> dict[str, str]:
    """What fairseq calls each tensor of a `RobertaForMaskedLM` of so many layers, the token types left out."""
    stem, body = "decoder.sentence_encoder", "roberta.embeddings"
    pairs = {
        f"{body}.LayerNorm": f"{stem}.emb_layer_norm",
        "lm_head.dense": "decoder.lm_head.dense",
        "lm_head.layer_norm": "decoder.lm_head.layer_norm",
    }
    inside = {
        "attention.self.query": "self_attn.q_proj",
        "attention.self.key": "self_attn.k_proj",
        "attention.self.value": "self_attn.v_proj",
        "attention.output.dense": "self_attn.out_proj",
        "attention.output.LayerNorm": "self_attn_layer_norm",
        "intermediate.dense": "fc1",
        "output.dense": "fc2",
        "output.LayerNorm": "final_layer_norm",
    }
    for n in range(layers):
        pairs |= {f"roberta.encoder.layer.{n}.{k}": f"{stem}.layers.{n}.{v}" for k, v in inside.items()}
    both = {f"{k}.{end}": f"{v}.{end}" for k, v in pairs.items() for end in ("weight", "bias")}
    rows = {"word": "tokens", "position": "positions"}
    return {
        **{f"{body}.{k}_embeddings.weight": f"{stem}.embed_{v}.weight" for k, v in rows.items()},
        **both,
        "lm_head.bias": "decoder.lm_head.bias",
    }


def _ids(symbols: Symbols) -> dict[str, int]:
    """The ids of special symbols, as configurations name them."""
    roles = {"pad": "pad", "bos": "cls", "eos": "sep", "mask": "mask"}
    return {f"{name}_token_id": symbols.id_of(role) for name, role in roles.items()}


def _chains_of(wheel: Any, package: Package) -> list[str]:
    """The whole chains that a package's own description shows: up to eight, each once."""
    text = packages.read(wheel, f"{package.name}-{package.version}.dist-info/METADATA").decode()
    return list(dict.fromkeys(re.findall(rf"(?<![*_\w])[{RESIDUES}]{{90,}}(?![*_\w])", text)))[:8]


def _about(what: str, package: Package, more: str) -> str:
    """README of a folder: origin, licence, and what to know."""
    return (
        f"{what}: from the package {package.name} {package.version}, file {package.file}, SHA-256 {package.sha256}; MIT "
        f"licence, as the package says.\nWeights renamed, not changed. {more}\n"
    )
