"""lm-evaluation-harness: numbers are likelihoods of their texts, say what they are, and depend on nothing else."""

from __future__ import annotations

import itertools
import math
import pickle
from types import SimpleNamespace

import pytest
import torch

from unmask.data.vocabularies import Characters, Listed, to_record
from unmask.denoisers import from_logits
from unmask.evaluation.harness import Nats, Scorer, UnmaskLM
from unmask.models import Model
from unmask.models.frames import Frame
from unmask.networks import Transformer

LETTERS = "ab "
FRAME = Frame((3,), (4,), 4, (0, 1, 2), tuple(LETTERS))
"""Letters 0 to 2, begin 3, end and pad 4, mask 5."""


def network(size, length):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = Transformer(size, length, 16, 1, 2, rotary=True)
        for weight in net.parameters():
            weight.data += 0.3 * torch.randn_like(weight)
    return net.double().eval()


def opened(length=6):
    """A model of streams: what follows a text stays open."""
    net, vocabulary = network(3, length), Characters(LETTERS)
    config = {"name": "open", "network": net.config, "vocabulary": to_record(vocabulary), "order": "random"}
    return Model("open", from_logits(net, 3, 3), lambda _: None, lambda _: [], config, vocabulary)


class Never(torch.nn.Module):
    """The network with special tokens that are never drawn, and rows of any length: it pads them."""

    def __init__(self):
        super().__init__()
        self.net = network(5, 8)

    def forward(self, tokens, rows=None):
        logits = self.net(torch.nn.functional.pad(tokens, (0, 8 - tokens.shape[1]), value=4), rows)
        logits = logits[:, : tokens.shape[1]] if rows is None else logits
        logits[..., 3:] = -torch.inf
        return logits


def framed():
    """A model with special tokens around a text, and a length of 6 symbols."""
    vocabulary = Listed((*LETTERS, "<cls>", "<eos>"))
    config = {"name": "framed", "network": {"length": 6, "vocab_size": 5}, "order": "left-to-right"}
    return Model(
        "framed", from_logits(Never(), 5, 5), lambda _: None, lambda _: [], config, vocabulary, FRAME
    )


MODELS = {"open": opened(), "framed": framed()}
ORDERS = ("left-to-right", "random", "confidence", "bisection")


def pairs_of(context, count):
    return [(context, "".join(letters)) for letters in itertools.product(LETTERS, repeat=count)]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("plan", [1, 2])
def test_continuations_of_one_length_have_probability_one(name, order, plan):
    found = Scorer(MODELS[name], order, plan).given_contexts(pairs_of("ab", 3))
    assert sum(math.exp(value) for value, _ in found) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_left_to_right_is_the_product_of_its_parts_where_nothing_tells_the_length(name):
    scorer = Scorer(MODELS[name])
    whole, _ = scorer.given_contexts([("a", "bab")])[0]
    parts = [scorer.given_contexts([("a" + "bab"[:i], "bab"[i])])[0][0] for i in range(3)]
    same = whole == pytest.approx(sum(parts), abs=1e-9)
    assert same == (name == "open")  # a frame tells how long the text is


def test_framed_numbers_are_those_of_the_model():
    model = MODELS["framed"]
    tokens = FRAME.rows([[0, 1, 0, 2]])
    visible = torch.tensor([[True, True, False, False, False, True]])
    for order in ("left-to-right", "confidence"):
        scorer = Scorer(model, order)
        told = model.log_likelihood(tokens, scorer_order(scorer), visible=visible)
        assert scorer.given_contexts([("a", "ba ")])[0][0] == pytest.approx(told.item(), abs=1e-9)
    assert Scorer(model).rolling(["aba "])[0] == pytest.approx(model.log_likelihood(tokens).item(), abs=1e-9)


def scorer_order(scorer):
    from unmask.models import verbs

    return verbs.ordered(scorer.model, scorer.order, None, scorer.plan, scorer.seed)


@pytest.mark.parametrize("name", MODELS)
def test_numbers_do_not_depend_on_the_batch(name):
    pairs = [("a", "b"), ("", "ab a"), ("ab", " "), ("b a", "ba"), ("", "")]
    for samples in (0, 3) if name == "framed" else (0,):
        alone = [Scorer(MODELS[name], samples=samples).given_contexts([pair])[0] for pair in pairs]
        together = Scorer(MODELS[name], samples=samples, batch_size=2).given_contexts(pairs)
        assert [v for v, _ in together] == pytest.approx([v for v, _ in alone], abs=1e-9)
        assert [f for _, f in together] == [f for _, f in alone]
    assert alone[-1][0] == 0


def test_a_bound_is_the_mean_over_orders_and_says_so():
    model = MODELS["framed"]
    value, likeliest = Scorer(model, samples=4000).given_contexts([("ab", "a ")])[0]
    tokens, at = FRAME.rows([[0, 1, 0, 2]]), {"left": (3, 4), "right": (4, 3)}
    mean = 0.0
    for order in at.values():
        seen = tokens.clone()
        seen[0, [3, 4]] = 5
        for place in order:
            mean += model.denoiser(seen)[0, place, tokens[0, place]].item() / 2
            seen[0, place] = tokens[0, place]
    assert value == pytest.approx(mean, abs=0.05)
    assert (value.meaning, likeliest) == ("bound, 4000 samples", False)


def test_every_number_says_what_it_is():
    assert Scorer(MODELS["open"]).given_contexts([("a", "b")])[0][0].meaning == "exact, order left-to-right"
    many = Scorer(MODELS["open"], "confidence", 2)
    assert many.meaning == "exact, order confidence, 2 positions a call"
    assert many.rolling(["ab ab ab"])[0].meaning == many.meaning + ", in 2 windows"
    assert many.given_contexts([("ab ab ab", "a")])[0][0].meaning == many.meaning + ", context cut"
    told = pickle.loads(pickle.dumps(Nats(-1.5, "exact")))
    assert (told, told.meaning) == (-1.5, "exact")


@pytest.mark.parametrize("name", MODELS)
def test_long_texts_are_scored_in_windows_each_given_half_a_row(name):
    scorer, text = Scorer(MODELS[name]), "ab aab ba bb"
    windows = [("", text[:6]), (text[3:6], text[6:9]), (text[6:9], text[9:])]
    parts = [value for value, _ in scorer.given_contexts(windows)]
    assert scorer.rolling([text])[0] == pytest.approx(sum(parts), abs=1e-9)
    cut, _ = scorer.given_contexts([("b" + text[:8], text[8:10])])[0]
    assert cut == pytest.approx(scorer.given_contexts([(text[4:8], text[8:10])])[0][0], abs=1e-9)


def test_spaces_between_belong_to_the_continuation():
    one, other = (Scorer(MODELS["open"]).given_contexts([pair])[0][0] for pair in (("a ", "b"), ("a", " b")))
    assert one == other


@pytest.mark.parametrize("name", MODELS)
def test_what_is_written_is_the_likeliest_and_is_known_as_such(name):
    scorer = Scorer(MODELS[name], block=3)
    text = scorer.continued("ab", most=3)
    found = dict(zip((p[1] for p in pairs_of("ab", 3)), scorer.given_contexts(pairs_of("ab", 3))))
    assert [t for t, (_, likeliest) in found.items() if likeliest] == [text]


def test_writing_stops_where_it_is_told_and_is_repeated_by_its_seed():
    scorer = Scorer(MODELS["open"], block=2)
    for most in (1, 5, 20):
        assert len(scorer.continued("ab", most=most)) == most
    drawn = scorer.continued("ab", most=30, temperature=1.0)
    assert drawn == scorer.continued("ab", most=30, temperature=1.0)
    assert drawn != Scorer(MODELS["open"], block=2, seed=1).continued("ab", most=30, temperature=1.0)
    for stop in (drawn[4], drawn[5:8]):
        cut = scorer.continued("ab", ["zz", stop], 30, 1.0)
        assert drawn.startswith(cut)
        assert stop not in cut
        assert drawn[len(cut) :].startswith(stop)


def test_requests_of_the_harness_are_answered():
    lm = UnmaskLM(MODELS["open"], batch_size="auto")
    asked = [SimpleNamespace(args=("a", "b")), SimpleNamespace(args=("ab", "a"))]
    values = lm.loglikelihood(asked)
    assert [v for v, _ in values] == [
        v for v, _ in Scorer(MODELS["open"]).given_contexts([("a", "b"), ("ab", "a")])
    ]
    lm.loglikelihood_rolling([SimpleNamespace(args=("ab",))])
    assert lm.meanings == {"exact, order left-to-right": 3}
    settings = {"until": " ", "max_gen_toks": 7}
    (text,) = lm.generate_until([SimpleNamespace(args=("ab", settings))])
    assert text == lm.scorer.continued("ab", [" "], 7)


def test_what_cannot_be_scored_is_said():
    with pytest.raises(ValueError, match="leaves what follows a text open"):
        Scorer(MODELS["open"], samples=2)
    with pytest.raises(ValueError, match="order 'sideways': expected one of"):
        Scorer(MODELS["open"], "sideways")
    with pytest.raises(ValueError, match="character 'z' is not in the vocabulary"):
        Scorer(MODELS["open"]).rolling(["az"])


def test_the_harness_knows_the_model_type(tmp_path):
    registry = pytest.importorskip("lm_eval.api.registry")
    assert registry.get_model("unmask") is UnmaskLM
