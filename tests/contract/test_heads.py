"""Networks without ``rows``: the head at the asked rows gives the numbers of the full run, or the network runs in full."""

from __future__ import annotations

import copy
import functools
import threading
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import unmask
from unmask.denoisers.heads import SHORT

MASK, VOCAB, LENGTH, BATCH, WIDTH = 11, 11, 20, 3, 8

pytestmark = pytest.mark.global_random


def tokens_of(batch: int = BATCH, length: int = LENGTH) -> Tensor:
    return torch.randint(VOCAB + 1, (batch, length), generator=torch.Generator().manual_seed(3))


TOKENS = tokens_of()
ROWS = {
    "one": torch.tensor([[4], [0], [19]]),
    "all": torch.arange(LENGTH).expand(BATCH, -1),
    "all, mixed": torch.stack([torch.arange(LENGTH).roll(n) for n in (3, 7, 11)]),
    "repeated": torch.tensor([[4, 4, 4], [0, 1, 0], [19, 2, 19]]),
    "more than all": torch.arange(LENGTH).repeat(2).expand(BATCH, -1),
    "none": torch.zeros(BATCH, 0, dtype=torch.int64),
}


class Transform(nn.Module):
    """A prediction head as Bert's: dense, activation, norm, decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.norm = nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH)
        self.decoder = nn.Linear(WIDTH, VOCAB)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.norm(torch.nn.functional.gelu(self.dense(x))))


class Net(nn.Module):
    """A body that mixes positions, and a head that counts the positions that it sees."""

    def __init__(self, head: Callable[[], nn.Module] = lambda: nn.Linear(WIDTH, VOCAB)) -> None:
        super().__init__()
        self.embedding, self.place = nn.Embedding(VOCAB + 1, WIDTH), nn.Embedding(64, WIDTH)
        self.mix, self.head = nn.Linear(WIDTH, WIDTH), head()
        generator = torch.Generator().manual_seed(0)
        for p in self.parameters():
            p.data = 0.5 * torch.randn(p.shape, generator=generator)
        self.seen: list[int] = []
        self.last.register_forward_hook(lambda m, args, out: self.seen.append(out.shape[:-1].numel()))

    @property
    def last(self) -> nn.Module:
        return getattr(self.head, "decoder", self.head)

    def hidden(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) + self.place(torch.arange(tokens.shape[1]))
        return x + torch.tanh(self.mix(x.roll(1, 1) + x.mean(1, keepdim=True)))

    def forward(self, input_ids: Tensor) -> Any:
        return self.head(self.hidden(input_ids))

    def get_output_embeddings(self) -> nn.Module:
        return self.last


class Tied(Net):
    def __init__(self) -> None:
        super().__init__(lambda: nn.Linear(WIDTH, VOCAB + 1, bias=False))
        self.head.weight = self.embedding.weight


class Capped(Net):
    def forward(self, input_ids: Tensor) -> Any:
        return SimpleNamespace(logits=3.0 * torch.tanh(super().forward(input_ids) / 3.0) * 0.7)


class BiasOutside(Net):
    def forward(self, input_ids: Tensor) -> Tensor:
        return super().forward(input_ids) + torch.linspace(-1, 1, VOCAB)


class Dropping(Net):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.drop(self.head(self.drop(self.hidden(input_ids))))


class DropInside(Transform):
    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(nn.functional.dropout(self.dense(x), 0.5, self.training))


class Forbidding(Net):
    """-inf at a symbol."""

    def forward(self, input_ids: Tensor) -> Tensor:
        return super().forward(input_ids).index_fill(-1, torch.tensor([2]), -torch.inf)


class AboveOnly(Transform):
    """Only its last layer is position-wise."""

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.dense(x - x.mean(1, keepdim=True)))


class Strict(Net):
    """Takes one length only."""

    def forward(self, input_ids: Tensor) -> Tensor:
        if input_ids.shape[1] != LENGTH:
            raise ValueError("length")
        return super().forward(input_ids)


SAVING: dict[str, Callable[[], Net]] = {
    "linear": Net,
    "transform": lambda: Net(Transform),
    "tied": Tied,
    "cap and scale after": Capped,
    "bias outside": BiasOutside,
    "dropout outside": Dropping,
    "dropout inside": lambda: Net(DropInside),
    "a forbidden symbol": Forbidding,
    "only the last layer": lambda: Net(AboveOnly),
    "one length": Strict,
    "mean inside": lambda: Net(Mean),
}


class Twice(Net):
    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.hidden(input_ids)
        return self.head(x) + self.head(x.roll(1, 1))


class TwiceTheSame(Net):
    """Its first logits feed the body."""

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.hidden(input_ids)
        return self.head(x + self.head(x).mean())


class Flat(Net):
    def forward(self, input_ids: Tensor) -> Tensor:
        return self.head(self.hidden(input_ids).flatten(0, 1)).unflatten(0, input_ids.shape)


class Chunked(Net):
    def forward(self, input_ids: Tensor) -> Tensor:
        return torch.cat([self.head(x) for x in self.hidden(input_ids).split(5, dim=1)], dim=1)


class ByHand(Net):
    """Never calls its head as a module."""

    def forward(self, input_ids: Tensor) -> Tensor:
        return nn.functional.linear(self.hidden(input_ids), self.head.weight, self.head.bias)


class ByName(Net):
    def forward(self, input_ids: Tensor) -> Tensor:
        return self.head(input=self.hidden(input_ids))


class CentredAfter(Net):
    def forward(self, input_ids: Tensor) -> Tensor:
        logits = super().forward(input_ids)
        return logits - logits.mean(1, keepdim=True)


class BarelyCentred(Net):
    """A thousandth of the mean over positions."""

    def forward(self, input_ids: Tensor) -> Tensor:
        logits = super().forward(input_ids)
        return logits - 1e-3 * logits.mean(1, keepdim=True)


class Shifted(Net):
    """Position i reads the logits of i - 1."""

    def forward(self, input_ids: Tensor) -> Tensor:
        logits = super().forward(input_ids)
        return torch.cat([logits[:, :1], logits[:, :-1]], dim=1)


class ByPlace(Net):
    """A bias of the place in the row of what it gets."""

    def forward(self, input_ids: Tensor) -> Tensor:
        logits = super().forward(input_ids)
        return logits + torch.linspace(0, 1, 64)[: logits.shape[1], None] * torch.linspace(-1, 1, VOCAB)


class CarriedOver(Net):
    """Visible positions say their own symbol."""

    def forward(self, input_ids: Tensor) -> Tensor:
        own = 9.0 * nn.functional.one_hot(input_ids, VOCAB + 1)[..., :VOCAB]
        return torch.where((input_ids == MASK)[..., None], super().forward(input_ids), own)


class Mean(nn.Module):
    """Looks at all positions beside its decoder: the decoder alone can run at a few."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Linear(WIDTH, VOCAB)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(x).sub(self.decoder.bias.sum() + x.mean())


class OverPositions(Transform):
    def forward(self, x: Tensor) -> Tensor:
        logits = self.decoder(x)
        return (logits - logits.mean(1, keepdim=True)) / logits.std(1, keepdim=True)


class FixedNorm(Transform):
    """LayerNorm([length, width]) is a norm over positions with its own weights there."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.LayerNorm([LENGTH, VOCAB])

    def forward(self, x: Tensor) -> Tensor:
        return self.wide(self.decoder(x))


class Random(Net):
    """Draws at inference."""

    def forward(self, input_ids: Tensor) -> Tensor:
        return (
            super().forward(input_ids) + 0 * torch.rand(1) + 1e-2 * torch.rand(BATCH, 1, 1)[: len(input_ids)]
        )


FULL: dict[str, Callable[[], Net]] = {
    "twice": Twice,
    "twice, fed back": TwiceTheSame,
    "flat": Flat,
    "chunked": Chunked,
    "by hand": ByHand,
    "by name": ByName,
    "centred after": CentredAfter,
    "barely centred": BarelyCentred,
    "shifted": Shifted,
    "by place": ByPlace,
    "carried over": CarriedOver,
    "norm over positions": lambda: Net(OverPositions),
    "norm of fixed length": lambda: Net(FixedNorm),
}


def both(net: Any, **told: Any) -> tuple[Any, Any]:
    """The denoiser as it is made, and one that runs in full."""
    return unmask.from_logits(net, MASK, VOCAB, **told), unmask.from_logits(net, MASK, VOCAB, head=False)


def hooks(net: nn.Module) -> list[int]:
    return [len(m._forward_pre_hooks) for m in net.modules()]


def assert_same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("kind", SAVING)
def test_rows_equal_the_full_run_and_the_head_sees_no_more(kind: str, rows: str) -> None:
    net = SAVING[kind]().train()
    before = hooks(net)
    denoiser, full = both(net)
    for _ in range(2):  # with the probe and without
        assert_same(denoiser(TOKENS, ROWS[rows]), full(TOKENS, ROWS[rows]))
    assert denoiser.head.why == ""
    net.seen.clear()
    denoiser(TOKENS, ROWS[rows])
    assert net.seen == [ROWS[rows].numel()]
    assert hooks(net) == before


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("kind", FULL)
def test_what_is_not_position_wise_runs_in_full(kind: str, rows: str) -> None:
    net = FULL[kind]()
    denoiser, full = both(net)
    for _ in range(2):
        assert torch.equal(denoiser(TOKENS, ROWS[rows]), full(TOKENS, ROWS[rows]))
    assert denoiser.head.why
    assert not any(hooks(net))


def test_the_whole_prediction_head_runs_at_the_rows() -> None:
    net = Net(Transform)
    widths: list[int] = []
    net.head.dense.register_forward_hook(lambda m, args, out: widths.append(out.shape[1]))
    denoiser, _ = both(net)
    denoiser(TOKENS, ROWS["one"])
    assert widths[-1] == 1


def test_the_probe_is_small_and_made_once() -> None:
    net = Net()
    denoiser, _ = both(net)
    tokens = tokens_of(9, 50)
    rows = torch.zeros(9, 2, dtype=torch.int64)
    for _ in range(3):
        denoiser(tokens, rows)
    assert net.seen == [2 * SHORT, 2 * (SHORT // 3 + 1), 18, 18, 18]


def test_the_probe_moves_no_random_state() -> None:
    net = Random()
    denoiser, full = both(net)
    state = torch.get_rng_state()
    expected = full(TOKENS, ROWS["one"])
    after = torch.get_rng_state()
    torch.set_rng_state(state)
    assert torch.equal(denoiser(TOKENS, ROWS["one"]), expected)
    assert torch.equal(torch.get_rng_state(), after)
    assert "differ" in denoiser.head.why


def test_one_position_shows_nothing() -> None:
    net = CentredAfter()
    denoiser, full = both(net)
    one = tokens_of(BATCH, 1)
    assert torch.equal(denoiser(one, torch.zeros_like(one)), full(one, torch.zeros_like(one)))
    two = tokens_of(BATCH, 2)
    rows = torch.tensor([[1], [0], [1]])
    assert torch.equal(denoiser(two, rows), full(two, rows))


def test_a_proof_holds_for_the_weights_that_it_saw() -> None:
    """A head that is not position-wise looks like one while the weight of that part is zero."""

    class Growing(Net):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.zeros(1))

        def forward(self, input_ids: Tensor) -> Tensor:
            logits = super().forward(input_ids)
            return logits - self.scale * logits.mean(1, keepdim=True)

    net = Growing()
    denoiser, full = both(net)
    assert_same(denoiser(TOKENS, ROWS["repeated"]), full(TOKENS, ROWS["repeated"]))
    assert not denoiser.head.why
    with torch.no_grad():
        net.scale += 1
    assert torch.equal(denoiser(TOKENS, ROWS["repeated"]), full(TOKENS, ROWS["repeated"]))
    assert "differ" in denoiser.head.why
    with torch.no_grad():
        net.scale.zero_()
    denoiser(TOKENS, ROWS["repeated"])
    assert not denoiser.head.why


def test_a_head_of_zeros_shows_nothing_until_it_is_trained() -> None:
    net = CentredAfter()
    with torch.no_grad():
        net.head.weight.zero_()
        net.head.bias.zero_()
    denoiser, full = both(net)
    assert_same(denoiser(TOKENS, ROWS["one"]), full(TOKENS, ROWS["one"]))
    assert "alike" in denoiser.head.why
    with torch.no_grad():
        net.head.weight.add_(torch.linspace(-1, 1, VOCAB)[:, None] * torch.linspace(-1, 2, WIDTH))
    assert torch.equal(denoiser(TOKENS, ROWS["one"]), full(TOKENS, ROWS["one"]))


def test_what_goes_wrong_after_the_probe_runs_in_full() -> None:
    """A network that chunks long sequences: the probe is short."""

    class Later(Net):
        def forward(self, input_ids: Tensor) -> Tensor:
            x = self.hidden(input_ids)
            return (
                self.head(x) if x.shape[1] <= SHORT else torch.cat([self.head(y) for y in x.split(10, 1)], 1)
            )

    denoiser, full = both(Later())
    for rows in ROWS.values():
        assert torch.equal(denoiser(TOKENS, rows), full(TOKENS, rows))
    assert "runs 2 times" in denoiser.head.why


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_hooks_are_removed_after_an_error(failure: type[BaseException]) -> None:
    net = Net(Transform).train()
    denoiser, full = both(net)
    own = net.head.register_forward_pre_hook(lambda m, args: None)
    denoiser(TOKENS, ROWS["one"])
    before, broken = hooks(net), net.head.norm.register_forward_hook(functools.partial(fail, failure))
    with pytest.raises(failure):
        denoiser(TOKENS, ROWS["one"])
    assert hooks(net) == before
    assert net.training
    broken.remove()
    assert_same(denoiser(TOKENS, ROWS["one"]), full(TOKENS, ROWS["one"]))
    assert own.id in net.head._forward_pre_hooks


def fail(failure: type[BaseException], *_: Any) -> None:
    raise failure


def test_hooks_of_others_stay_and_act() -> None:
    net = Net()
    net.head.register_forward_pre_hook(lambda m, args: (2 * args[0],))
    net.head.register_forward_hook(lambda m, args, out: out + torch.linspace(0, 1, VOCAB))
    denoiser, full = both(net)
    assert_same(denoiser(TOKENS, ROWS["repeated"]), full(TOKENS, ROWS["repeated"]))
    assert not denoiser.head.why


def test_a_network_that_asks_itself_within_a_call() -> None:
    """A run inside a run, at other rows, at all of them and bare, sees its own rows."""

    class Asking(Net):
        inside: Any = None

        def forward(self, input_ids: Tensor) -> Tensor:
            x = self.hidden(input_ids)
            inner, self.inside = self.inside, None
            if inner is not None:
                inner(input_ids)
                self.inside = inner
            return self.head(x)

    net = Asking()
    denoiser, full = both(net)
    expected, everything = full(TOKENS, ROWS["one"]), full(TOKENS)
    other = full(TOKENS, ROWS["repeated"])
    found: list[Tensor] = []
    for ask, rows, value in (
        (denoiser, ROWS["repeated"], other),
        (full, ROWS["repeated"], other),
        (denoiser, None, everything),
    ):
        net.inside = None
        denoiser(TOKENS, ROWS["one"])
        net.inside = lambda tokens, ask=ask, rows=rows: found.append(ask(tokens, rows))
        assert_same(denoiser(TOKENS, ROWS["one"]), expected)
        assert not denoiser.head.why
        assert_same(found[-1], value)
    net.inside = lambda tokens: net(tokens)
    denoiser = both(net)[0]
    assert_same(denoiser(TOKENS, ROWS["one"]), expected)
    assert "runs 2 times" in denoiser.head.why


def test_another_thread_keeps_its_rows() -> None:
    """While one thread is inside a call at rows, another runs the network itself."""

    class Waiting(Net):
        wait: Any = None

        def forward(self, input_ids: Tensor) -> Tensor:
            x = self.hidden(input_ids)
            if self.wait is not None:
                wait, self.wait = self.wait, None
                wait()
            return self.head(x)

    net = Waiting()
    denoiser, full = both(net)
    expected, truth = full(TOKENS, ROWS["one"]), net(TOKENS)
    denoiser(TOKENS, ROWS["one"])
    found: list[Tensor] = []

    def elsewhere() -> None:
        thread = threading.Thread(target=lambda: found.append(net(TOKENS)))
        thread.start()
        thread.join()

    net.wait = elsewhere
    assert_same(denoiser(TOKENS, ROWS["one"]), expected)
    assert torch.equal(found[0], truth)
    assert not denoiser.head.why


def parallel(net: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.DataParallel(net)


WRAPPERS: dict[str, Callable[[nn.Module], Any]] = {
    "parallel": parallel,
    "partial": functools.partial,
    "method": lambda net: net.forward,
    "copy": copy.deepcopy,
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers_that_can_be_seen_through(wrapper: str) -> None:
    net = Net(Transform)
    denoiser, full = both(WRAPPERS[wrapper](net))
    assert_same(denoiser(TOKENS, ROWS["repeated"]), full(TOKENS, ROWS["repeated"]))
    assert denoiser.head.shown
    assert not denoiser.head.why
    doubled = copy.deepcopy(denoiser)
    assert_same(doubled(TOKENS, ROWS["one"]), full(TOKENS, ROWS["one"]))
    assert not doubled.head.why


def compiled_in_place(net: nn.Module) -> nn.Module:
    net.compile(backend="eager")
    return net


def compiled_forward(net: nn.Module) -> nn.Module:
    net.forward = torch.compile(net.forward, backend="eager")
    return net


def compiled_head(net: nn.Module) -> nn.Module:
    net.head.compile(backend="eager")
    return net


COMPILED: dict[str, Callable[[nn.Module], Any]] = {
    "around": lambda net: torch.compile(net, backend="eager"),
    "in place": compiled_in_place,
    "forward": compiled_forward,
    "head": compiled_head,
    "parallel": lambda net: torch.compile(parallel(net), backend="eager"),
}


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("wrapper", COMPILED)
def test_compiled_networks_run_in_full(wrapper: str, seen: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where nobody notices before the hook stands there."""
    torch._dynamo.reset()
    if not seen:
        monkeypatch.setattr("unmask.denoisers.heads.compiled", lambda network: False)
    denoiser, full = both(COMPILED[wrapper](Net(Transform)))
    for rows in (ROWS["all, mixed"], ROWS["one"], ROWS["all, mixed"]):
        assert_same(denoiser(TOKENS, rows), full(TOKENS, rows))
    assert_same(denoiser(TOKENS), full(TOKENS))
    assert denoiser.head.why
    torch._dynamo.reset()


def test_compiled_after_the_probe() -> None:
    torch._dynamo.reset()
    net = Net()
    denoiser, full = both(net)
    denoiser(TOKENS, ROWS["one"])
    net.compile(backend="eager")
    for rows in (ROWS["one"], ROWS["all, mixed"]):
        assert_same(denoiser(TOKENS, rows), full(TOKENS, rows))
    assert_same(denoiser(TOKENS), full(TOKENS))
    torch._dynamo.reset()


# --- telling the head ---------------------------------------------------------------------------------


class Untold(Net):
    get_output_embeddings = None


def test_a_head_that_is_told() -> None:
    net = Untold(Transform)
    assert unmask.from_logits(net, MASK, VOCAB).head is None
    around = lambda tokens: net(tokens)  # noqa: E731
    for network in (net, around):
        denoiser, full = both(network, head=net.head)
        assert_same(denoiser(TOKENS, ROWS["repeated"]), full(TOKENS, ROWS["repeated"]))
        net.seen.clear()
        denoiser(TOKENS, ROWS["one"])
        assert net.seen == [3]


def test_a_told_head_that_does_not_hold_is_told_back() -> None:
    net = Untold(OverPositions)
    denoiser, full = both(net, head=net.head)
    with pytest.warns(
        UserWarning, match=r"head OverPositions: rows differ from the full logits by .*runs in full"
    ):
        found = denoiser(TOKENS, ROWS["repeated"])
    assert torch.equal(found, full(TOKENS, ROWS["repeated"]))
    assert torch.equal(denoiser(TOKENS, ROWS["one"]), full(TOKENS, ROWS["one"]))  # and not again
    stranger, _ = both(net, head=nn.Linear(2, 2))
    with pytest.warns(UserWarning, match=r"head Linear: it runs 0 times"):
        stranger(TOKENS, ROWS["one"])


def test_heads_that_cannot_be_are_one_line() -> None:
    with pytest.raises(ValueError, match=r"^head 'lm_head': expected .*, or False for none$"):
        unmask.from_logits(Net(), MASK, VOCAB, head="lm_head")

    class WithRows(Net):
        def forward(self, input_ids: Tensor, rows: Tensor | None = None) -> Tensor:
            raise AssertionError

    net = WithRows()
    assert unmask.from_logits(net, MASK, VOCAB).head is None
    with pytest.raises(ValueError, match=r"^head Linear: WithRows takes rows itself; leave head out"):
        unmask.from_logits(net, MASK, VOCAB, head=net.head)


@pytest.mark.parametrize("answer", [None, 3, RuntimeError])
def test_a_network_that_tells_no_head(answer: Any) -> None:
    net = Net()

    def tell() -> Any:
        if answer is RuntimeError:
            raise answer
        return answer

    net.get_output_embeddings = tell
    assert unmask.from_logits(net, MASK, VOCAB).head is None


def test_tokens_elsewhere_are_one_line_as_in_full() -> None:
    denoiser, full = both(Net())
    for d in (denoiser, full):
        with pytest.raises(ValueError, match=r"on cpu.*expected .* on meta$") as found:
            d(TOKENS.to("meta"), ROWS["one"].to("meta"))
        assert "\n" not in str(found.value)
    assert_same(denoiser(TOKENS, ROWS["one"]), full(TOKENS, ROWS["one"]))
    assert not denoiser.head.why


def test_time_reaches_the_probe_too() -> None:
    class Timed(Net):
        def forward(self, input_ids: Tensor, time: Tensor | None = None) -> Tensor:
            logits = super().forward(input_ids)
            return logits if time is None else logits + time[:, None, None] * torch.linspace(-1, 1, VOCAB)

    class TimedMean(Timed):
        """Position-wise without a time."""

        def forward(self, input_ids: Tensor, time: Tensor | None = None) -> Tensor:
            logits = super().forward(input_ids, time)
            return logits if time is None else logits - logits.mean(1, keepdim=True)

    time = torch.tensor([0.1, 0.5, 0.9])
    for kind, saves in ((Timed, True), (TimedMean, False)):
        denoiser, full = both(kind())
        for given in (None, time, None, time):
            found, expected = (d(TOKENS, ROWS["repeated"], time=given) for d in (denoiser, full))
            assert_same(found, expected)
        assert (denoiser.head.why == "") == saves


def test_half_precision_and_autocast() -> None:
    net = Net(Transform).to(torch.bfloat16)
    denoiser, full = both(net)
    found, expected = denoiser(TOKENS, ROWS["repeated"]), full(TOKENS, ROWS["repeated"])
    torch.testing.assert_close(found, expected, rtol=0, atol=0.1)
    assert not denoiser.head.why
    denoiser, full = both(Net(OverPositions).to(torch.bfloat16))
    assert torch.equal(denoiser(TOKENS, ROWS["repeated"]), full(TOKENS, ROWS["repeated"]))
    denoiser, full = both(Net())
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(denoiser(TOKENS, ROWS["one"]), full(TOKENS, ROWS["one"]), rtol=0, atol=0.1)
    assert_same(denoiser(TOKENS, ROWS["one"]), full(TOKENS, ROWS["one"]))


# --- through the loop -----------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["confidence", "at_random"])
def test_samples_and_likelihoods_are_those_of_the_full_run(order: str) -> None:
    score = unmask.scores.at_random(0) if order == "at_random" else unmask.scores.confidence
    selector = unmask.selectors.top_k(score, 3)
    net = Net(Transform)
    start = torch.full((4, LENGTH), MASK)
    results = [
        unmask.sample(d, start, selector, generator=torch.Generator().manual_seed(0)) for d in both(net)
    ]
    assert torch.equal(results[0].tokens, results[1].tokens)
    torch.testing.assert_close(results[0].log_prob, results[1].log_prob, rtol=1e-6, atol=1e-5)
    net.seen.clear()
    again = unmask.log_likelihood(
        both(net)[0], results[0].tokens, selector, order_ids=torch.arange(4, dtype=torch.int64)
    )
    torch.testing.assert_close(again, results[0].log_prob, rtol=1e-6, atol=1e-5)


class Copies(TorchDispatchMode):
    """Counts results of so many numbers, or more, that are no views of an argument."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.made = size, []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.numel() >= self.size:
            before = [x.untyped_storage().data_ptr() for x in args if isinstance(x, Tensor)]
            if out.untyped_storage().data_ptr() not in before:
                self.made.append(str(func))
        return out


@pytest.mark.parametrize(
    ("mask", "kept"), [(VOCAB - 1, VOCAB), (0, VOCAB), (VOCAB, VOCAB), (VOCAB - 1, VOCAB - 1)]
)
@pytest.mark.parametrize("head", [None, False])
def test_a_mask_inside_the_vocabulary_costs_no_copy_of_the_logits(mask: int, kept: int, head: Any) -> None:
    """One tensor of that size is made where the head runs at the rows: its own; gathering makes another."""
    net = Net()
    denoiser = unmask.from_logits(net, mask, kept, head=head)
    tokens, rows = TOKENS % kept, ROWS["all, mixed"]
    denoiser(tokens, rows)
    with Copies(rows.numel() * kept) as copies:
        found = denoiser(tokens, rows)
    assert len(copies.made) == (1 if head is None else 2), copies.made
    assert mask >= kept or bool((found[..., mask] == -torch.inf).all())
    with Copies(rows.numel() * kept) as copies:
        denoiser(tokens)
    assert len(copies.made) == 1, copies.made


# --- transformers -----------------------------------------------------------------------------------------

NAMES = ("Bert", "Roberta", "Esm", "ModernBert")


def published(name: str) -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
        mask_token_id=39,
        initializer_range=0.2,
        **{f"{which}_token_id": n for n, which in enumerate(("pad", "bos", "eos", "cls", "sep"))},
    )
    return getattr(transformers, f"{name}ForMaskedLM")(config)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_transformers_models(name: str, compiled: bool) -> None:
    net = published(name)
    seen: list[int] = []
    net.get_output_embeddings().register_forward_hook(lambda m, args, out: seen.append(out.shape[1]))
    torch._dynamo.reset()
    network = torch.compile(net, backend="eager") if compiled else net
    denoiser, full = (unmask.from_logits(network, 39, 40, head=head) for head in (None, False))
    tokens = torch.randint(40, (BATCH, LENGTH), generator=torch.Generator().manual_seed(0))
    tokens[:, ::3] = 39
    for rows in [ROWS["all, mixed"]] if compiled else ROWS.values():
        found, expected = denoiser(tokens, rows)[..., :39], full(tokens, rows)[..., :39]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6 if not compiled else 1e-5)
    assert (denoiser.head.why == "") != compiled
    if not compiled:
        seen.clear()
        denoiser(tokens, ROWS["one"])
        assert seen == [1]
    torch._dynamo.reset()
