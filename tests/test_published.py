"""Published architectures: the numbers of the published code, their laws, and folders read or refused."""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import golden_networks as cases
import pytest
import torch
from helpers import seeded
from safetensors.torch import save_file

import unmask
from unmask import selectors
from unmask.denoisers import caches
from unmask.evaluation.harness import Scorer
from unmask.models import published as reading
from unmask.networks import published
from unmask.orders import presets

NAMES = sorted(cases.CONFIGS)
GOLDEN = cases.golden()
FREQUENCIES = 1.0 / 10_000 ** (torch.arange(0, 8, 2).float() / 8)


def tensors(name):
    """The weights of a case by the published names, the table of frequencies included."""
    shapes = {k: tuple(v) for k, v in GOLDEN[name]["shapes"].items()}
    return cases.weights(shapes) | {k: FREQUENCIES for k in shapes if k.endswith("inv_freq")}


def folder_of(home, name, parts=1, config=None, values=None):
    """A published folder; of several parts with an index."""
    home.mkdir(exist_ok=True)
    (home / "config.json").write_text(json.dumps(config or cases.CONFIGS[name]))
    values = tensors(name) if values is None else values
    if parts == 1:
        save_file(values, home / "model.safetensors")
        return home
    files = [f"model-{i + 1:05}-of-{parts:05}.safetensors" for i in range(parts)]
    where = {key: files[i % parts] for i, key in enumerate(values)}
    for file in files:
        save_file({k: v for k, v in values.items() if where[k] == file}, home / file)
    (home / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return home


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    home = tmp_path_factory.mktemp("published")
    return {name: folder_of(home / name, name) for name in NAMES}


@pytest.fixture
def denoiser(request, folders):
    return reading.from_folder(folders[request.param])[0]


every = pytest.mark.parametrize("denoiser", NAMES, indirect=True)


# The published code.


@pytest.mark.parametrize("name", NAMES)
def test_the_numbers_are_those_of_the_published_code(name, folders):
    denoiser, _ = reading.from_folder(folders[name])
    logits = torch.tensor(GOLDEN[name]["logits"])
    tokens, times = cases.tokens(), {}
    if name == "sedd":
        times["time"] = -torch.expm1(-torch.tensor(cases.SIGMA)) / (1 - 1e-3)
    symbols = torch.arange(logits.shape[-1]) != denoiser.mask_id
    wanted = logits[..., symbols].log_softmax(-1)
    found = denoiser(tokens, **times)[..., symbols[: denoiser.vocab_size]]
    where = tokens == denoiser.mask_id if name == "sedd" else torch.ones_like(tokens, dtype=torch.bool)
    assert (found - wanted)[where].abs().max() < 2e-5
    assert denoiser.vocab_size == len(symbols) - (name in ("mdlm", "sedd"))


def test_a_partial_pass_is_the_published_one(folders):
    network = reading.from_folder(folders["llada"])[0].network
    with torch.no_grad():
        _, cache = network.full(cases.tokens())
        rows = torch.arange(*cases.BLOCK).expand(2, -1)
        found = network.partial(cases.changed(), rows, cache)
    assert (found - torch.tensor(GOLDEN["llada"]["partial"])).abs().max() < 2e-5


@pytest.mark.parametrize("name", NAMES)
def test_the_names_of_the_weights_are_the_published_ones(name, folders):
    denoiser, _ = reading.from_folder(folders[name])
    own = {k: list(v.shape) for k, v in denoiser.network.state_dict().items()}
    assert own == GOLDEN[name]["shapes"]


def test_dream_is_a_qwen2_that_sees_both_ways_and_predicts_the_next(folders):
    transformers = pytest.importorskip("transformers")
    fields = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    more = ("num_key_value_heads", "rms_norm_eps", "max_position_embeddings", "tie_word_embeddings")
    config = transformers.Qwen2Config(
        **{k: cases.CONFIGS["dream"][k] for k in (*fields, *more)},
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        attn_implementation="eager",
    )
    with torch.random.fork_rng():
        model = transformers.Qwen2ForCausalLM(config).eval()
    model.load_state_dict(tensors("dream"))
    tokens = cases.tokens()
    with torch.no_grad():
        none = torch.zeros(2, 1, cases.LENGTH, cases.LENGTH)  # nothing is added: every key is seen
        logits = model(tokens, attention_mask=none).logits
    network = reading.from_folder(folders["dream"])[0].network
    assert (network(tokens)[:, 1:] - logits[:, :-1]).abs().max() < 2e-5
    assert (network(tokens)[:, 0] - logits[:, 0]).abs().max() < 2e-5


def test_llada_is_a_llama_that_sees_both_ways(folders):
    transformers = pytest.importorskip("transformers")
    small = cases.CONFIGS["llada"]
    config = transformers.LlamaConfig(
        vocab_size=small["vocab_size"],
        hidden_size=small["d_model"],
        intermediate_size=small["mlp_hidden_size"],
        num_hidden_layers=small["n_layers"],
        num_attention_heads=small["n_heads"],
        num_key_value_heads=small["n_kv_heads"],
        rms_norm_eps=small["rms_norm_eps"],
        rope_parameters={"rope_type": "default", "rope_theta": small["rope_theta"]},
        attn_implementation="eager",
    )
    with torch.random.fork_rng():
        model = transformers.LlamaForCausalLM(config).eval()
    new = {
        "attn_norm": "input_layernorm",
        "ff_norm": "post_attention_layernorm",
        "attn_out": "self_attn.o_proj",
    }
    new |= {f"{x}_proj": f"self_attn.{x}_proj" for x in "qkv"}
    new |= {"ff_proj": "mlp.gate_proj", "up_proj": "mlp.up_proj", "ff_out": "mlp.down_proj"}
    ends = {"wte": "model.embed_tokens", "ln_f": "model.norm", "ff_out": "lm_head"}
    renamed = {}
    for key, value in tensors("llada").items():
        *_, part, last = key.split(".")
        number = re.search(r"blocks\.(\d+)\.", key)
        renamed[f"model.layers.{number[1]}.{new[part]}.{last}" if number else f"{ends[part]}.{last}"] = value
    model.load_state_dict(renamed)
    with torch.no_grad():
        none = torch.zeros(2, 1, cases.LENGTH, cases.LENGTH)
        logits = model(cases.tokens(), attention_mask=none).logits
    network = reading.from_folder(folders["llada"])[0].network
    assert (network(cases.tokens()) - logits).abs().max() < 2e-5


@pytest.mark.parametrize(
    ("build", "config", "parameters"),
    [
        # 8.02 B: arXiv 2502.09992, table of sizes
        (
            published.LLaDA,
            published.LLaDAConfig(126464, 4096, 4096, 32, 32, 32, 12288, 126336),
            8_015_581_184,
        ),
        # the 15,231,233,024 bytes in bfloat16 of Qwen2.5-7B's index, whose shape Dream-7B has
        (
            published.Dream,
            published.DreamConfig(152064, 131072, 3584, 28, 28, 4, 18944, 151666),
            7_615_616_512,
        ),
        # 130 M without the embedding: the card of mdlm-owt; 169.6 M with it
        (published.MDLM, published.DiTConfig(50258, 1024, 768, 12, 12, 128), 169_627_218),
    ],
    ids=["llada-8b", "dream-7b", "mdlm-owt"],
)
def test_the_published_sizes_have_the_published_numbers_of_parameters(build, config, parameters):
    with torch.device("meta"):
        assert sum(p.numel() for p in build(config).parameters()) == parameters


def test_llada2_mini_has_the_published_number_of_parameters():
    """16 B: its repository. Layers but the first are alike, so two tell."""
    one, two = (
        published.LLaDA2Config(
            157184, 32768, 2048, n, 16, 4, 128, 5120, 512, 256, 8, 8, 4, 156895, 1, 1, turned=64, biases=False
        )
        for n in (1, 2)
    )
    with torch.device("meta"):
        first, both = (sum(p.numel() for p in published.LLaDA2(c).parameters()) for c in (one, two))
    assert first + 19 * (both - first) == 16_255_638_528


# Laws.


@every
def test_laws_sum_to_one_and_never_draw_the_mask(denoiser):
    law = denoiser(masked(denoiser))
    assert (law.exp().sum(-1) - 1).abs().max() < 1e-5
    if denoiser.mask_id < denoiser.vocab_size:
        assert (law[..., denoiser.mask_id] == -torch.inf).all()


@every
def test_rows_alone_are_rows_of_all(denoiser):
    tokens, rows = masked(denoiser), torch.tensor([[0, 8, 4], [3, 3, 1]])
    wanted = denoiser(tokens).gather(1, rows[..., None].expand(-1, -1, denoiser.vocab_size))
    assert close(denoiser(tokens, rows), wanted)
    assert close(denoiser.full(tokens, rows)[0], wanted)
    assert close(denoiser(tokens[1:], rows[1:]), wanted[1:])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("left", [False, True])
def test_sequences_of_several_lengths_have_the_laws_that_they_have_alone(name, left, folders):
    pad = 1
    denoiser, _ = reading.from_folder(folders[name], pad_id=pad)
    tokens = masked(denoiser)
    short = tokens[:, :5].masked_fill(tokens[:, :5] == pad, 2)
    batch = torch.full((3, cases.LENGTH), pad)
    place = (
        range(4, 9) if left and name != "llada2" else range(5)
    )  # blocks are counted from the first position
    batch[:2, list(place)] = short
    batch[2] = tokens[0].masked_fill(tokens[0] == pad, 2)
    both = denoiser(batch)
    assert close(both[:2, list(place)], denoiser(short), 1e-4)
    assert close(both[2:], denoiser(batch[2:]), 1e-4)
    assert (both[..., pad] == -torch.inf).all()


ORDERS = {
    "confidence": presets.confidence(2),
    "random": presets.random(2),
    "left-to-right": presets.left_to_right(1),
    "entropy in blocks": selectors.in_blocks(presets.entropy(2), 4),
}


@every
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("substeps", [1, 2])
def test_the_likelihood_is_that_of_the_sampler_and_prompts_stay(denoiser, order, substeps):
    tokens = masked(denoiser)
    found = unmask.sample(denoiser, tokens, ORDERS[order], generator=seeded(3), substeps=substeps)
    visible = tokens != denoiser.mask_id
    assert (found.tokens != denoiser.mask_id).all()
    assert (found.tokens == tokens)[visible].all()
    ids = torch.arange(2)
    scored = unmask.log_likelihood(
        denoiser, found.tokens, ORDERS[order], visible=visible, substeps=substeps, order_ids=ids
    )
    assert close(found.log_prob, scored, 1e-4)


@every
def test_a_partial_pass_leaves_the_keys_of_other_rows_as_they_were(denoiser):
    """Against a pass over all rows that puts the old keys and values back by hand."""
    network = getattr(denoiser.network, "backbone", denoiser.network)
    before, after = masked(denoiser), masked(denoiser)
    rows = torch.tensor([[4, 3], [8, 0]])
    after.scatter_(1, rows, torch.tensor([[5, 6], [7, 8]]))
    run = torch.zeros_like(after, dtype=torch.bool).scatter_(1, rows, True)
    if isinstance(network, published.Dream):  # logits at a row are read before it
        run.scatter_(1, (rows - 1).clamp(min=0), True)
    with torch.no_grad():
        _, old = network.full(before)
        told = network.told(after, None)
        angles = torch.arange(cases.LENGTH)[None, None, :, None] * network.frequencies()
        x = network.embed(after)
        for layer, (k_old, v_old) in zip(network.layers(), old):
            q, k, v = layer.project(x, angles, told)
            k, v = (torch.where(run[:, None, :, None], a, b) for a, b in ((k, k_old), (v, v_old)))
            x = layer.finish(x, q, k, v, network.seen(after, None), told)
        wanted = network.logits(x, network.source(after, rows), told)
        assert close(network.partial(after, rows, network.full(before)[1]), wanted)


def test_a_block_cache_of_llada2_changes_no_number(folders):
    denoiser, config = reading.from_folder(folders["llada2"])
    tokens = masked(denoiser)
    cached = caches.blocks(denoiser, config["block_length"])
    order = reading.selector(config)
    plain, quick = (unmask.sample(d, tokens, order, generator=seeded(1)) for d in (denoiser, cached))
    assert (plain.tokens == quick.tokens).all()
    assert close(plain.log_prob, quick.log_prob, 1e-4)
    assert quick.nfe.sum() < plain.nfe.sum()


def test_nothing_in_a_block_of_llada2_sees_later_ones(folders):
    denoiser, _ = reading.from_folder(folders["llada2"])
    tokens = masked(denoiser)
    other = tokens.clone()
    other[:, 4:] = 2
    assert close(denoiser(tokens)[:, :4], denoiser(other)[:, :4])
    assert not close(denoiser(tokens)[:, 4:], denoiser(other)[:, 4:])


def test_sedd_reads_the_share_of_masks_as_its_time_and_mdlm_reads_none(folders):
    sedd, mdlm = (reading.from_folder(folders[name])[0] for name in ("sedd", "mdlm"))
    tokens = cases.tokens()
    share = (tokens == sedd.mask_id).double().mean(1)
    assert close(sedd(tokens), sedd(tokens, time=share))
    assert not close(sedd(tokens), sedd(tokens, time=share / 2))
    assert close(mdlm(tokens), mdlm(tokens, time=share / 2))
    assert (sedd.takes_time, mdlm.takes_time) == (True, False)


# Folders.


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_shards_are_one_file_and_the_dtype_is_the_one_asked_for(name, dtype, folders, tmp_path):
    one, _ = reading.from_folder(folders[name], dtype=dtype)
    many, _ = reading.from_folder(folder_of(tmp_path / "many", name, parts=3), dtype=dtype)
    for (key, a), b in zip(one.network.state_dict().items(), many.network.state_dict().values()):
        assert torch.equal(a, b)
        buffer = key.endswith(("inv_freq", "expert_bias"))
        assert a.dtype == (torch.float32 if buffer else dtype)
    wide = reading.from_folder(folders[name])[0](cases.tokens())
    moved = (
        (one(cases.tokens()) - wide).abs().nan_to_num(0.0)
    )  # in few digits a position may take other experts
    assert moved.median() < (0.05 if dtype == torch.bfloat16 else 1e-5)


MEASURE = """
import sys
sys.path.insert(0, sys.argv[1])
from test_published import peak_of
print(*peak_of(sys.argv[2]))
"""


def peak_of(home):
    """MiB of a network that is read from a folder, and how far the memory of the process rose meanwhile."""
    if RESETS:
        ctypes.CDLL(None).malloc_trim(0)  # what is free goes back, so that it cannot be used again unseen
        Path("/proc/self/clear_refs").write_text("5")  # the peak is what is there now
    before = peak()
    network = reading.from_folder(home, dtype=torch.float32)[0].network
    return sum(p.numel() * p.element_size() for p in network.parameters()) / 2**20, peak() - before


def peak():
    """The most memory that this process has had, MiB."""
    if RESETS:
        status = Path("/proc/self/status").read_text()
        return int(re.search(r"VmHWM:\s*(\d+) kB", status).group(1)) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


RESETS = os.access("/proc/self/clear_refs", os.W_OK) and hasattr(ctypes.CDLL(None), "malloc_trim")
"""Whether the peak of this process can be set back."""


def test_a_model_never_needs_twice_its_memory(tmp_path):
    """In a process of its own where the peak of this one cannot be set back."""
    config = cases.CONFIGS["llada"] | {"d_model": 256, "mlp_hidden_size": 1024, "n_layers": 14}
    with torch.device("meta"):
        network = published.LLaDA(published.LLaDAConfig.read(config))
    values = {k: torch.zeros(v.shape) for k, v in network.state_dict().items()}
    home = folder_of(tmp_path / "large", "llada", 6, config, values)
    del values
    if RESETS:
        size, grown = min(peak_of(home) for _ in range(4))  # what else happens in a process only adds
    else:
        call = [sys.executable, "-c", MEASURE, str(Path(__file__).parent), str(home)]
        done = subprocess.run(call, capture_output=True, text=True, check=True)
        size, grown = map(float, done.stdout.split())
    assert size > 50  # MiB
    assert 0.9 * size < grown < 1.25 * size


def test_a_few_tensors_of_another_dtype_follow_the_others(tmp_path):
    values = {k: v if k.endswith("norm.weight") else v.bfloat16() for k, v in tensors("dream").items()}
    denoiser, _ = reading.from_folder(folder_of(tmp_path / "mixed", "dream", values=values))
    assert {p.dtype for p in denoiser.network.parameters()} == {torch.bfloat16}
    assert (denoiser(cases.tokens()).exp().sum(-1) - 1).abs().max() < 1e-5


def test_config_and_tokenizer_say_what_a_model_needs(folders, tmp_path):
    _, config = reading.from_folder(folders["llada2"])
    assert (config["mask_id"], config["block_length"], config["end_of_text"]) == (21, 4, 1)
    bare = {k: v for k, v in cases.CONFIGS["llada2"].items() if k != "mask_token_id"}
    home = folder_of(tmp_path / "bare", "llada2", config=bare)
    with pytest.raises(ValueError, match="no 'mask_token_id'"):
        reading.from_folder(home)
    words = {"<|mask|>": 21, "<|endoftext|>": 3, "<|role_end|>": 4}
    (home / "tokenizer.json").write_text(json.dumps(words_only(words)))
    model = reading.model(home, pad_id=5)
    assert model.denoiser.mask_id == 21
    assert (model.config["end_of_text"], model.config["end_of_turn"]) == (3, 4)
    tokens = model.encode(["w7 w8", "w9"], masked=2)
    assert tokens.tolist() == [[7, 8, 21, 21], [5, 9, 21, 21]]
    assert model.decode(tokens) == ["w7 w8", "w9"]
    with pytest.raises(ValueError, match="several lengths"):
        reading.model(home).encode(["w7 w8", "w9"])
    with pytest.raises(ValueError, match=r"no tokenizer\.json"):
        reading.model(folders["llada2"]).encode("w7")


@pytest.mark.parametrize("name", ["llada", "llada2", "dream", "mdlm"])
def test_the_harness_scores_texts_by_a_folder(name, folders, tmp_path):
    """A word after two words is one position of one call; exact along left to right."""
    home = folder_of(tmp_path / name, name)
    mask = reading.from_folder(home)[0].mask_id
    (home / "tokenizer.json").write_text(json.dumps(words_only({"<|mask|>": mask})))
    model = unmask.load(home)
    (value, _), *_ = Scorer(model).given_contexts([("w7 w8", " w9"), ("w7", " w8 w9")])
    tokens = model.encode(["w7 w8 w9"])
    visible = torch.arange(tokens.shape[1])[None] < tokens.shape[1] - 1
    assert value == pytest.approx(model.log_likelihood(tokens, visible=visible).item(), abs=1e-5)
    hidden = tokens.masked_fill(~visible, mask)
    assert value == pytest.approx(model.denoiser(hidden)[0, -1, 9].item(), abs=1e-5)
    assert value.meaning == "exact, order left-to-right"


def test_what_a_config_leaves_open_comes_from_the_published_code_or_the_files():
    """LLaDA2's sampler has its mask as a default, 156895; its file tells whether the output maps have biases."""
    family, config = reading.FAMILIES["llada2_moe"], {"model_type": "llada2_moe", "vocab_size": 157184}
    completed = reading.reading._completed
    assert completed(config, family, {}, {})["mask_token_id"] == 156895
    assert completed(config, family, {}, {"<|mask|>": 7})["mask_token_id"] == 7
    assert completed(config | {"mask_token_id": 8}, family, {}, {"<|mask|>": 7})["mask_token_id"] == 8
    assert "mask_token_id" not in completed(config | {"vocab_size": 9}, family, {}, {})
    assert not completed(config, family, {}, {})["use_bias"]
    assert completed(config, family, {"model.layers.0.attention.dense.bias": None}, {})["use_bias"]


def test_biases_of_llada2_are_read_where_a_file_has_them(folders, tmp_path):
    bare = {k: v for k, v in cases.CONFIGS["llada2"].items() if k != "use_bias"}
    without, _ = reading.from_folder(folder_of(tmp_path / "without", "llada2", config=bare))
    assert close(without(cases.tokens()), reading.from_folder(folders["llada2"])[0](cases.tokens()))
    more = {f"model.layers.{i}.attention.dense.bias": torch.full((32,), 0.5) for i in range(2)}
    biased, _ = reading.from_folder(
        folder_of(tmp_path / "biased", "llada2", config=bare, values=tensors("llada2") | more)
    )
    assert not close(without(cases.tokens()), biased(cases.tokens()))


def words_only(special):
    """A tokenizer of words w0..w23 split at blanks."""
    words = {f"w{i}": i for i in range(cases.VOCAB) if i not in special.values()}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": w} | flags for w, i in special.items()],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": words | special, "unk_token": "w0"},
    }


def test_what_files_hold_besides_is_ignored_by_name_only(tmp_path):
    more = tensors("dream") | {"model.layers.0.self_attn.rotary_emb.inv_freq": FREQUENCIES}
    reading.from_folder(folder_of(tmp_path / "more", "dream", values=more))
    with pytest.raises(ValueError, match=r"the network has no 'model\.extra'"):
        reading.from_folder(
            folder_of(tmp_path / "extra", "dream", values=more | {"model.extra": torch.zeros(2)})
        )


@pytest.mark.parametrize("name", ["llada", "dream", "llada2"])
def test_a_tied_head_is_the_embedding(name, tmp_path):
    tie = "weight_tying" if name == "llada" else "tie_word_embeddings"
    values = tensors(name)
    head = "model.transformer.ff_out.weight" if name == "llada" else "lm_head.weight"
    first = next(
        k for k in values if k.endswith(("wte.weight", "embed_tokens.weight", "word_embeddings.weight"))
    )
    shared = values | {head: values[first].clone()}
    untied, _ = reading.from_folder(folder_of(tmp_path / "untied", name, values=shared))
    config = cases.CONFIGS[name] | {tie: True}
    both = folder_of(tmp_path / "both", name, config=config, values=shared)
    one = folder_of(
        tmp_path / "one", name, config=config, values={k: v for k, v in values.items() if k != head}
    )
    for home in (both, one):
        assert close(reading.from_folder(home)[0](cases.tokens()), untied(cases.tokens()))


def changed_config(**values):
    return lambda home: rewrite(home, lambda c: c | values)


def rewrite(home, change):
    file = home / "config.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))


def rename(home):
    values = tensors("llada")
    values["model.transformer.norm.weight"] = values.pop("model.transformer.ln_f.weight")
    save_file(values, home / "model.safetensors")


def truncate(home):
    file = home / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def corrupt(home):
    (home / "model.safetensors").write_bytes(b"\xff" * 4000)


def poison(home):
    values = tensors("llada")
    values["model.transformer.ln_f.weight"][0] = torch.nan
    save_file(values, home / "model.safetensors")


def whole_numbers(home):
    values = tensors("llada")
    values["model.transformer.ln_f.weight"] = torch.ones(32, dtype=torch.int64)
    save_file(values, home / "model.safetensors")


def pickled(home):
    torch.save(tensors("llada"), home / "pytorch_model.bin")
    (home / "model.safetensors").unlink()


def gone(home):
    (home / "model.safetensors").unlink()


def index_to_nowhere(home):
    names = dict.fromkeys(tensors("llada"), "model-00001-of-00002.safetensors")
    (home / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


def index_outside(home):
    (home / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "../model.safetensors"}})
    )


def twice(home):
    folder_of(home, "llada", parts=2)
    first = home / "model-00001-of-00002.safetensors"
    save_file(tensors("llada"), first)


def another(home):
    (home / "config.json").write_text(json.dumps(cases.CONFIGS["dream"]))


REFUSALS = {
    "renamed": (rename, "the files lack 'model.transformer.ln_f.weight'"),
    "truncated": (truncate, "truncated or foreign"),
    "corrupted": (corrupt, "truncated or foreign"),
    "not finite": (poison, "NaN or infinite"),
    "whole numbers": (whole_numbers, "has dtype I64"),
    "pickled": (pickled, "is a pickle"),
    "no weights": (gone, "does not exist"),
    "index to nowhere": (index_to_nowhere, "does not exist"),
    "index outside": (index_outside, "does not exist"),
    "a tensor twice": (twice, "again"),
    "another architecture": (another, "another architecture"),
    "other sizes": (changed_config(mlp_hidden_size=50), "has shape"),
    "too deep": (changed_config(n_layers=10**9), "far beyond those of the weights"),
    "too wide": (changed_config(d_model=2**40), "far beyond those of the weights"),
    "odd heads": (changed_config(n_heads=5), "even number of channels"),
    "no mask": (changed_config(mask_token_id=None), "no 'mask_token_id'"),
    "mask outside": (changed_config(mask_token_id=24), "expected one of 24 symbols"),
    "no size": (changed_config(d_model=None), "no 'd_model'"),
    "a size of words": (changed_config(d_model="many"), "expected a whole number"),
    "alibi": (changed_config(alibi=True), "'alibi' is True"),
    "other layers": (changed_config(block_type="sequential"), "'block_type' is 'sequential'"),
    "unknown": (changed_config(model_type="gpt9"), "expected one of"),
    "uniform": (changed_config(model_type="udlm"), "UDLM is not read: its noise replaces symbols"),
    "duo": (changed_config(model_type="DUO"), "Duo is not read: its noise"),
    "diffusion gemma": (
        changed_config(model_type="diffusion_gemma"),
        "DiffusionGemma is not read: its noise",
    ),
    "block diffusion": (changed_config(model_type="bd3lm"), "BD3-LM is not read"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_bad_folder_is_refused_in_one_line(name, tmp_path):
    damage, said = REFUSALS[name]
    home = folder_of(tmp_path / "bad", "llada")
    damage(home)
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        reading.from_folder(home)
    assert "\n" not in str(caught.value)
    assert str(home) in str(caught.value)


@pytest.mark.parametrize(("part", "kind"), [("graph", "uniform"), ("noise", "geometric")])
def test_sedd_of_other_noise_is_refused(part, kind, tmp_path):
    config = cases.CONFIGS["sedd"] | {part: {"type": kind}}
    with pytest.raises(ValueError, match="SEDD-uniform is not read" if kind == "uniform" else "geometric"):
        reading.from_folder(folder_of(tmp_path / "bad", "sedd", config=config))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"pad_id": 21}, "not the mask"),
        ({"pad_id": 99}, "expected a symbol"),
        ({"dtype": torch.int8}, "expected one of"),
    ],
)
def test_bad_arguments_are_refused(more, said, folders):
    with pytest.raises(ValueError, match=said):
        reading.from_folder(folders["llada"], **more)


@every
def test_sequences_longer_than_the_network_are_refused(denoiser):
    with pytest.raises(ValueError, match="at most, the length of the network"):
        denoiser(torch.zeros(1, 17, dtype=torch.int64))


def test_folders_are_known_by_their_config():
    assert all(reading.is_published(config) for config in cases.CONFIGS.values())
    assert reading.is_published({"model_type": "diffusion_gemma"})
    assert not reading.is_published({"model_type": "bert"})
    assert not reading.is_published({"name": "sudoku", "network": {}})


def masked(denoiser):
    """The tokens of the cases with this mask."""
    tokens = cases.tokens()
    return tokens.masked_fill((tokens == 21) | (tokens == 23), denoiser.mask_id)


def close(a, b, most=1e-5):
    return bool(
        ((a - b).abs().nan_to_num(0.0) <= most).all() and ((a == -torch.inf) == (b == -torch.inf)).all()
    )
