"""Masked language models of transformers: one law whatever the padding, nothing drawn or loaded that should not be."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tiny_transformers
import torch
from tiny_transformers import LETTERS, TOKENS

import unmask
from unmask import codec
from unmask.command_line.app import main
from unmask.denoisers import take_symbols
from unmask.models.transformers import checks
from unmask.models.transformers.network import Network

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore::unmask.models.transformers.checks.Unchecked",
)

NAMES = ("Bert", "Roberta", "ModernBert", "Esm", "Esm rotary", "DistilBert", "Electra", "Esmc")
SIZES = tiny_transformers.SIZES | {
    "vocab_size": len(TOKENS) + 2,  # two more than there are tokens
    "num_hidden_layers": 2,
    "max_position_embeddings": 32,
    "initializer_range": 0.3,
}
TEXTS = ["ACDEFGHIKLMN", "MKV", "WWYAACD"]


def module(name: str) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return _made(name)


def _made(name: str) -> Any:
    kind, _, form = name.partition(" ")
    if kind == "DistilBert":
        small = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
        kept = {
            k: SIZES[k]
            for k in ("vocab_size", "max_position_embeddings", "initializer_range", "pad_token_id")
        }
        config = transformers.DistilBertConfig(**small, **kept)
    elif kind == "Esm":
        config = transformers.EsmConfig(
            **SIZES,
            token_dropout=True,
            position_embedding_type=form or "absolute",
            emb_layer_norm_before=not form,
        )
    else:
        config = getattr(transformers, f"{kind}Config")(**SIZES)
    return getattr(transformers, f"{kind}ForMaskedLM")(config).eval()


@cache
def model(name: str = "Bert") -> unmask.Model:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return unmask.from_transformers(module(name).double(), TOKENS)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- the law ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_law_sums_to_one_over_what_may_be_drawn(name: str) -> None:
    own = model(name)
    tokens = own.infill(TEXTS, [(1, 3)], seed=1).tokens
    hidden = tokens.masked_fill(~own.visible(tokens), own.denoiser.mask_id)
    law = own.denoiser(hidden)
    assert own.symbols == tuple(LETTERS)
    torch.testing.assert_close(law.exp().sum(-1), torch.ones(law.shape[:2], dtype=law.dtype))
    assert (law[..., :5] == -torch.inf).all()
    assert (law[..., 25:] == -torch.inf).all()
    assert (law[..., 5:25] > -torch.inf).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_law_is_the_networks_own_given_that_a_symbol_is_drawn(name: str) -> None:
    own, plain = model(name), module(name).double()
    tokens = own.encode("ACD_FG__IK")
    with torch.no_grad():
        logits = plain(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits[..., 5:25]
    torch.testing.assert_close(own.denoiser(tokens)[..., 5:25], logits.log_softmax(-1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("left", [False, True])
def test_a_row_alone_is_the_row_among_longer_ones(name: str, left: bool) -> None:
    """Property: texts of random lengths and masks, all rows and some, pads on either side."""
    own, random = model(name), seeded(3)
    for _ in range(4):
        lengths = torch.randint(1, 20, (3,), generator=random).tolist()
        texts = [
            "".join(("_" + LETTERS)[i] for i in torch.randint(21, (n,), generator=random)) for n in lengths
        ]
        tokens = own.encode(texts, left=left)
        rows = torch.randint(tokens.shape[1], (3, 4), generator=random)
        rows = torch.where(tokens.gather(1, rows) == 0, -1 if left else 0, rows) % tokens.shape[1]
        everywhere, some = own.denoiser(tokens), own.denoiser(tokens, rows)
        torch.testing.assert_close(
            some, everywhere.gather(1, rows[..., None].expand_as(some)), rtol=0, atol=1e-9
        )
        for item, text in enumerate(texts):
            alone = own.denoiser(own.encode(text))[0]
            start = tokens.shape[1] - len(alone) if left else 0
            torch.testing.assert_close(everywhere[item, start : start + len(alone)], alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_head_runs_at_the_asked_rows_only(name: str) -> None:
    own = unmask.from_transformers(module(name), TOKENS)
    seen: list[int] = []
    head = own.denoiser.network.module.get_output_embeddings()
    head.register_forward_hook(lambda m, args, out: seen.append(out.shape[1]))
    tokens = own.encode("ACDE____")
    own.denoiser(tokens, torch.tensor([[5]]))
    assert own.denoiser.head.why == ""
    seen.clear()
    own.denoiser(tokens, torch.tensor([[5]]))
    assert seen == [1]


@pytest.mark.parametrize("name", ["Esm", "Esm rotary"])
def test_token_dropout_has_no_hole_where_all_is_masked(name: str) -> None:
    """Published code divides 0 by 0 there; elsewhere it is the published one (see above)."""
    plain = module(name)
    network = Network(plain, 0, 3, torch.zeros(27, dtype=torch.bool), 32)
    tokens = torch.tensor([[3, 3, 3, 0], [1, 3, 8, 2]])
    with torch.no_grad():
        assert plain(input_ids=tokens, attention_mask=(tokens > 0).long()).logits[0].isnan().any()
        found = network(tokens)
        assert found.isfinite().all()
        expected = plain(input_ids=tokens[1:], attention_mask=torch.ones(1, 4)).logits
    torch.testing.assert_close(found[1:], expected, rtol=0, atol=1e-6)


# --- verbs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_likelihood_is_the_samplers_own(name: str) -> None:
    own = model(name)
    for order in ("left-to-right", "confidence", "random", "hybrid"):
        tokens = own.encode(TEXTS)
        drawn = own.infill(tokens, [(1, 3)], order=order, calls=2, seed=4)
        again = own.infill(tokens, [(1, 3)], order=order, calls=2, seed=4)
        kept = own.visible(tokens) | (torch.arange(tokens.shape[1]) != 2) & (
            torch.arange(tokens.shape[1]) != 3
        )
        assert (drawn.tokens == again.tokens).all()
        assert (drawn.tokens == tokens)[kept].all()
        assert (drawn.nfe <= 2).all()
        selector = unmask.models.verbs.ordered(own, order, 2, None, 4)
        scored = own.log_likelihood(drawn.tokens, selector, visible=kept, order_ids=torch.arange(3))
        torch.testing.assert_close(scored, drawn.log_prob, rtol=0, atol=1e-6)


def test_default_likelihood_is_the_chain_from_left_to_right() -> None:
    own = model()
    tokens = own.encode(TEXTS)
    total = torch.zeros(len(TEXTS), dtype=torch.float64)
    for item, text in enumerate(TEXTS):
        for i, symbol in enumerate(text):
            law = own.denoiser(own.encode(text[:i] + "_" * (len(text) - i)))[0, i + 1]
            total[item] += law[TOKENS.index(symbol)]
    torch.testing.assert_close(own.log_likelihood(tokens), total, rtol=0, atol=1e-6)


def test_the_bound_is_the_mean_over_orders() -> None:
    own = model()
    tokens = own.encode("ACM").expand(400, -1)
    found = own.nelbo(tokens, generator=seeded(), samples=8)
    random = own.log_likelihood(tokens, unmask.orders.presets.random(1, 7), order_ids=torch.arange(400))
    error = float(random.std() / 20 + found.value.std() / 20)
    assert abs(float(found.value.mean() + random.mean())) < 4 * error


def test_pseudo_likelihood_masks_one_at_a_time_or_the_rest_of_a_word() -> None:
    own = model()
    tokens = own.encode(["ACDEF", "MKV"])
    expected = torch.zeros(2, dtype=torch.float64)
    words = torch.tensor([[0, 1, 1, 2, 2, 2, 3], [0, 1, 1, 1, 9, 9, 9]])
    by_word = torch.zeros(2, dtype=torch.float64)
    for item, text in enumerate(["ACDEF", "MKV"]):
        for i, symbol in enumerate(text):
            alone = own.encode(text[:i] + "_" + text[i + 1 :])
            expected[item] += own.denoiser(alone)[0, i + 1, TOKENS.index(symbol)]
            mine = words[item, i + 1]
            rest = "".join("_" if j >= i and words[item, j + 1] == mine else c for j, c in enumerate(text))
            by_word[item] += own.denoiser(own.encode(rest))[0, i + 1, TOKENS.index(symbol)]
    torch.testing.assert_close(own.pseudo_log_likelihood(tokens, batch_size=3), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(own.pseudo_log_likelihood(tokens, words=words), by_word, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="does not tell words"):
        own.pseudo_log_likelihood(tokens, words=True)


def test_shipped_models_have_the_same_verbs() -> None:
    law = unmask.load("sudoku")
    grid = torch.arange(81)[None] % 9
    found = law.infill(grid.masked_fill(torch.arange(81) < 5, law.denoiser.mask_id), order="margin", calls=2)
    assert (found.tokens[:, 5:] == grid[:, 5:]).all()
    assert float(found.nfe) == 2
    each = grid.expand(81, -1).masked_fill(torch.eye(81, dtype=torch.bool), law.denoiser.mask_id)
    laws = law.denoiser(each, torch.arange(81)[:, None])
    assert float(law.pseudo_log_likelihood(grid)) == pytest.approx(
        float(take_symbols(laws, grid.T).sum()), rel=1e-4
    )
    molecules = unmask.load("molecules")
    assert len(molecules.symbols) == 26
    found = molecules.infill(["CC(=O)Nc1ccccc1", "CCO"], [(0, 2)], seed=1)
    assert molecules.decode(found.tokens)[0].endswith("(=O)Nc1ccccc1")
    with pytest.raises(ValueError, match="end <= 3, the symbols of the shortest"):
        molecules.infill(["CC(=O)Nc1ccccc1", "CCO"], [(0, 4)])


def test_profile_and_plan_count_symbols_and_no_frame() -> None:
    own = model()
    data = own.sample(24, length=6, seed=2).tokens
    profile = own.profile(data, rounds=8)
    assert profile.length == 6
    plan = own.plan(profile, calls=3)
    assert len(plan) == 3
    assert sum(plan) == 6
    drawn = own.sample(2, length=12, plan=plan, order="random")
    assert (drawn.nfe == 3).all()
    assert len(own.plan(data, calls=2, visible=2)) == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.encode("ACB"), "position 2: character 'B' is not in the vocabulary"),
        (lambda m: m.encode("A" * 31), "31 symbols; expected at most 30"),
        (lambda m: m.sample(2), "expected that of each sequence"),
        (lambda m: m.infill("ACD", [(2, 5)]), "expected 0 <= first < end <= 3"),
        (lambda m: m.infill("ACD", torch.ones(1, 5, dtype=torch.bool)), "special token"),
        (lambda m: m.infill("ACD", [(0, 1)], order="best"), "order 'best': expected one of"),
        (lambda m: m.infill("ACD", [(0, 1)], calls=2, plan=1), "one of the two"),
        (lambda m: m.plan(m.encode(["ACD", "DCA"])), "calls or max_kl"),
        (lambda m: m.denoiser(torch.full((1, 33), 5)), "at most 32"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        call(model())
    assert "\n" not in str(error.value)


# --- folders ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models") / "tiny"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        unmask.from_transformers(module("Bert"), TOKENS).save(place)
    return place


def test_saved_and_loaded_is_the_same_also_to_transformers(folder: Path, tmp_path: Path) -> None:
    own = unmask.load(folder)
    tokens = own.encode(TEXTS)
    plain = transformers.AutoModelForMaskedLM.from_pretrained(folder)
    expected = plain(input_ids=tokens[:1]).logits[..., 5:25].log_softmax(-1)
    torch.testing.assert_close(own.denoiser(tokens[:1])[..., 5:25], expected.detach(), rtol=0, atol=1e-5)
    own.save(tmp_path / "again")
    again = unmask.load(tmp_path / "again")
    assert again.hash == own.hash
    assert again.symbols == own.symbols
    assert codec.of_model(again).identity == codec.of_model(own).identity
    assert own.decode(tokens) == TEXTS
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError, match="is no model"):
        own.save(tmp_path / "mine")


def test_a_shipped_model_is_saved_as_it_is_loaded(tmp_path: Path) -> None:
    law = unmask.load("molecules")
    law.save(tmp_path / "copy")
    assert unmask.load(tmp_path / "copy").hash == law.hash


def _weights(place: Path, change: Any) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(place / "model.safetensors")
    change(tensors)
    save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})


def _config(place: Path, **changes: Any) -> None:
    record = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(record | changes))


def _cut(place: Path) -> None:
    data = (place / "model.safetensors").read_bytes()
    (place / "model.safetensors").write_bytes(data[:-100])


class Evil:
    def __reduce__(self) -> Any:
        return (print, ("this must never run",))


def _evil(place: Path) -> None:
    (place / "model.safetensors").unlink()
    torch.save({"a": Evil()}, place / "pytorch_model.bin")


PLACES = "bert.embeddings.position_embeddings.weight"
DAMAGE: dict[str, tuple[Any, str]] = {
    "truncated": (_cut, "damaged or foreign"),
    "empty": (lambda p: (p / "model.safetensors").write_bytes(b""), "damaged or foreign"),
    "pickled": (lambda p: torch.save({}, p / "model.safetensors"), "is a pickle, not safetensors"),
    "evil": (_evil, "pickle holds more than tensors"),
    "missing": (lambda p: _weights(p, lambda t: t.pop(PLACES)), f"has no '{PLACES}'"),
    "renamed": (lambda p: _weights(p, lambda t: t.update({"places": t.pop(PLACES)})), f"has no '{PLACES}'"),
    "more": (lambda p: _weights(p, lambda t: t.update({"places": torch.ones(2)})), "an unknown 'places'"),
    "misshapen": (
        lambda p: _weights(p, lambda t: t.update({PLACES: torch.ones(3, 32)})),
        f"another shape of '{PLACES}'",
    ),
    "not finite": (lambda p: _weights(p, lambda t: t[PLACES].fill_(torch.nan)), "NaN or infinite"),
    "causal": (lambda p: _config(p, model_type="gpt2", architectures=["GPT2LMHeadModel"]), "is causal"),
    "uniform noise": (
        lambda p: _config(p, model_type="diffusion_gemma", architectures=["DiffusionGemmaForBlockDiffusion"]),
        "DiffusionGemma is not read: its noise replaces symbols",
    ),
    "own code": (
        lambda p: _config(p, model_type="mine", architectures=["Mine"], auto_map={"AutoModel": "mine.Mine"}),
        "code of its own, which is not run",
    ),
    "another architecture": (
        lambda p: _config(p, model_type="roberta", architectures=["RobertaForMaskedLM"]),
        "belongs to another architecture",
    ),
    "far too large": (
        lambda p: _config(p, hidden_size=2**20, intermediate_size=2**40),
        "far beyond those of the weights",
    ),
    "far too deep": (lambda p: _config(p, num_hidden_layers=10**9), "far beyond those of the weights"),
    "no numbers": (lambda p: _config(p, hidden_size="wide"), "no network of these sizes"),
    "a decoder": (lambda p: _config(p, is_decoder=True), "with a decoder"),
    "no tokens": (lambda p: (p / "vocab.txt").unlink(), "no tokenizer.json and no vocab.txt"),
    "no mask": (lambda p: (p / "vocab.txt").write_text("<pad>\nA\nC\n"), "no mask token"),
    "too many tokens": (
        lambda p: (p / "vocab.txt").write_text("\n".join([*TOKENS, *"123"])),
        "28 tokens, the network 27",
    ),
    "no weights": (lambda p: (p / "model.safetensors").unlink(), "has no model.safetensors"),
    "chance": (
        lambda p: (p / "probe.txt").write_text("\n".join(TEXTS * 5)),
        "less than chance, ln 20 = 3.00",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_wrong_with_a_folder_is_one_line(name: str, folder: Path, tmp_path: Path, capfd: Any) -> None:
    change, message = DAMAGE[name]
    shutil.copytree(folder, tmp_path / "tiny")
    change(tmp_path / "tiny")
    assert main(["sample", str(tmp_path / "tiny"), "--length", "4"]) == 2
    said = capfd.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_a_pooler_and_a_safe_pickle_are_read(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    shutil.copytree(folder, tmp_path / "tiny")
    tensors = load_file(tmp_path / "tiny" / "model.safetensors") | {
        "bert.pooler.dense.weight": torch.ones(32, 32)
    }
    (tmp_path / "tiny" / "model.safetensors").unlink()
    torch.save(tensors, tmp_path / "tiny" / "pytorch_model.bin")
    assert unmask.load(tmp_path / "tiny").hash == unmask.load(folder).hash


def test_weights_that_a_load_makes_up_are_seen(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A class may say that a missing weight is none to report: it is random all the same."""
    shutil.copytree(folder, tmp_path / "tiny")
    _weights(tmp_path / "tiny", lambda t: t.pop(PLACES))
    monkeypatch.setattr(
        transformers.BertForMaskedLM, "_keys_to_ignore_on_load_missing", [r"position_embeddings"]
    )
    with pytest.raises(ValueError, match=f"'{PLACES}' is random"):
        unmask.load(tmp_path / "tiny")


def test_positions_that_do_not_follow_the_pads_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = transformers.BertForMaskedLM.forward
    monkeypatch.setattr(
        transformers.BertForMaskedLM,
        "forward",
        lambda self, attention_mask=None, **told: forward(self, **told),
    )
    with pytest.raises(ValueError, match="do not follow the pads"):
        unmask.from_transformers(module("Bert"), TOKENS)


def test_a_probe_says_whether_symbols_fit_or_the_user_hears_that_nothing_did(
    folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "tiny")
    own = unmask.load(folder)
    best = own.sample(12, length=12, temperature=0.05, order="confidence", seed=3)
    (tmp_path / "tiny" / "probe.txt").write_text("\n".join(own.decode(best.tokens)))
    with warnings.catch_warnings():
        warnings.simplefilter("error", checks.Unchecked)
        unmask.load(tmp_path / "tiny")
    with pytest.warns(checks.Unchecked, match=r"has no probe\.txt"):
        unmask.load(folder)


def test_a_name_that_is_nothing_says_which_files_are_wanted() -> None:
    for call in (unmask.load, unmask.from_transformers):
        with pytest.raises(ValueError, match=r"config\.json and model\.safetensors"):
            call("facebook/esm2_t6_8M_UR50D")


def test_without_transformers_the_line_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert main(["sample", str(folder), "--length", "3"]) == 2
    assert capfd.readouterr().err == "unmask: transformers is not installed: pip install 'unmask[hf]'\n"


def test_a_sequence_without_symbols_costs_nothing() -> None:
    own = model()
    tokens = own.encode(["", "ACD"])
    assert float(own.log_likelihood(tokens)[0]) == 0
    assert float(own.pseudo_log_likelihood(tokens)[0]) == 0
    assert float(own.nelbo(tokens, generator=seeded(), samples=2).value[0]) == 0


def test_nothing_of_transformers_is_imported_until_it_is_needed() -> None:
    program = (
        "import unmask, sys; unmask.load; unmask.from_transformers; print('transformers' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"


# --- tokenizers -------------------------------------------------------------------------------------------


def test_a_tokenizer_of_pieces_is_read_whole(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused0]", "play", "##ing", "a", "##b", "cat"]
    library = Tokenizer(models.WordPiece({n: i for i, n in enumerate(names)}, unk_token="[UNK]"))
    library.normalizer, library.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    library.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    library.add_special_tokens(names[:5])
    library.enable_truncation(4)  # such a file would score a part of the text
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=library, mask_token="[MASK]", pad_token="[PAD]", unk_token="[UNK]"
    )
    own = unmask.from_transformers(module("Bert"), fast)
    assert own.symbols == ("play", "##ing", "a", "##b", "cat")
    assert own.encode("a cat playing ab").tolist() == [[2, 8, 10, 6, 7, 8, 9, 3]]
    assert own.decode(own.encode("a [MASK] playing"))[0].split()[:2] == ["a", "[MASK]"]
    with pytest.raises(ValueError, match=r"\[UNK\] in its place 1"):
        own.encode("a dog")
    tokens = own.encode("playing ab")
    words = torch.tensor([[0, 1, 1, 2, 2, 3]])
    assert float(own.pseudo_log_likelihood(tokens, words=True)) == pytest.approx(
        float(own.pseudo_log_likelihood(tokens, words=words))
    )
    own.save(tmp_path / "pieces")
    again = unmask.load(tmp_path / "pieces")
    assert again.encode("a cat playing").tolist() == own.encode("a cat playing").tolist()


# --- archives and the command line ------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_archives_give_back_what_the_model_says_and_what_it_does_not(name: str) -> None:
    own = model(name)
    items = ["ACDEFGHIK", "MKV", "", "an X in ACD", "W" * 70, "ACDEFGHIK"]
    for settings in ({"plan": 3}, {"order": codec.LEFT_TO_RIGHT, "plan": 1}):
        data = unmask.compress(own, items, **settings)
        assert list(unmask.decompress(own, data)) == items
        assert codec.Archive(own, data).item(1) == "MKV"


def test_code_length_is_the_likelihood_given_the_length() -> None:
    own = model()
    drawn = own.decode(own.sample(6, length=20, temperature=0.2, seed=5).tokens)
    subject = codec.of_model(own)
    data = [text.encode() for text in drawn]
    job = codec.prepare(own, codec.Settings(order=codec.LEFT_TO_RIGHT), returns="bytes", shorter=False)
    _, entries, _ = job.block(0, data)
    nats = own.log_likelihood(own.encode(drawn))
    told = codec.layout.log_likelihoods(job.coding, data)
    assert told == pytest.approx(nats.tolist(), abs=1e-6)
    for entry, value in zip(entries, nats.tolist()):
        assert 8 * entry.length == pytest.approx(-value / 0.6931, abs=16)
    assert subject.length == 30


def test_fasta_comes_back_byte_for_byte(folder: Path, tmp_path: Path, capfd: Any) -> None:
    texts = {
        "plain.fasta": b">one heavy\nACDEFG\n>two\nMKVXA\n>three\n\xff\n",
        "wrapped.fasta": b">one\nACDE\nFGHI\nKL\n>two\nMK\n>three\nACDE\nMKVL\n",
        "windows.fasta": b">one\r\nACDE\r\n>two\r\nMK",
        "mixed.fasta": b">one\nACDE\nFG\n>two\nMKVLWW\n>none\n>three\nACDE\nMK\n",
    }
    for name, data in texts.items():
        (tmp_path / name).write_bytes(data)
        command = [
            "compress",
            str(folder),
            str(tmp_path / name),
            "-o",
            str(tmp_path / "x.umz"),
            "--fasta",
            "--quiet",
        ]
        assert main(command) == 0
        back = [
            "decompress",
            str(tmp_path / "x.umz"),
            "--model",
            str(folder),
            "-o",
            str(tmp_path / "back"),
            "--quiet",
        ]
        assert main(back) == 0
        assert (tmp_path / "back").read_bytes() == data
    many = b"".join(b">chain_%d IGHV1-2*02 Homo sapiens heavy, naive\nACDEFGHI\n" % i for i in range(20))
    (tmp_path / "many.fasta").write_bytes(many)
    assert main([*command[:2], str(tmp_path / "many.fasta"), *command[3:]]) == 0
    assert main(back) == 0
    assert (tmp_path / "back").read_bytes() == many
    assert (tmp_path / "x.umz").stat().st_size < 0.7 * len(many)  # headers are packed, even of a poor model
    (tmp_path / "odd.fasta").write_bytes(b">one\nACDE\nFGHIK\nKL\n")
    capfd.readouterr()
    assert (
        main(["compress", str(folder), str(tmp_path / "odd.fasta"), "-o", str(tmp_path / "y"), "--fasta"])
        == 2
    )
    assert "line 1: lines of this sequence differ in width" in capfd.readouterr().err


def test_the_command_line_measures_and_draws(folder: Path, tmp_path: Path, capfd: Any) -> None:
    (tmp_path / "a.fasta").write_text(">a\nACDEFGHIKL\n>b\nMKVLAAWW\n>c\nMKVLAAWY\n>d\nMKVL\n")
    data = str(tmp_path / "a.fasta")
    assert main(["sample", str(folder), "--prompt", data, "--hide", "1:3", "--json", "--quiet"]) == 0
    samples = json.loads(capfd.readouterr().out)["samples"]
    assert [s["prompt"] for s in samples] == ["A__EFGHIKL", "M__LAAWW", "M__LAAWY", "M__L"]
    assert all(s["text"][0] + s["text"][3:] == s["prompt"][0] + s["prompt"][3:] for s in samples)
    assert main(["eval", str(folder), data, "--exact", "4", "--json", "--quiet"]) == 0
    report = json.loads(capfd.readouterr().out)
    own = unmask.load(folder)
    exact = -own.log_likelihood(own.encode(["ACDEFGHIKL", "MKVLAAWW", "MKVLAAWY", "MKVL"])).mean()
    assert report["log_likelihood"]["nats"]["value"] == pytest.approx(float(exact), rel=1e-5)
    assert report["data"]["characters"] == 30
    assert main(["profile", str(folder), data, "-o", str(tmp_path / "p.json"), "--quiet"]) == 0
    assert (
        main(["plan", str(tmp_path / "p.json"), "--steps", "3", "-o", str(tmp_path / "plan.json"), "--quiet"])
        == 0
    )
    capfd.readouterr()
    plan = str(tmp_path / "plan.json")
    assert main(["sample", str(folder), "--length", "8", "-n", "2", "--plan", plan, "--json", "--quiet"]) == 0
    assert all(s["nfe"] == 3 and len(s["text"]) == 8 for s in json.loads(capfd.readouterr().out)["samples"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sample", "{}"], "expected --length N, or --prompt FILE"),
        (["sample", "{}", "--length", "31"], "--length 31: expected 1..30"),
        (["sample", "{}", "--hide", "1:2"], "--hide without --prompt"),
        (["sample", "{}", "--prompt", "{data}", "--hide", "2-3"], "expected ranges FIRST:END"),
        (
            ["sample", "{}", "--prompt", "{data}", "--hide", "2:9"],
            "line 1: hidden 2:9: expected 0 <= first < end <= 4",
        ),
        (["sample", "{}", "--prompt", "{data}"], "line 1: nothing is hidden; expected _ for gaps, or --hide"),
        (["sample", "text", "--length", "9"], "model 'text': expected no --length"),
        (["sample", "sudoku", "--prompt", "{data}", "--hide", "1:2"], "expected no --hide"),
        (["eval", "{}", "{data}x"], "no data"),
    ],
)
def test_mistakes_at_the_command_line(
    words: list[str], message: str, folder: Path, tmp_path: Path, capfd: Any
) -> None:
    (tmp_path / "a.txt").write_text("ACDE\n")
    said = [w.replace("{}", str(folder)).replace("{data}", str(tmp_path / "a.txt")) for w in words]
    assert main(said) == 2
    found = capfd.readouterr().err
    assert message in found
    assert "Traceback" not in found
