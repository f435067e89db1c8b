"""Golden outputs of the published architectures: ``python benchmarks/golden_architectures.py --peers FOLDER``.

FOLDER holds checkouts of mdlm, Score-Entropy-Discrete-Diffusion, dllm, Fast-dLLM and Halton-MaskGIT, and the unpacked wheel
of diffusers (0.42) as ``diffusers-wheel``, with requests beside it. Their model files are run as they are; none of their
code is here. What they import but cannot have on a CPU is stood in for: flash-attn by PyTorch's attention, omegaconf by
namespaces, einops by reshapes, names that transformers has dropped by their old meaning. ``--only NAME ..`` keeps the
numbers of other cases.
Writes tests/golden/architectures.json, and says how far the numbers moved.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
import golden_networks as cases


def main() -> None:
    """Runs the published code of every case on the same weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=CASES, default=list(CASES))
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    stand_in()
    old = cases.golden() if cases.FILE.exists() else {}
    new = {name: CASES[name](given.peers) for name in given.only}
    for name, found in new.items():
        moved = "new"
        if name in old:
            moved = f"moved by {(torch.tensor(found['logits']) - torch.tensor(old[name]['logits'])).abs().max():.2g}"
        print(f"{name:13} {len(found['shapes'])} tensors, {moved}")
    cases.FILE.write_text(json.dumps(old | new) + "\n")


def mdlm(peers: Path) -> dict[str, Any]:
    """models/dit.py at noise level zero; the published weights have its names below ``backbone``."""
    config = cases.CONFIGS["mdlm"]
    module = from_folder(peers / "mdlm", "models.dit", keep=("models",))
    model = {
        "hidden_size": config["hidden_dim"],
        "n_heads": config["n_heads"],
        "cond_dim": config["cond_dim"],
    }
    model |= {"n_blocks": config["n_blocks"], "dropout": 0.1, "scale_by_sigma": True}
    network = module.DIT({"model": model}, vocab_size=config["vocab_size"])
    return record(network, "backbone.", lambda: network(cases.tokens(), torch.zeros(2)))


def sedd(peers: Path) -> dict[str, Any]:
    """model/transformer.py: log-ratios at two noise levels."""
    module = from_folder(peers / "Score-Entropy-Discrete-Diffusion", "model.transformer", keep=("model",))
    network = module.SEDD(cases.CONFIGS["sedd"])
    return record(network, "", lambda: network(cases.tokens(), torch.tensor(cases.SIGMA)))


def llada(peers: Path) -> dict[str, Any]:
    """modeling_llada.py of Fast-dLLM, which is the published one with a cache: logits, and a block run again."""
    folder = peers / "Fast-dLLM" / "llada"
    module = from_folder(folder, "model.modeling_llada", keep=("model",))
    config = with_defaults(module.LLaDAConfig(**cases.CONFIGS["llada"]))
    plain = module.create_model_config_from_pretrained_config(config)
    plain.init_device = "cpu"
    network = module.LLaDAModelLM(config, model=module.LLaDAModel(plain, init_params=False))
    first, last = cases.BLOCK

    def partial() -> Tensor:
        before = network(cases.tokens(), use_cache=True).past_key_values
        where = torch.zeros(2, cases.LENGTH, dtype=torch.bool)
        where[:, first:last] = True
        block = cases.changed()[:, first:last]
        # one sequence at a time: the published code reads the rows off all sequences at once
        each = [
            network(
                block[i : i + 1],
                past_key_values=[(k[i : i + 1], v[i : i + 1]) for k, v in before],
                use_cache=True,
                replace_position=where[i : i + 1],
            ).logits
            for i in range(2)
        ]
        return torch.cat(each)

    return record(network, "", lambda: network(cases.tokens()).logits, partial)


def dream(peers: Path) -> dict[str, Any]:
    """modeling_dream.py; its sampler moves the logits by one."""
    module = from_folder(
        peers / "dllm" / "dllm" / "pipelines" / "dream", "models.modeling_dream", keep=("models",)
    )
    network = module.DreamModel(with_defaults(module.DreamConfig(**cases.CONFIGS["dream"])))

    def shifted() -> Tensor:
        logits = network(cases.tokens()).logits
        return torch.cat([logits[:, :1], logits[:, :-1]], dim=1)

    return record(network, "", shifted)


def llada2(peers: Path) -> dict[str, Any]:
    """modeling_llada2_moe.py under the mask of its sampler: nothing sees the blocks after its own."""
    folder = peers / "dllm" / "dllm" / "pipelines" / "llada2"
    module = from_folder(folder, "models.modeling_llada2_moe", keep=("models",))
    config = cases.CONFIGS["llada2"]
    network = module.LLaDA2MoeModelLM(
        with_defaults(module.LLaDA2MoeConfig(**config), _attn_implementation="sdpa")
    )
    block = torch.arange(cases.LENGTH) // config["block_length"]
    seen = (block[:, None] >= block)[None, None].expand(2, -1, -1, -1)
    return record(network, "", lambda: network(cases.tokens(), attention_mask=seen).logits)


def maskgit(peers: Path, patches: bool = False) -> dict[str, Any]:
    """Network/transformer.py: one image with its class, one without."""
    module = from_folder(peers / "Halton-MaskGIT", "Network.transformer", keep=("Network",))
    network = module.Transformer(**(cases.MASKGIT_PATCHES if patches else cases.MASKGIT))
    tokens = cases.drawing(4).clamp(max=cases.VOCAB - 1) if patches else cases.image()
    drop = torch.tensor([False, True])
    return record(network, "", lambda: network(tokens, cases.LABELS, drop))


def pixels(peers: Path) -> dict[str, Any]:
    """Network/vq_model.py: a decoder with few features; the published code fixes the width of codes to 8."""
    module = from_folder(peers / "Halton-MaskGIT", "Network.vq_model", keep=("Network",))
    network = module.VQModel(module.ModelArgs(codebook_size=cases.VOCAB - 1, z_channels=16))
    network.encoder, network.decoder = None, module.Decoder(z_channels=16, ch=32, ch_mult=(1, 2))
    network.quant_conv = None
    del network.quantize.codebook_used
    return record(network, "", lambda: network.decode_code(cases.codes()))


def amused(peers: Path, name: str = "amused") -> dict[str, Any]:
    """UVit2DModel of diffusers: two images, each with its caption."""
    sys.path.insert(0, str(peers / "diffusers-wheel"))
    from diffusers.models.unets.uvit_2d import UVit2DModel

    config = {k: v for k, v in cases.AMUSED[name].items() if not k.startswith("_")}
    network = UVit2DModel(**config)
    tokens = cases.drawing(config["sample_size"])

    def logits() -> Tensor:
        states, pooled, sizes = cases.captions()
        return network(tokens, states, pooled, sizes).flatten(2).transpose(1, 2)

    return record(network, "", logits)


def amused_pixels(peers: Path) -> dict[str, Any]:
    """VQModel of diffusers, as its pipeline calls it; shapes of the decoder alone."""
    sys.path.insert(0, str(peers / "diffusers-wheel"))
    from diffusers.models.autoencoders.vq_model import VQModel

    config = {k: v for k, v in cases.AMUSED_PIXELS.items() if not k.startswith("_")}
    network = VQModel(**config)
    network.encoder, network.quant_conv = None, None
    tokens, width = cases.codes(), config["vq_embed_dim"]

    def image() -> Tensor:
        return network.decode(tokens, force_not_quantize=True, shape=(*tokens.shape, width)).sample

    return record(network, "", image)


def record(
    network: nn.Module, prefix: str, run: Callable[[], Tensor], partial: Callable[[], Tensor] | None = None
) -> dict[str, Any]:
    """Shapes and outputs of a published network on our weights."""
    network = network.eval().float()
    own = {prefix + name: value for name, value in network.state_dict().items()}
    shapes = {name: tuple(value.shape) for name, value in own.items()}
    for name, value in cases.weights(shapes).items():
        own[name].copy_(value)
    with torch.no_grad():
        found = {"shapes": shapes, "logits": rounded(run())}
        return found if partial is None else found | {"partial": rounded(partial())}


def rounded(values: Tensor) -> list[Any]:
    """Numbers to six decimals."""
    return torch.round(values.double(), decimals=6).tolist()


def from_folder(folder: Path, name: str, keep: tuple[str, ...]) -> types.ModuleType:
    """A module of a checkout, imported by its own name; packages that share the name are forgotten first."""
    for known in [n for n in sys.modules if n.split(".")[0] in keep]:
        del sys.modules[known]
    package, _, last = name.rpartition(".")
    made = types.ModuleType(package)  # not its __init__, which imports the rest
    made.__path__ = [str(folder / package.replace(".", "/"))]
    sys.modules[package] = made
    return importlib.import_module(f"{package}.{last}")


def stand_in() -> None:
    """Modules in place of those that need a GPU or are not there, and names that transformers had."""
    flash = module("flash_attn")
    flash.layers = module("flash_attn.layers")
    flash.layers.rotary = module("flash_attn.layers.rotary", apply_rotary_emb_qkv_=turned)
    attention = {"flash_attn_varlen_qkvpacked_func": attended}
    flash.flash_attn_interface = module("flash_attn.flash_attn_interface", **attention)
    module("einops", rearrange=rearranged)
    module("omegaconf", OmegaConf=SimpleNamespace(create=namespace))
    import transformers.modeling_rope_utils as rope_utils
    import transformers.pytorch_utils as torch_utils
    import transformers.utils as utils
    import transformers.utils.import_utils as import_utils

    for home in (torch_utils, utils, import_utils):
        for name, value in OLD.items():
            if not hasattr(home, name):
                setattr(home, name, value)
    masks = ("_prepare_4d_causal_attention_mask", "_prepare_4d_causal_attention_mask_for_sdpa")
    module(
        "transformers.modeling_attn_mask_utils", **dict.fromkeys(masks)
    )  # not called: ours has four dimensions
    rope_utils.ROPE_INIT_FUNCTIONS.setdefault("default", plain_positions)


def module(name: str, **contents: Any) -> Any:
    """An empty module of a name, with contents."""
    made = types.ModuleType(name)
    vars(made).update(contents)
    made.__spec__ = importlib.machinery.ModuleSpec(name, None)
    sys.modules[name] = made
    return made


def namespace(value: Any) -> Any:
    """Records as namespaces, all the way down."""
    return (
        SimpleNamespace(**{k: namespace(v) for k, v in value.items()}) if isinstance(value, dict) else value
    )


def turned(qkv: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """flash-attn's rotary positions: halves of q and k [B, L, 3, H, d] turned by cos and sin [L, d/2]."""
    cos, sin = cos[:, None, None], sin[:, None, None]
    a, b = qkv[:, :, :2].chunk(2, dim=-1)
    return torch.cat([torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1), qkv[:, :, 2:]], dim=2)


def attended(qkv: Tensor, starts: Tensor, most: int, dropout: float, causal: bool) -> Tensor:
    """flash-attn's attention of sequences of equal length, [B L, 3, H, d] to [B L, H, d]."""
    assert not causal
    assert not dropout
    assert len(starts) * most == len(qkv) + most
    q, k, v = qkv.unflatten(0, (-1, most)).permute(2, 0, 3, 1, 4)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(0, 1)


def rearranged(x: Tensor, pattern: str, **sizes: int) -> Tensor:
    """The patterns of einops that these files use."""
    if pattern == "b (h w) c -> b c h w":
        return x.transpose(1, 2).unflatten(-1, (sizes["h"], sizes["w"]))
    if pattern == "b c h proj_w -> b (h proj_w) c":
        return x.flatten(2).transpose(1, 2)
    if pattern == "b (c s1 s2) h w -> b (h s1 w s2) c":
        corners = x.unflatten(1, (sizes["c"], sizes["s1"], sizes["s2"]))
        return corners.permute(0, 4, 2, 5, 3, 1).flatten(1, 4)
    if pattern == "b s (three h d) -> b s three h d":
        return x.unflatten(-1, (3, sizes["h"], -1))
    if pattern == "b s ... -> (b s) ...":
        return x.flatten(0, 1)
    assert pattern == "(b s) h d -> b s (h d)"
    return x.unflatten(0, (sizes["b"], -1)).flatten(2)


OLD: dict[str, Any] = {
    "is_torch_fx_available": lambda: False,
    "is_torch_greater_or_equal_than_1_13": True,
    "ALL_LAYERNORM_LAYERS": [],
    "add_start_docstrings": lambda *_: lambda f: f,
    "add_start_docstrings_to_model_forward": lambda *_: lambda f: f,
    "replace_return_docstrings": lambda **_: lambda f: f,
    "is_flash_attn_greater_or_equal_2_10": lambda: False,
    "is_flash_attn_2_available": lambda: False,
}
"""Names that transformers had in version 4."""


def plain_positions(config: Any, device: Any = None, **_: Any) -> tuple[Tensor, float]:
    """Version 4's plain rotary positions: radians of each pair of channels, and a factor of one."""
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    channels = int(width * getattr(config, "partial_rotary_factor", 1.0))
    return 1.0 / config.rope_theta ** (torch.arange(0, channels, 2, device=device).float() / channels), 1.0


def with_defaults(config: Any, **more: Any) -> Any:
    """A configuration with the fields that version 4 gave to all of them."""
    for name, value in ({"use_cache": False, "use_return_dict": True} | more).items():
        try:
            setattr(config, name, value)
        except AttributeError:
            continue
    return config


CASES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "mdlm": mdlm,
    "sedd": sedd,
    "llada": llada,
    "dream": dream,
    "llada2": llada2,
    "maskgit": maskgit,
    "maskgit_patches": lambda peers: maskgit(peers, patches=True),
    "pixels": pixels,
    "amused": amused,
    "amused_flat": lambda peers: amused(peers, "amused_flat"),
    "amused_pixels": amused_pixels,
}

if __name__ == "__main__":
    main()
