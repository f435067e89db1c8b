"""Whoever wrote the network: time, rows, shapes, outputs and modes are right, or there is one line."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import unmask

MASK, VOCAB, LENGTH = 5, 5, 6
TOKENS = torch.tensor([[0, 5, 1, 5, 5, 2], [5, 5, 5, 3, 5, 5], [4, 1, 5, 0, 5, 5]])
ROWS = torch.tensor([[1, 3], [0, 4], [2, 5]])
TIME = torch.tensor([0.1, 0.5, 0.9])

pytestmark = pytest.mark.global_random


class Body(nn.Module):
    """Logits that depend on tokens, time, dropout and batch norm; what it can be told is up to the class below."""

    def __init__(self, width: int = VOCAB) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.embedding = nn.Embedding(VOCAB + 1, 8)
        self.norm, self.drop, self.head = nn.BatchNorm1d(LENGTH), nn.Dropout(0.5), nn.Linear(8, width)
        for p in self.parameters():
            p.data = 0.4 * torch.randn(p.shape, generator=generator)
        self.norm.running_mean.copy_(torch.randn(LENGTH, generator=generator))
        self.norm.running_var.fill_(2.0)

    def logits(self, tokens: Tensor, time: Tensor | None = None) -> Tensor:
        x = self.embedding(tokens)
        x = x + x.mean(1, keepdim=True)
        if time is not None:
            x = x + torch.sin(3 * time.to(x.dtype))[:, None, None]
        return self.head(self.drop(self.norm(x)))


def gathered(logits: Tensor, rows: Tensor | None) -> Tensor:
    return logits if rows is None else logits.gather(1, rows[..., None].expand(-1, -1, logits.shape[-1]))


class Plain(Body):
    def forward(self, tokens: Tensor) -> Tensor:
        return self.logits(tokens)


class WithRows(Body):
    def forward(self, tokens: Tensor, rows: Tensor | None = None) -> Tensor:
        return gathered(self.logits(tokens), rows)


class Timed(Body):
    def forward(self, tokens: Tensor, *, time: Tensor | None = None) -> Tensor:
        return self.logits(tokens, time)


class Both(Body):
    def forward(self, tokens: Tensor, rows: Tensor | None = None, time: Tensor | None = None) -> Tensor:
        return gathered(self.logits(tokens, time), rows)


NETWORKS = {"plain": Plain, "with rows": WithRows, "timed": Timed, "both": Both}


def parallel(net: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.DataParallel(net)


def compiled(net: nn.Module) -> Any:
    return torch.compile(net, backend="eager")


def decorated(net: nn.Module) -> Callable[..., Any]:
    @functools.wraps(net.forward)
    def call(*args: Any, **kwargs: Any) -> Any:
        return net(*args, **kwargs)

    return call


class Object:
    """Somebody's callable that holds a module."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.net(*args, **kwargs)


class Told(Object):
    """The same with a signature."""

    def __call__(self, tokens: Tensor, *, time: Tensor | None = None) -> Any:
        return self.net(tokens, time=time) if "time" in takes(self.net) else self.net(tokens)


def takes(net: nn.Module) -> tuple[str, ...]:
    return {Plain: (), WithRows: ("rows",), Timed: ("time",), Both: ("rows", "time")}[type(net)]


class Opaque(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.inner = net

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs)


WRAPPERS: dict[str, Callable[[nn.Module], Any]] = {
    "bare": lambda net: net,
    "compiled": compiled,
    "parallel": parallel,
    "partial": functools.partial,
    "partial of compiled": lambda net: functools.partial(compiled(net)),
    "compiled parallel": lambda net: compiled(parallel(net)),
    "method": lambda net: net.forward,
    "call": lambda net: net.__call__,
    "decorated": decorated,
    "no_grad": lambda net: torch.no_grad()(net.forward),
    "told object": Told,
    "object": Object,
    "opaque module": Opaque,
    "lambda": lambda net: lambda *a, **k: net(*a, **k),
}
HIDDEN = ("object", "opaque module", "lambda")
"""Wrappers whose signature tells nothing."""


def logits_output(output: Tensor) -> Any:
    return SimpleNamespace(logits=output)


OUTPUTS: dict[str, Callable[[Tensor], Any]] = {
    "tensor": lambda x: x,
    ".logits": logits_output,
    "wide": lambda x: F.pad(x, (0, 3)),
    "half": lambda x: x.to(torch.bfloat16),
    "strided": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "tuple": lambda x: (x, None),
    "dict": lambda x: {"logits": x},
    "longer": lambda x: F.pad(x, (0, 0, 1, 1)),
    "shorter": lambda x: x[:, :-1],
    "more items": lambda x: torch.cat([x, x]),
    "narrow": lambda x: x[..., :-1],
    "whole numbers": lambda x: x.long(),
    "flat": lambda x: x.flatten(0, 1),
    "NaN": lambda x: x * torch.nan,
}
GOOD = ("tensor", ".logits", "wide", "half", "strided")

MODES: dict[str, Callable[[nn.Module], Any]] = {
    "as made": lambda net: None,
    "train": lambda net: net.train(),
    "eval": lambda net: net.eval(),
    "mixed": lambda net: (net.eval(), net.drop.train(), net.norm.train()),
}


def answering(net: nn.Module, output: str) -> nn.Module:
    """The network with another form of output, its signature as it was."""
    if output != "tensor":
        net.register_forward_hook(lambda module, args, result: OUTPUTS[output](result))
    return net


def truth(kind: str, time: Tensor | None, rows: Tensor | None) -> Tensor:
    """Log-probabilities of the bare network in evaluation mode."""
    net = NETWORKS[kind]().eval()
    with torch.no_grad():
        logits = net.logits(TOKENS, time if "time" in takes(net) else None)
        return gathered(logits.log_softmax(-1), rows)


CASES = list(itertools.product(NETWORKS, WRAPPERS, OUTPUTS, MODES))


def outcome(kind: str, wrapper: str, output: str, mode: str) -> str:
    """'value' where everything is right, 'refused' for one line of ValueError; anything else raises."""
    if "compiled" in wrapper:
        torch._dynamo.reset()
    net = answering(NETWORKS[kind](), output)
    MODES[mode](net)
    before = {name: m.training for name, m in net.named_modules()}
    buffers = {name: b.clone() for name, b in net.named_buffers()}
    wrapped = WRAPPERS[wrapper](net)
    told = {}
    if wrapper in HIDDEN:
        with pytest.raises(ValueError, match=r"\*\*kwargs.*timed=True or timed=False"):
            unmask.from_logits(wrapped, MASK, VOCAB)
        told = {"timed": "time" in takes(net), "with_rows": "rows" in takes(net)}
    close = 3e-2 if output == "half" else 1e-6
    denoiser = unmask.from_logits(wrapped, MASK, VOCAB, **told)
    results = {answer(denoiser, kind, time, rows, close) for time in (None, TIME) for rows in (None, ROWS)}
    assert len(results) == 1, results
    assert {name: m.training for name, m in net.named_modules()} == before
    assert all(torch.equal(b, buffers[name]) for name, b in net.named_buffers())
    return results.pop()


def answer(denoiser: Any, kind: str, time: Tensor | None, rows: Tensor | None, close: float) -> str:
    """'value' where a call gives the bare network's, 'refused' for one line."""
    result, line = "value", ""
    try:
        found = denoiser(TOKENS, rows, time=time)
        assert (found - truth(kind, time, rows)).abs().max() < close, (time, rows)
    except ValueError as error:
        result, line = "refused", str(error)
    assert "\n" not in line
    return result


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("kind", NETWORKS)
def test_every_combination_gives_the_value_or_one_line(kind: str, wrapper: str) -> None:
    for output, mode in itertools.product(OUTPUTS, MODES):
        if mode != "train" and (output not in GOOD or "compiled" in wrapper):  # compiling takes time
            continue
        # a bound forward skips the hook that changes the output, so its output is always the plain one
        direct = wrapper in ("method", "no_grad")
        expected = "value" if output in GOOD or direct else "refused"
        assert outcome(kind, wrapper, output, mode) == expected, (output, mode)


def test_most_combinations_give_the_value() -> None:
    """Refusing is not the way out: what the test above expects, counted."""
    values, bad = len(GOOD) * len(MODES), len(OUTPUTS) - len(GOOD)
    assert (values + bad) * len(NETWORKS) * len(WRAPPERS) >= 500
    assert values / (values + bad) >= 0.6


@pytest.mark.parametrize("wrapper", ["compiled", "parallel", "partial"])
def test_time_reaches_the_network_through_a_wrapper(wrapper: str) -> None:
    """The score along an ancestral order is the bare network's."""
    net = Both().eval()
    order = unmask.selectors.ancestral(
        unmask.masking.schedules.linear(), unmask.masking.schedules.uniform_grid(6), 0
    )
    tokens = torch.randint(VOCAB, (4, LENGTH), generator=torch.Generator().manual_seed(1))
    scored = [
        unmask.log_likelihood(unmask.from_logits(n, MASK, VOCAB), tokens, order)
        for n in (net, WRAPPERS[wrapper](net), WithRows().eval())
    ]
    torch.testing.assert_close(scored[0], scored[1])
    assert (scored[0] - scored[2]).abs().max() > 0.1  # without its time it is another score


def test_partial_that_binds_the_time_keeps_it() -> None:
    net = Both().eval()
    bound = unmask.from_logits(functools.partial(net, time=torch.full((3,), 0.7)), MASK, VOCAB)
    assert not bound.takes_time
    free = unmask.from_logits(net, MASK, VOCAB)
    torch.testing.assert_close(bound(TOKENS, time=TIME), free(TOKENS, time=torch.full((3,), 0.7)))


def test_timed_and_with_rows_say_what_an_opaque_network_takes() -> None:
    net = Both().eval()
    opaque = lambda *a, **k: net(*a, **k)  # noqa: E731
    free = unmask.from_logits(net, MASK, VOCAB)
    for rows in (None, True, False):
        said = unmask.from_logits(opaque, MASK, VOCAB, timed=True, with_rows=rows)
        torch.testing.assert_close(said(TOKENS, ROWS, time=TIME), free(TOKENS, ROWS, time=TIME))
    deaf = unmask.from_logits(opaque, MASK, VOCAB, timed=False)
    torch.testing.assert_close(deaf(TOKENS, time=TIME), free(TOKENS))


def test_a_network_that_needs_more_is_one_line() -> None:
    with pytest.raises(ValueError, match=r"needs 'mask' beside tokens.*functools.partial"):
        unmask.from_logits(lambda tokens, mask: tokens, MASK, VOCAB)
    with pytest.raises(ValueError, match=r"takes 'sigma', perhaps its time"):
        unmask.from_logits(lambda tokens, sigma=None: tokens, MASK, VOCAB)
    with pytest.raises(ValueError, match=r"expected a module or function"):
        unmask.from_logits(3, MASK, VOCAB)
    assert unmask.from_logits(lambda t: Plain()(t), MASK, VOCAB)(TOKENS).shape == (3, 6, 5)  # t is the tokens


def test_typed_keywords_and_transformers_are_no_riddle() -> None:
    class Typed(Plain):
        def forward(self, tokens: Tensor, **kwargs: "Unpack[Options]") -> Tensor:  # noqa: F821, UP037
            return self.logits(tokens)

    class Embeds(Plain):
        def forward(self, tokens: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> Any:
            return logits_output(self.logits(tokens))

        def get_output_embeddings(self) -> nn.Module:
            return self.head

    for net in (Typed(), Embeds()):
        found = unmask.from_logits(net, MASK, VOCAB)(TOKENS, ROWS, time=TIME)
        torch.testing.assert_close(found, truth("plain", None, ROWS))


def test_torchscript_tells_its_arguments() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = torch.jit.trace(Plain().eval(), TOKENS)
    torch.testing.assert_close(unmask.from_logits(net, MASK, VOCAB)(TOKENS, ROWS), truth("plain", None, ROWS))


# --- modes ------------------------------------------------------------------------------------------


def test_a_training_loop_with_an_evaluation_in_it() -> None:
    """Sample and likelihood agree after `.train()`, and the network trains on as before."""
    net = WithRows()
    denoiser = unmask.from_logits(net, MASK, VOCAB)
    order = unmask.selectors.top_k(unmask.scores.margin, 1)
    quiet = unmask.log_likelihood(unmask.from_logits(WithRows().eval(), MASK, VOCAB), TOKENS % VOCAB, order)
    net.train()
    generator = torch.Generator().manual_seed(0)
    drawn = unmask.sample(denoiser, torch.full((3, LENGTH), MASK), order, generator=generator)
    again = unmask.log_likelihood(denoiser, drawn.tokens, order)
    torch.testing.assert_close(drawn.log_prob, again, rtol=0, atol=1e-6)
    torch.testing.assert_close(unmask.log_likelihood(denoiser, TOKENS % VOCAB, order), quiet)
    assert net.training
    assert net.drop.training


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_modes_come_back_after_an_error(failure: type[BaseException]) -> None:
    net = WithRows().train()
    net.norm.eval()

    def fail(*_: Any) -> None:
        raise failure

    net.head.register_forward_hook(fail)
    with pytest.raises(failure):
        unmask.from_logits(net, MASK, VOCAB)(TOKENS)
    assert net.training
    assert not net.norm.training


def test_modules_that_come_later_run_in_evaluation_mode_too() -> None:
    net = Plain()
    denoiser = unmask.from_logits(net, MASK, VOCAB)
    net.drop = nn.Sequential(nn.Dropout(0.9), nn.Dropout(0.9))
    torch.testing.assert_close(denoiser(TOKENS), truth("plain", None, None))


NET = Plain()


def by_global(tokens: Tensor) -> Tensor:
    return helper(tokens)


def helper(tokens: Tensor) -> Tensor:
    return NET(tokens)


def test_functions_that_hold_a_module() -> None:
    net = Plain().train()
    NET.train()
    stack = [net]
    for function in (
        lambda tokens: net(tokens),
        lambda tokens: stack[0](tokens),
        lambda tokens, model=net: model(tokens),
        lambda tokens: (lambda x: net(x))(tokens),
        by_global,
        functools.partial(lambda model, tokens: model(tokens), net),
    ):
        found = unmask.from_logits(function, MASK, VOCAB)(TOKENS)
        torch.testing.assert_close(found, truth("plain", None, None))
    assert net.training
    assert NET.training


# --- other things that a network may do -----------------------------------------------------------------


def test_the_mask_inside_the_vocabulary() -> None:
    net = Body(width=VOCAB + 1)
    net.forward = lambda tokens: net.logits(tokens)
    found = unmask.from_logits(net, MASK, VOCAB + 1)(TOKENS)
    torch.testing.assert_close(found[..., :VOCAB], net.eval().logits(TOKENS)[..., :VOCAB].log_softmax(-1))
    assert (found[..., MASK] == -torch.inf).all()


@pytest.mark.parametrize("tokens", [TOKENS.to("meta"), TOKENS.float(), TOKENS[0]])
def test_tokens_that_cannot_be_are_one_line(tokens: Tensor) -> None:
    denoiser = unmask.from_logits(Plain(), MASK, VOCAB)
    order = unmask.selectors.top_k(unmask.scores.margin, 1)
    with pytest.raises(ValueError, match=r"^tokens (have dtype|are on the meta device)") as found:
        unmask.sample(denoiser, tokens, order, generator=torch.Generator())
    assert "\n" not in str(found.value)


def test_a_network_on_the_meta_device_is_one_line() -> None:
    with pytest.raises(ValueError, match=r"meta.*expected") as found:
        unmask.from_logits(Plain().to("meta"), MASK, VOCAB)(TOKENS)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("length", [1, 80, 82])
def test_another_length_than_the_models(length: int) -> None:
    model = unmask.load("sudoku")
    with pytest.raises(ValueError, match=r"tokens of shape .*; expected \[batch, 81\]"):
        unmask.log_likelihood(
            model.denoiser, torch.zeros(2, length).long(), unmask.selectors.top_k(unmask.scores.margin, 1)
        )
