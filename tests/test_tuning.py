"""Fine-tuning a masked model of transformers: it learns, goes on bit for bit, and keeps layout and pads as they are."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_transformers import SIZES, TOKENS

import unmask
from unmask.command_line.app import main
from unmask.evaluation import shares
from unmask.models.transformers.tuning import Texts, fine_tuning
from unmask.recipes import Batch, Machine, Optimiser
from unmask.training import train

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore::unmask.models.transformers.checks.Unchecked",
)

CHAINS = ["ACDEFGHIKL" * n + tail for n in (1, 2) for tail in ("", "MN", "MNPQR", "MNPQRST")]
"""One cycle of letters: of a random place much follows from any other."""


def start(folder: Path, kind: str = "Bert", dropout: float = 0.1) -> Path:
    """The folder of a tiny random model."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drops = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
        more = {"token_dropout": True, "position_embedding_type": "rotary"} if kind == "Esm" else {}
        config = getattr(transformers, f"{kind}Config")(**SIZES, **drops, **more)
        getattr(transformers, f"{kind}ForMaskedLM")(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("".join(f"{name}\n" for name in TOKENS))
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return start(tmp_path_factory.mktemp("bert") / "tiny")


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    path = tmp_path / "chains.fasta"
    path.write_text("".join(f">{i}\n{chain}\n" for i, chain in enumerate(CHAINS)))
    return path


def short(run: unmask.recipes.Run, steps: int = 6, **changes: Any) -> unmask.recipes.Run:
    """A few steps, every one of them saved."""
    optimiser = Optimiser(steps=steps, learning_rate=3e-3, warmup=2, decay=0.5, ema=0.5)
    return replace(
        run, optimiser=replace(optimiser, **changes), batch_size=8, machine=Machine(save_minutes=0, keep=0)
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return unmask.load(folder).denoiser.network.state_dict()


# --- what is learnt ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Bert", "Esm"])
def test_what_is_hidden_gets_cheaper_and_the_folder_is_read_by_all(kind: str, tmp_path: Path) -> None:
    folder = start(tmp_path / kind.lower(), kind, dropout=0.0)
    model = unmask.load(folder)
    tokens, before = model.encode(CHAINS), model.hash
    run = replace(
        short(fine_tuning(model, tokens), steps=60, learning_rate=5e-3), machine=Machine(save_minutes=60)
    )
    tuned = unmask.load(train(run, tmp_path / "run", quiet=True))
    for share in (0.5, 0.9):
        old, counts = shares.by_share(model, tokens, share)
        new, _ = shares.by_share(tuned, tokens, share)
        assert float((old - new).sum() / counts.sum()) > 0.3  # nats per symbol; some 3 before
    assert model.hash == before  # the model that was given stays as it is
    assert tuned.hash != before

    place = tmp_path / "run" / "model"
    assert (place / "vocab.txt").read_bytes() == (folder / "vocab.txt").read_bytes()
    theirs, told = transformers.AutoModelForMaskedLM.from_pretrained(place, output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    hidden = tuned.encode(["ACD_FGH", "K__M"])
    with torch.no_grad():
        logits = theirs.eval()(input_ids=hidden, attention_mask=(hidden != 0).long()).logits[..., 5:25]
    found = tuned.denoiser(hidden)[..., 5:25]
    seen = hidden != 0
    torch.testing.assert_close(found[seen], logits.log_softmax(-1)[seen], rtol=0, atol=1e-5)


def test_the_objective_is_the_bound(bert: Path) -> None:
    """Without dropout the mean loss over batches is the bound of the data, nats per symbol."""
    model = unmask.load(bert)
    tokens = model.encode(CHAINS)
    run = replace(fine_tuning(model, tokens), batch_size=64)
    network = run.build(run.network).eval()
    with torch.no_grad():
        losses = torch.stack([run.objective(network, run.batch(run, step)) for step in range(25)])
    bound = model.nelbo(tokens, generator=torch.Generator().manual_seed(0), samples=64).value
    wanted = float(bound.mean()) / (sum(map(len, CHAINS)) / len(CHAINS))
    error = float(losses.std() / 5)
    assert abs(float(losses.mean()) - wanted) < 4 * error + 0.01


def test_special_tokens_and_pads_are_neither_hidden_nor_scored(bert: Path) -> None:
    model = unmask.load(bert)
    run = replace(fine_tuning(model, model.encode(CHAINS)), batch_size=4)
    network = run.build(run.network).eval()
    for step in range(8):
        batch = run.batch(run, step)
        special = model.visible(batch.tokens)
        assert batch.masked.any(1).all()
        assert not (batch.masked & special).any()
        assert ((batch.tokens == 1).sum(1) == 1).all()
        assert ((batch.tokens == 2).sum(1) == 1).all()
        padded = torch.nn.functional.pad(batch.tokens, (0, 3))
        more = torch.nn.functional.pad(batch.masked, (0, 3))
        wider = Batch(padded, more, batch.weight * (padded.shape[1] / batch.tokens.shape[1]))
        found = [gradients(run, network, b) for b in (batch, wider)]
        for ours, theirs in zip(*found):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def gradients(run: Any, network: torch.nn.Module, batch: Batch) -> list[torch.Tensor]:
    """The loss of a batch, and its gradients."""
    network.zero_grad()
    loss = run.objective(network, batch)
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in network.parameters() if p.grad is not None)]


def test_what_stands_at_visible_places_as_truth_does_not_matter(bert: Path) -> None:
    """The truth at pads and special tokens has no logit that is finite; neither loss nor gradient may feel that."""
    model = unmask.load(bert)
    run = replace(fine_tuning(model, model.encode(CHAINS)), batch_size=4)
    network = run.build(run.network).eval()
    batch = run.batch(run, 0)
    seen = batch.tokens.masked_fill(batch.masked, network.mask_id)
    logits = network(seen)
    loss = unmask.masking.objectives.masked_cross_entropy
    one = loss(logits, batch.tokens, batch.masked, batch.weight)
    other = loss(logits, torch.where(batch.masked, batch.tokens, 7), batch.masked, batch.weight)
    assert torch.equal(one, other)
    assert all(g.isfinite().all() for g in gradients(run, network, batch))


def test_dropout_is_that_of_the_folder_while_it_learns(bert: Path) -> None:
    model = unmask.load(bert)
    run = fine_tuning(model, model.encode(CHAINS))
    network, batch = run.build(run.network), run.batch(run, 0)
    with torch.random.fork_rng(), torch.no_grad():
        assert run.objective(network, batch) != run.objective(network, batch)
        assert run.objective(network.eval(), batch) == run.objective(network, batch)


def test_masks_are_uniform_over_how_many_are_hidden(bert: Path) -> None:
    model = unmask.load(bert)
    run = replace(fine_tuning(model, model.encode(["ACDEFGHI"])), batch_size=64)
    counts = torch.cat([run.batch(run, step).masked.sum(1) for step in range(64)])
    found = torch.bincount(counts, minlength=9)[1:].double()
    assert float(((found - 512) ** 2 / 512).sum()) < 24.3  # 99.9 % of chi-squared with 7 degrees of freedom


# --- going on ---------------------------------------------------------------------------------------------


def test_going_on_is_as_if_it_had_never_stopped(bert: Path, tmp_path: Path) -> None:
    """With dropout; tied weights are there twice in a checkpoint and once in the folder."""
    model = unmask.load(bert)
    run = short(fine_tuning(model, model.encode(CHAINS)))
    train(run, tmp_path / "whole", quiet=True)
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    for place in sorted((tmp_path / "part" / "checkpoints").iterdir())[3:]:
        shutil.rmtree(place)
    shutil.rmtree(tmp_path / "part" / "model")
    again = short(fine_tuning(unmask.load(bert), model.encode(CHAINS)))
    train(again, tmp_path / "part", quiet=True)
    ours, theirs = weights(tmp_path / "whole"), weights(tmp_path / "part")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert any(
        not torch.equal(ours[name], value) for name, value in model.denoiser.network.state_dict().items()
    )


def test_other_data_and_another_start_are_refused(bert: Path, tmp_path: Path) -> None:
    model = unmask.load(bert)
    train(short(fine_tuning(model, model.encode(CHAINS)), steps=2), tmp_path / "run", quiet=True)
    with pytest.raises(ValueError, match=r"data\.fingerprint"):
        train(short(fine_tuning(model, model.encode(CHAINS[:3]))), tmp_path / "run", quiet=True)
    tuned = replace(unmask.load(tmp_path / "run"), name=model.name)
    with pytest.raises(ValueError, match=r"network\.weights"):
        train(short(fine_tuning(tuned, model.encode(CHAINS))), tmp_path / "run", quiet=True)


# --- by command -------------------------------------------------------------------------------------------


def test_one_command_tunes_a_folder_and_tells_what_it_gained(
    bert: Path, fasta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--start", str(bert), "--data", str(fasta), "--out", str(tmp_path / "run")]
    words += ["--data.held-out", "0.4", "--batch-size", "4", "--optimiser.learning-rate", "0.003"]
    assert main([*words, "--optimiser.steps", "3", "--json", "--quiet"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["recipe"] == "fine_tuning"
    assert [row["hidden"] for row in report["held_out"]["shares"]] == [0.15, 0.5, 0.9, 1.0]
    assert 0 < report["held_out"]["sequences"] < len(CHAINS)
    assert (
        report["held_out"]["shares"][3]["before"]["value"]
        != report["held_out"]["shares"][3]["after"]["value"]
    )
    assert main([*words, "--optimiser.steps", "5", "--quiet"]) == 0
    assert "held-out sequences" in capsys.readouterr().out
    assert main(["eval", str(tmp_path / "run"), str(fasta), "--exact", "0", "--quiet"]) == 0


def test_held_out_sequences_are_never_trained_on(bert: Path, fasta: Path, tmp_path: Path) -> None:
    from unmask.command_line.commands.train.tuning import parted

    model = unmask.load(bert)
    fasta.write_text(fasta.read_text() * 3)
    ours, theirs = parted(model, Texts(str(fasta), 0.4))
    assert len(ours) + len(theirs) == 3 * len(CHAINS)
    assert not set(model.decode(ours)) & set(model.decode(theirs))
    others = tmp_path / "others.txt"
    others.write_text(f"{CHAINS[2]}\nWWWW\n")
    ours, theirs = parted(model, Texts(str(fasta), str(others)))
    assert model.decode(theirs) == [CHAINS[2], "WWWW"]
    assert sorted(model.decode(ours)) == sorted([c for c in CHAINS if c != CHAINS[2]] * 3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "expected a recipe's name, or --start FOLDER --data FILE"),
        (["--start", "BERT"], "expected --data FILE too"),
        (["--start", "text", "--data", "FASTA"], "is not one of transformers"),
        (["--start", "BERT", "--data", "nowhere.fasta"], "no data 'nowhere.fasta'"),
        (["--start", "BERT", "--data", "LONG"], "expected at most 32"),
        (["--start", "BERT", "--data", "FOREIGN"], "line 2"),
        (["--start", "BERT", "--data", "FASTA", "--network.length", "9"], "comes from the folder"),
        (["--start", "BERT", "--data", "FASTA", "--data.held-out", "1.5"], "expected a share"),
        (["--start", "BERT", "--data", "FASTA", "--data.held-out", "nowhere"], "no data 'nowhere'"),
        (["--start", "BERT", "--data", "FASTA", "--optimiser.stepps", "3"], "did you mean 'optimiser.steps'"),
        (["--start", "BERT", "--data", "FASTA", "--out", "BERT"], "holds a model"),
    ],
)
def test_errors_are_one_line(
    words: list[str],
    said: str,
    bert: Path,
    fasta: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {"LONG": "A" * 40, "FOREIGN": "ACD\nAC7D\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    named = {"BERT": str(bert), "FASTA": str(fasta)}
    assert main(["train", *(named.get(word, word) for word in words)]) == 2
    heard = capsys.readouterr()
    assert said in heard.err.strip().splitlines()[-1]
    assert heard.err.count("Traceback") == 0
    assert not heard.out


def test_rows_without_symbols_and_masks_are_refused(bert: Path) -> None:
    model = unmask.load(bert)
    with pytest.raises(ValueError, match="expected some to train on"):
        fine_tuning(model, model.encode([""]))
    with pytest.raises(ValueError, match="hold masks"):
        fine_tuning(model, model.encode(["AC_D"]))


# --- likelihoods with gradients -----------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["log_likelihood", "nelbo"])
def test_a_models_own_likelihoods_have_gradients_when_asked(verb: str, bert: Path) -> None:
    model = unmask.load(bert)
    tokens = model.encode(["ACDE", "MKV"])

    def value(**choices: Any) -> torch.Tensor:
        if verb == "log_likelihood":
            return model.log_likelihood(tokens, **choices)
        return model.nelbo(tokens, generator=torch.Generator().manual_seed(0), samples=2, **choices).value

    assert not value().requires_grad
    kept = value(differentiable=True)
    torch.testing.assert_close(kept.detach(), value(), rtol=0, atol=1e-5)
    parameter = model.denoiser.network.module.cls.predictions.transform.dense.weight
    (one,) = torch.autograd.grad(kept.sum(), parameter)
    (other,) = torch.autograd.grad(value(differentiable=True, recompute=True).sum(), parameter)
    assert one.abs().sum() > 0
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_bounds_that_are_no_mean_over_orders_have_no_gradients() -> None:
    model = unmask.load("digits")
    causal = replace(model, config=model.config | {"network": model.config["network"] | {"causal": True}})
    with pytest.raises(ValueError, match="differentiable=False"):
        causal.nelbo(torch.zeros(1, 4, dtype=torch.long), generator=torch.Generator(), differentiable=True)


# --- nats by share ------------------------------------------------------------------------------------------


def test_all_hidden_is_the_sum_of_first_factors_whatever_the_batch(bert: Path) -> None:
    model = unmask.load(bert)
    tokens = model.encode(CHAINS)
    nats, counts = shares.by_share(model, tokens, 1.0)
    assert counts.tolist() == [len(chain) for chain in CHAINS]
    law = model.denoiser(tokens.masked_fill(~model.visible(tokens), model.denoiser.mask_id)).double()
    each = -law.gather(2, tokens[..., None])[..., 0].masked_fill(model.visible(tokens), 0.0)
    torch.testing.assert_close(nats, each.sum(1), rtol=0, atol=1e-4)
    for share in (0.15, 0.5):
        ours, hidden = shares.by_share(model, tokens, share, seed=3)
        theirs, _ = shares.by_share(model, tokens, share, seed=3, batch_size=2)
        assert hidden.tolist() == [max(1, round(share * len(chain))) for chain in CHAINS]
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_the_ratio_and_its_error_are_those_of_a_mean_where_all_are_equally_long() -> None:
    nats = torch.tensor([3.0, 5.0, 10.0], dtype=torch.float64)
    mean, error = shares.ratio(nats, torch.full((3,), 2))
    assert mean == pytest.approx(3.0)
    assert error == pytest.approx(float(nats.std() / 3**0.5 / 2))
