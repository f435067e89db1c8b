"""Published weights: read without running anything, renamed to the last tensor, laid out so that loaders read them."""

from __future__ import annotations

import argparse
import io
import json
import zipfile
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import unmask
from unmask.base import checkpoints
from unmask.command_line.app import main
from unmask.data.sources import antibodies as chains
from unmask.data.sources import fetch, packages
from unmask.data.sources import receptors as loops
from unmask.data.sources.models import antibodies, catalogue, folders, layouts, pickles, receptors
from unmask.denoisers import from_logits
from unmask.engine.likelihood import log_likelihood
from unmask.engine.sampling import sample
from unmask.models import loading
from unmask.networks import sceptr
from unmask.orders import presets

BERT = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "vocab_size": 25,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 16,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "initializer_range": 0.02,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}
ARGS = {
    "task": "masked_lm",
    "arch": "roberta_small",
    "activation_fn": "gelu",
    "encoder_layers": 2,
    "encoder_embed_dim": 8,
    "encoder_ffn_embed_dim": 12,
    "encoder_attention_heads": 2,
    "max_positions": 14,
    "dropout": 0.1,
    "attention_dropout": 0.1,
}
SCEPTR = {
    "model": {
        "name": "tiny",
        "token_embedder": {"class": "CdrSimpleEmbedder"},
        "self_attention_stack": {"initargs": {"num_layers": 2, "d_model": 8, "nhead": 2}},
    },
    "data": {"tokeniser": {"class": "CdrTokeniser"}},
}


def numbers(shapes):
    """Tensors that are all different and no two alike, without a random state."""
    found, at = {}, 0
    for name in sorted(shapes):
        count = int(torch.tensor(shapes[name]).prod())
        wild = torch.sin(torch.arange(at, at + count, dtype=torch.float64) * 12.9898) * 43758.5453
        found[name], at = (2 * (wild % 1) - 1).float().view(shapes[name]), at + count
    return found


def saved(record):
    file = io.BytesIO()
    torch.save(record, file)
    return file.getvalue()


@pytest.fixture
def bert():
    tensors = numbers(layouts.bert(BERT))
    tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"].clone()
    tensors["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"].clone()
    tensors["bert.embeddings.position_ids"] = torch.arange(16)[None]
    return tensors | {"bert.pooler.dense.bias": torch.zeros(8), "cls.species.weight": torch.zeros(6, 8)}


@pytest.fixture
def fairseq():
    shapes = layouts.roberta(antibodies.roberta_config(ARGS, "x"))
    tensors = numbers({v: shapes[k] for k, v in antibodies.roberta_names(2).items()})
    tensors["decoder.lm_head.weight"] = tensors["decoder.sentence_encoder.embed_tokens.weight"].clone()
    return tensors


class Calls:
    """A pickle of this runs a line of code where it is read without care."""

    def __reduce__(self):
        return exec, ("raise SystemError('it was run')",)


def test_a_pickle_that_names_anything_else_is_refused_in_one_line_and_not_run():
    for record in ({"a": Calls()}, {"args": argparse.Namespace(a=1)}):
        with pytest.raises(ValueError, match=r"x is refused: .*; expected tensors only") as caught:
            pickles.read(saved(record), "x")
        assert "\n" not in str(caught.value)
    found = pickles.read(saved({"args": argparse.Namespace(a=1)}), "x", (argparse.Namespace,))
    assert vars(found["args"]) == {"a": 1}
    with pytest.raises(ValueError, match=r"expected tensors and argparse\.Namespace only"):
        pickles.read(saved({"a": Calls()}), "x", (argparse.Namespace,))
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "x is"),
        (b"PK\x03\x04 cut short", "x is damaged"),
        (saved([torch.zeros(1)]), "x holds a list"),
    ],
)
def test_damaged_weights_are_one_line(data, problem):
    with pytest.raises(ValueError, match=problem) as caught:
        pickles.read(data, "x")
    assert "\n" not in str(caught.value)


def test_antiberty_keeps_every_tensor_of_the_masked_model_and_nothing_else(bert):
    found = antibodies.bert_tensors(saved(bert), BERT)
    assert set(found) == set(layouts.bert(BERT))
    assert all(torch.equal(found[name], bert[name]) for name in found)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"cls.predictions.bias": None, "cls.predictions.decoder.bias": None}, "lacks 'cls.predictions.bias'"),
        ({"bert.encoder.layer.1.output.dense.bias": None}, r"lacks 'bert\.encoder\.layer\.1\.output"),
        ({"bert.encoder.layer.2.output.dense.bias": torch.zeros(8)}, "unexpected tensor 'bert.encoder.layer.2"),
        ({"cls.speciesx": torch.zeros(8)}, "unexpected tensor 'cls.speciesx'"),
        ({"cls.predictions.bias": torch.zeros(25)}, "'cls.predictions.decoder.bias' is not 'cls.predictions.bias'"),
        ({"cls.predictions.decoder.weight": torch.zeros(25, 8)}, "expected a model that ties them"),
        ({"bert.embeddings.LayerNorm.bias": torch.zeros(9)}, r"has shape \(9,\), expected \(8,\)"),
        ({"bert.embeddings.LayerNorm.bias": torch.full((8,), torch.nan)}, "other than finite"),
        ({"bert.embeddings.LayerNorm.bias": torch.zeros(8).long()}, "other than finite"),
        ({"bert.embeddings.LayerNorm.bias": "text"}, "is no named tensor"),
    ],
)  # fmt: skip
def test_another_checkpoint_is_refused_by_the_name_of_a_tensor(bert, change, problem):
    changed = {k: v for k, v in (bert | change).items() if v is not None}
    with pytest.raises(ValueError, match=problem):
        antibodies.bert_tensors(saved(changed), BERT)


def test_another_configuration_is_refused():
    assert antibodies.bert_config(BERT)["mask_token_id"] == 4
    with pytest.raises(ValueError, match="hidden_act is 'relu'; expected 'gelu'"):
        antibodies.bert_config(BERT | {"hidden_act": "relu"})
    with pytest.raises(ValueError, match="arch is 'roberta_large'; expected 'roberta_small'"):
        antibodies.roberta_config(ARGS | {"arch": "roberta_large"}, "x")
    with pytest.raises(ValueError, match=r"lists A C; expected \[PAD\]"):
        antibodies.check_symbols(["A", "C"], antibodies.BERT.names, "vocab.txt")


def test_names_of_fairseq_are_mapped_one_to_one_and_token_types_are_zero(fairseq):
    config, found = antibodies.roberta(saved({"args": argparse.Namespace(**ARGS), "model": fairseq}))
    names = antibodies.roberta_names(2)
    types = "roberta.embeddings.token_type_embeddings.weight"
    assert set(found) == set(layouts.roberta(config)) == {types, *names}
    assert len(set(names.values())) == len(names)
    assert set(fairseq) - set(names.values()) == {"decoder.lm_head.weight"}
    assert not found[types].any()
    assert config["mask_token_id"] == 24
    assert config["max_position_embeddings"] == 16
    with pytest.raises(ValueError, match="expected fairseq's args and model"):
        antibodies.roberta(saved({"model": fairseq}))


def published_roberta(tensors, ids, heads=2):
    """fairseq's forward pass, written from its description: norms behind, positions from padding + 1."""
    stem = "decoder.sentence_encoder"

    def linear(name, x):
        return F.linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    def norm(name, x):
        return F.layer_norm(x, x.shape[-1:], tensors[f"{name}.weight"], tensors[f"{name}.bias"], 1e-5)

    rows = torch.arange(2, 2 + len(ids))
    x = tensors[f"{stem}.embed_tokens.weight"][ids] + tensors[f"{stem}.embed_positions.weight"][rows]
    x = norm(f"{stem}.emb_layer_norm", x)
    for n in range(2):
        at = f"{stem}.layers.{n}"
        q, k, v = (
            linear(f"{at}.self_attn.{c}_proj", x).unflatten(1, (heads, -1)).transpose(0, 1) for c in "qkv"
        )
        weights = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1)
        x = norm(
            f"{at}.self_attn_layer_norm",
            x + linear(f"{at}.self_attn.out_proj", (weights @ v).transpose(0, 1).flatten(1)),
        )
        x = norm(f"{at}.final_layer_norm", x + linear(f"{at}.fc2", F.gelu(linear(f"{at}.fc1", x))))
    x = norm("decoder.lm_head.layer_norm", F.gelu(linear("decoder.lm_head.dense", x)))
    return F.linear(x, tensors["decoder.lm_head.weight"], tensors["decoder.lm_head.bias"])


@pytest.mark.global_random
def test_transformers_reads_the_folder_and_computes_what_fairseq_did(tmp_path, fairseq):
    transformers = pytest.importorskip("transformers")
    config, tensors = antibodies.roberta(saved({"args": argparse.Namespace(**ARGS), "model": fairseq}))
    content = folders.Content(config, tensors, antibodies.FAIRSEQ, ["ACD"], "x", 14)
    folders.write(tmp_path / "m", content)
    network, info = transformers.RobertaForMaskedLM.from_pretrained(tmp_path / "m", output_loading_info=True)
    assert not any(info.values()), info
    ids = torch.tensor([0, 4, 24, 7, 23, 2])
    with torch.no_grad():
        found = network.eval()(input_ids=ids[None]).logits[0]
    torch.testing.assert_close(found, published_roberta(fairseq, ids), rtol=1e-4, atol=1e-4)


def test_the_tokenizer_gives_the_ids_of_vocab_txt(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    for symbols in (antibodies.BERT, antibodies.FAIRSEQ):
        path = tmp_path / "tokenizer.json"
        path.write_text(json.dumps(folders.tokenizer_record(symbols)))
        read = tokenizers.Tokenizer.from_file(str(path))
        mask = symbols.roles["mask"]
        wanted = [symbols.id_of("cls"), *map(symbols.names.index, ("A", mask, "Y")), symbols.id_of("sep")]
        assert read.encode(f"A{mask}Y").ids == wanted
        assert read.decode(wanted) == "AY"
        assert read.encode("B").ids[1] == symbols.id_of("unk")


@pytest.fixture
def run(capsys):
    def call(*arguments):
        capsys.readouterr()
        code = main([str(a) for a in arguments])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def cached(tmp_path, monkeypatch):
    monkeypatch.setenv("UNMASK_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "packages").mkdir(parents=True)
    return tmp_path / "cache"


def test_another_wheel_than_the_one_known_is_refused_and_leaves_no_model(cached, monkeypatch):
    def foreign(_, folder: Path) -> None:
        with zipfile.ZipFile(folder / antibodies.ANTIBERTY.file, "w") as archive:
            archive.writestr("antiberty/trained_models/vocab.txt", "[PAD]")

    monkeypatch.setattr(packages, "_run", foreign)
    with pytest.raises(ValueError, match=f"SHA-256 .*; expected {antibodies.ANTIBERTY.sha256}"):
        catalogue.fetch_model("antiberty")
    assert not (cached / "antiberty").exists()
    with pytest.raises(ValueError, match="model 'bert': expected one of antiberty, sapiens_vh"):
        catalogue.fetch_model("bert")


def test_a_model_without_its_weights_is_made_again(cached, monkeypatch, run):
    tensors = numbers({"a": (2,)})
    content = folders.Content({"model_type": "x"}, tensors, receptors.SYMBOLS, ["A"], "MIT")
    model = catalogue.Published("a model", "MIT", lambda: content)
    monkeypatch.setitem(catalogue.MODELS, "antiberty", model)
    (cached / "antiberty").mkdir()
    (cached / "antiberty" / "config.json").write_text("{}")
    assert not catalogue.is_there("antiberty")
    code, said, _ = run("data", "fetch", "antiberty")
    assert code == 0
    assert "antiberty (MIT): " in said
    folder = catalogue.fetch_model("antiberty")
    assert torch.equal(checkpoints.read_tensors(folder / "model.safetensors")["a"], tensors["a"])
    assert (folder / "vocab.txt").read_text().split()[3:5] == ["A", "C"]
    monkeypatch.setitem(catalogue.MODELS, "antiberty", catalogue.Published("a model", "MIT", pytest.fail))
    assert catalogue.fetch_model("antiberty") == folder


def test_a_fetched_model_is_loaded_by_its_name_and_a_folder_of_that_name_wins(cached, monkeypatch, tmp_path):
    with pytest.raises(ValueError, match=r"model 'antiberty' is not there yet; .*data fetch antiberty"):
        loading.load("antiberty")
    for path in (cached / "antiberty" / "config.json", cached / "antiberty" / "model.safetensors"):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert loading._find("antiberty") == cached / "antiberty"
    monkeypatch.chdir(tmp_path)
    Path("antiberty").mkdir()
    Path("antiberty/config.json").touch()
    assert loading._find("antiberty") == Path("antiberty")
    with pytest.raises(ValueError, match=r"did you mean 'antiberty'.*or fetch a model of"):
        loading.load("antibertie")


def test_models_are_listed_and_unknown_names_say_both_lists(run, cached):
    code, said, _ = run("data", "fetch", "--list", "--json")
    assert code == 0
    assert [m["name"] for m in json.loads(said)["models"]] == list(catalogue.MODELS)
    code, _, problem = run("data", "fetch", "imagenet")
    assert code == 2
    assert "or a model: antiberty" in problem


# --- SCEPTR ---------------------------------------------------------------------------------------


def tiny_sceptr(change=None):
    config = receptors.configuration(SCEPTR)
    names = receptors.published_names(2)
    tensors = numbers({names[k]: v for k, v in receptors.tensor_shapes(config).items()})
    for name, size in (("token", 23), ("compartment", 7)):
        table = torch.cat([torch.zeros(1, size - 1), torch.eye(size - 1)])
        tensors[f"_token_embedder._{name}_embedding._token_embeddings"] = table
    return config, {k: v for k, v in (tensors | (change or {})).items() if v is not None}


@pytest.fixture
def network(tmp_path):
    config, tensors = tiny_sceptr()
    content = folders.Content(
        config, receptors.converted(saved(tensors), config, "x"), receptors.SYMBOLS, [], ""
    )
    folders.write(tmp_path / "sceptr", content)
    return sceptr.load(tmp_path / "sceptr")


GOLDEN = {
    "AC_|W|CAY_F|GH||C_SSF": """
        -0.56166 -2.89487 1.32812 -0.57777 -2.81716 1.30205 -0.58232 -2.77512 1.29609 -0.58413
        -2.78473 1.34162 -0.56657 -2.81742 1.29692 -0.56829 -2.85442 1.28299 -0.56834 -2.87172
        1.30523 -0.58958 -2.81626 1.26891 -0.59308 -2.74708 1.287 -0.59683 -2.76664 1.28983 -0.58613
        -2.82783 1.28 -0.55012 -2.90827 1.323 -0.57765 -2.78835 1.2829 -0.58644 -2.7886 1.34775
        -0.57195 -2.82095 1.36975 -0.57623 -2.81466 1.36334 -0.59228 -2.79345 1.34154
    """,
    "|||G|_A|CAF": """
        -0.60065 -2.82677 1.32899 -0.59536 -2.78616 1.29579 -0.59267 -2.79437 1.30194 -0.59802
        -2.81692 1.31175 -0.58718 -2.78397 1.30492 -0.58695 -2.81016 1.32326 -0.59354 -2.79839
        1.32715
    """,
}
"""Every seventh residue's logit, at every position but bars, by the published code (libtcrlm 1.0.2); weights: `numbers`."""


def test_sceptr_gives_the_logits_of_the_published_code_alone_and_padded(network):
    texts = list(GOLDEN)
    with torch.no_grad():
        together = network(sceptr.encode(texts))
        for row, (text, wanted) in zip(together, GOLDEN.items()):
            tokens = sceptr.encode([text])
            alone = network(tokens)[0]
            torch.testing.assert_close(row[: len(alone)], alone, rtol=1e-5, atol=1e-6)
            found = alone[tokens[0] != sceptr.BAR][:, sceptr.FIRST : sceptr.BAR][:, ::7].flatten()
            torch.testing.assert_close(
                found, torch.tensor([float(x) for x in wanted.split()]), rtol=0, atol=2e-5
            )
    assert (together[..., [sceptr.PAD, sceptr.MASK, sceptr.CLS, sceptr.BAR]] == -torch.inf).all()


def test_sceptr_samples_what_its_likelihood_says(network):
    denoiser = from_logits(network, sceptr.MASK, sceptr.VOCAB)
    tokens = sceptr.encode(["AC_|W|CAY_F|GH||C_SSF", "|||G|_A|C__"])
    drawn = sample(denoiser, tokens, presets.confidence(2), generator=torch.Generator().manual_seed(0))
    assert all(set(text) <= set(loops.ALPHABET) for text in sceptr.decode(drawn.tokens))
    visible = tokens != sceptr.MASK
    again = log_likelihood(
        denoiser, drawn.tokens, presets.confidence(2), visible=visible, order_ids=torch.arange(2)
    )
    torch.testing.assert_close(again, drawn.log_prob)


def test_a_folder_of_sceptr_is_a_model(network, tmp_path, run):
    model = unmask.load(tmp_path / "sceptr")
    texts = ["ACD|W|CAYYF|GH||CASSF", "|||G|GA|CA"]
    tokens = model.encode(texts)
    assert model.symbols == tuple(sceptr.RESIDUES)
    assert model.decode(tokens) == texts
    bars = (tokens == sceptr.BAR) | (tokens == sceptr.PAD) | (tokens == sceptr.CLS)
    torch.testing.assert_close(model.visible(tokens), bars)
    alone = [model.log_likelihood(model.encode(text)) for text in texts]
    torch.testing.assert_close(model.log_likelihood(tokens), torch.cat(alone), rtol=1e-5, atol=1e-5)
    drawn = model.infill(tokens, [(0, 3)], order="margin", calls=2, seed=1)
    assert all(a.count("|") == b.count("|") for a, b in zip(model.decode(drawn.tokens), texts))
    (tmp_path / "r.txt").write_text("\n".join(texts))
    code, said, _ = run("eval", tmp_path / "sceptr", tmp_path / "r.txt", "--exact", "2", "--json")
    assert code == 0
    assert json.loads(said)["log_likelihood"]["nats"]["value"] == pytest.approx(
        -float(torch.cat(alone).mean()), rel=1e-4
    )


def test_sceptr_refuses_what_it_does_not_know(network, tmp_path):
    with pytest.raises(ValueError, match="a receptor with 1 bars; expected 5 between CDR1A"):
        network(sceptr.encode(["A|A"]))
    with pytest.raises(ValueError, match="character 'B'"):
        sceptr.encode(["B"])
    table = "_token_embedder._token_embedding._token_embeddings"
    for change, problem in (
        ({table: torch.eye(23)[:, :22]}, "table of tokens is not one-hot"),
        ({table: None}, "table of tokens is not one-hot"),
        ({receptors.published_names(2)["layers.1.up.bias"]: None}, "lacks '_self_attention_stack"),
        ({"extra": torch.zeros(1)}, "unexpected tensor 'extra'"),
    ):
        config, tensors = tiny_sceptr(change)
        with pytest.raises(ValueError, match=problem):
            receptors.converted(saved(tensors), config, "x")
    other = json.loads(json.dumps(SCEPTR).replace("CdrSimpleEmbedder", "CdrBlosumEmbedder"))
    with pytest.raises(ValueError, match="tiny embeds by CdrBlosumEmbedder"):
        receptors.configuration(other)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="model of type 'bert'; expected 'sceptr'"):
        sceptr.load(tmp_path)
    bad = receptors.configuration(SCEPTR) | {"num_attention_heads": 3}
    (tmp_path / "config.json").write_text(json.dumps(bad))
    with pytest.raises(ValueError, match=r"sizes \[8, 2, 3, 32\]"):
        sceptr.load(tmp_path)


# --- the data -------------------------------------------------------------------------------------


def read_of(v_gene: str, cdr3: str, after: str) -> tuple[str, str]:
    """A read aligned by IMGT's numbering and its junction: one residue a place, a dot for a gap, CDR3 between C and W."""
    codon = dict(
        zip(chains.CODE, (a + b + c for a in chains.BASES for b in chains.BASES for c in chains.BASES))
    )
    spell = {**codon, ".": "..."}
    junction = f"C{cdr3}{after[0]}"
    aligned = "".join(spell[x] for x in v_gene + cdr3 + after)
    return aligned, "".join(codon[x] for x in junction)


GERMLINE = "Q" * 26 + "GFTF....SDYY" + "M" * 17 + "ISSS..GSTI" + "Y" * 38 + "C"


def test_a_codon_stands_for_its_residue():
    table = {"ATG": "M", "tgg": "W", "TAA": "*", "TGA": "*", "AAA": "K", "GGC": "G", "GCN": "X", "A.G": "X"}
    assert {codon: chains.residue(codon) for codon in table} == table


def test_regions_are_told_by_the_places_of_codons():
    aligned, junction = read_of(GERMLINE, "ARDW", "WGQG")
    found = chains.chain(aligned + "TC", junction, "7")
    assert found.sequence == GERMLINE.replace(".", "") + "ARDWWGQG"
    texts = {name: found.sequence[a:b] for name, (a, b) in found.regions.items()}
    assert texts == {"cdr1": "GFTFSDYY", "cdr2": "ISSSGSTI", "cdr3": "ARDW"}
    assert len(set(found.columns)) == len(found.columns) == len(found.sequence)


@pytest.mark.parametrize(
    "damage",
    [
        lambda aligned, junction: (aligned.replace("ATG", "ANG", 1), junction),
        lambda aligned, junction: (aligned.replace("ATG", "TAG", 1), junction),
        lambda aligned, junction: (aligned, junction[:-1]),
        lambda aligned, junction: (aligned, junction[:6]),
        lambda aligned, junction: (aligned, junction.replace("GAC", "GAA")),
        lambda aligned, junction: ("..." * 65 + aligned[195:], junction),
        lambda aligned, junction: (aligned[1:], junction),
    ],
)  # fmt: skip
def test_reads_that_are_not_clean_are_left_out(damage):
    aligned, junction = read_of(GERMLINE, "ARDW", "WGQG")
    assert chains.chain(aligned, junction, "7") is not None
    assert chains.chain(*damage(aligned, junction), "7") is None


def test_identity_is_that_of_columns_and_one_chain_of_a_clone_is_kept():
    a, b, c = (
        chains.chain(*read_of(GERMLINE, loop, "WGQG"), clone)
        for loop, clone in (("ARDW", "1"), ("ARGGGGDW", "2"), ("ARDV", "1"))
    )
    assert chains.identity(a, a) == 1
    assert chains.identity(a, b) == chains.identity(b, a) == 1
    assert chains.identity(a, c) == 1 - 1 / len(a.sequence)
    assert chains.distinct([a, b, c], 1.0) == [a, b]
    assert chains.distinct([a, b, c], 0.99) == [a]


def test_no_clone_is_in_two_parts(cached, monkeypatch):
    texts = [f"{a}{b}C" for a in chains.RESIDUES for b in "AD"]
    made = [chains.Chain(text, text[0], {}, ()) for text in texts]
    monkeypatch.setattr(chains, "chains", lambda: made)
    monkeypatch.setattr(packages, "bring", lambda _: cached / "packages")
    monkeypatch.setattr(fetch.writing, "source", lambda _: {"file": "x"})
    folder = fetch.fetch("antibodies", quiet=True)
    found = {p: texts_of(folder / p) for p in ("train", "valid", "test")}
    assert sorted(text for part in found.values() for text in part) == sorted(texts)
    clones = [{text[0] for text in part} for part in found.values()]
    assert all(clones)
    assert sum(map(len, clones)) == len(set.union(*clones))


def texts_of(folder):
    from unmask.data import tokens

    part = tokens.load(folder)
    return ["".join(chains.RESIDUES[i] for i in part.item(n)) for n in range(part.items)]


def test_loops_are_those_of_the_genes_and_unknown_ones_leave_a_receptor_out():
    genes = {"A*01": {"CDR1-IMGT": "SV", "CDR2-IMGT": "VT"}, "B*01": {"CDR1-IMGT": "LN", "CDR2-IMGT": "SQ"}}
    row = {"v.alpha": "A*01", "cdr3.alpha": "CAF", "v.beta": "B*01", "cdr3.beta": "CSF"}
    assert loops.receptor(row, genes) == "SV|VT|CAF|LN|SQ|CSF"
    for change in ({"v.beta": "B*09"}, {"cdr3.alpha": ""}, {"cdr3.beta": "CxF"}):
        assert loops.receptor(row | change, genes) is None
