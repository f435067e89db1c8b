"""Networks that take no rows: their output head runs at the asked rows only, where a probe shows that nothing changes.

Most of the work of a small network with a large vocabulary is its head, and a head is the same function at every position.
A forward pre-hook hands it the hidden states at the rows. That this gives the network's own logits is never assumed: the
first call with rows compares both on a few random tokens, and wherever they differ, the network runs in full.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from unmask.denoisers.modes import roots
from unmask.denoisers.rows import take_rows
from unmask.denoisers.signature import layers, name_of

SHORT = 16
"""Positions of the probe, where the network takes sequences that are shorter than the call's."""

TOLERANCE = 1e-5
"""How far rows may lie from the full logits, as a share of the largest; two units of half precision where that is more."""

Run = Callable[[Tensor, Tensor | None], Tensor]
"""Logits [B, L, ..] from tokens [B, L] and a time [B]."""


@dataclass(frozen=True, eq=False)
class Head:
    """The output head of a network: modules that may run at a few rows, the largest first, and what probes have shown.

    A proof holds for the weights, device, precision and kind of call that it saw; after a training step it is made anew.
    """

    network: Any
    places: tuple[nn.Module, ...]
    told: bool = False
    shown: dict[Any, tuple[Any, nn.Module | None, str]] = field(default_factory=dict)

    def at(
        self, run: Run, tokens: Tensor, rows: Tensor, time: Tensor | None, symbols: tuple[int, int]
    ) -> Tensor | None:
        """Logits [B, R, ..] at rows with the head at those alone; None where that is not shown to be the same.

        ``symbols``: the mask's id and the number of symbols, of which the probe's tokens are made.
        """
        if tokens.ndim != 2 or min(tokens.shape) < 1 or tokens.shape[1] < 2:  # one position shows nothing
            return None
        kind, seen = (min(len(tokens), 2), time is None), self._seen(tokens)
        if self.shown.get(kind, (None,))[0] != seen:
            place, why = self._probe(run, tokens, time, symbols)
            self._settle(kind, seen, place, why)
        place = self.shown[kind][1]
        if place is None:
            return None
        logits, why = at_rows(place, lambda: run(tokens, time), tokens, rows)
        if logits is None:
            self._settle(kind, seen, None, why)
        return logits

    @property
    def why(self) -> str:
        """Why the network runs in full, for each kind of call that does; empty where rows are shown, or not asked yet."""
        return "; ".join(dict.fromkeys(why for _, place, why in self.shown.values() if place is None))

    def _settle(self, kind: Any, seen: Any, place: nn.Module | None, why: str) -> None:
        told_already = kind in self.shown
        self.shown[kind] = (seen, place, why)
        if place is None and self.told and not told_already:
            warnings.warn(f"head {name_of(self.places[0])}: {why}; the network runs in full", stacklevel=2)

    def _seen(self, tokens: Tensor) -> Any:
        """What a proof depends on: device, precision, and every weight's place and version."""
        device = tokens.device.type
        mixed = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
        half = torch.get_autocast_dtype(device) if mixed else None
        weights = [_version(p) for module in roots(self.network) for p in module.parameters()]
        return tokens.device, half, hash(tuple(weights))

    def _probe(
        self, run: Run, tokens: Tensor, time: Tensor | None, symbols: tuple[int, int]
    ) -> tuple[nn.Module | None, str]:
        """The largest place at which rows give the full logits of random tokens, or None and why; draws nothing global."""
        if compiled(self.network):
            return None, "it is compiled, and compiled code does not ask its hooks"
        why = "it does not run on two sequences of random symbols"
        generator = torch.Generator().manual_seed(0)
        with _forked(tokens.device):
            for length in sorted({min(SHORT, tokens.shape[1]), tokens.shape[1]}):
                probe, rows = (x.to(tokens.device) for x in _asked(len(tokens), length, symbols, generator))
                full = _full(run, probe, _some(time, len(probe)))
                if full is not None:
                    return self._first(run, probe, rows, time, full)
        return None, why

    def _first(
        self, run: Run, probe: Tensor, rows: Tensor, time: Tensor | None, full: Tensor
    ) -> tuple[nn.Module | None, str]:
        """The first place that gives the full logits, or None and why the last one does not."""
        why, some = "", _some(time, len(probe))
        for place in self.places:
            logits, why = at_rows(place, lambda: run(probe, some), probe, rows)
            why = why if logits is None else difference(logits, full, rows)
            if not why:
                return place, ""
        return None, why


def head_of(network: Any, told: nn.Module | bool | None) -> Head | None:
    """The head of a network: the module that is ``told``, or what holds its output embeddings, through wrappers.

    None where neither says one, or ``told`` is False. ValueError on anything else.
    """
    if told is False:
        return None
    if isinstance(told, nn.Module):
        return Head(network, (told,), told=True)
    if told is not None:
        raise ValueError(
            f"head {told!r}: expected the network's last module(s) of position-wise layers, or False for none"
        )
    inside = [getattr(x, "__self__", x) for x in layers(network)]  # a method's module
    owners = [x for x in inside if isinstance(x, nn.Module) and hasattr(x, "get_output_embeddings")]
    places = _places(owners[-1]) if owners else ()
    return Head(network, places) if places else None


def at_rows(
    place: nn.Module, run: Callable[[], Tensor], tokens: Tensor, rows: Tensor
) -> tuple[Tensor | None, str]:
    """Logits [B, R, ..] of a run in which ``place`` sees the hidden states at rows only; None and why if it cannot."""
    ask = _Ask(rows, tokens.shape)
    handle = None
    try:
        handle = place.register_forward_pre_hook(ask)
        with asking(ask):
            logits = run()
    except Exception as error:
        return None, f"with rows it raises {type(error).__name__}"
    finally:
        if handle is not None:
            handle.remove()
    if ask.calls != 1 or not ask.taken:
        return None, f"it runs {ask.calls} times a call, {ask.taken} on hidden states [batch, length, width]"
    return (logits, "") if logits.shape[:2] == rows.shape else (None, "its logits have another shape")


def difference(logits: Tensor, full: Tensor, rows: Tensor) -> str:
    """How logits [B, R, V] at rows differ from the full ones [B, L, V]; empty where they are the same to `TOLERANCE`.

    Logits that are alike at all positions (those of an untrained head that is zero) show nothing and do not count.
    """
    wide = torch.promote_types(full.dtype, torch.float32)
    expected, found = take_rows(full, rows).to(wide), logits.to(wide)
    if found.shape != expected.shape:
        return "its logits have another shape"
    scale = float(expected[expected.isfinite()].abs().max()) if expected.isfinite().any() else 0.0
    allowed = scale * max(TOLERANCE, 2 * torch.finfo(full.dtype).eps)
    apart = torch.where(found == expected, 0.0, (found - expected).abs())
    if not (apart <= allowed).all():
        return f"rows differ from the full logits by {float(apart.max()):.2g} of {scale:.2g}"
    spread = (full.to(wide) - full[:, :1].to(wide)).nan_to_num(0.0, 0.0, 0.0).abs().max()
    return "" if spread > 10 * allowed else "its logits are alike at all positions, which shows nothing"


def compiled(network: Any) -> bool:
    """Whether a network, or a part of it, runs compiled: such code may keep or skip hooks whatever stands there now."""
    if any(hasattr(x, "_torchdynamo_orig_callable") for x in layers(network)):
        return True
    return any(_is_compiled(m) for root in roots(network) for m in root.modules())


@contextmanager
def asking(ask: object | None) -> Iterator[None]:
    """Says whose run this is: a hook acts in its own alone, not in a run inside it, and not in another thread's."""
    before = _ASKED.set(ask)
    try:
        yield
    finally:
        _ASKED.reset(before)


_ASKED: ContextVar[object | None] = ContextVar("asked", default=None)


@dataclass(eq=False)
class _Ask:
    """A forward pre-hook that takes the hidden states at rows, and counts how often the head is called and they fit."""

    rows: Tensor
    shape: torch.Size
    calls: int = 0
    taken: int = 0

    def __call__(self, _: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """The arguments with the first at rows; None, which leaves them, in foreign and compiled runs."""
        if torch.compiler.is_compiling() or _ASKED.get() is not self:
            return None
        self.calls += 1
        hidden = args[0] if args else None
        if not isinstance(hidden, Tensor) or hidden.ndim != 3 or hidden.shape[:2] != self.shape:
            return None
        if not hidden.is_floating_point():
            return None
        self.taken += 1
        return take_rows(hidden, self.rows.to(hidden.device)), *args[1:]


def _places(owner: nn.Module) -> tuple[nn.Module, ...]:
    """The modules of ``owner`` that hold its output embeddings, the largest first, and these."""
    try:
        last = owner.get_output_embeddings()  # type: ignore[operator]
    except Exception:
        return ()
    if not isinstance(last, nn.Module):
        return ()
    path = next((name for name, m in owner.named_modules() if m is last), "")
    names = path.split(".")
    above = (".".join(names[:n]) for n in range(1, len(names)))
    return *(owner.get_submodule(name) for name in above), last


def _asked(
    batch: int, length: int, symbols: tuple[int, int], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Tokens int64 [1 or 2, length], a third of them masked, and fewer rows than that: in no order, one of them twice."""
    mask_id, vocab_size = symbols
    size = (min(batch, 2), length)
    tokens = torch.randint(vocab_size, size, generator=generator)
    tokens[torch.rand(size, generator=generator) < 1 / 3] = mask_id
    mixed = torch.rand(size, generator=generator).argsort(dim=1)
    rows = mixed[:, : max(1, length // 3)]
    return tokens, torch.cat([rows, rows[:, :1]], dim=1) if rows.shape[1] + 1 < length else rows


def _full(run: Run, tokens: Tensor, time: Tensor | None) -> Tensor | None:
    """The logits at all positions of tokens; None where the network does not take them."""
    try:
        with asking(None):
            logits = run(tokens, time)
    except Exception:
        return None
    fits = logits.ndim == 3 and logits.shape[:2] == tokens.shape and logits.is_floating_point()
    return logits if fits else None


def _some(time: Tensor | None, batch: int) -> Tensor | None:
    """The times of the first sequences."""
    return time if time is None or not time.ndim else time[:batch]


def _forked(device: torch.device) -> AbstractContextManager[None]:
    """Puts the global random states of torch back that a run on a device may move."""
    index = torch.cuda.current_device() if device.type == "cuda" and device.index is None else device.index
    return torch.random.fork_rng(devices=[index] if device.type == "cuda" else [])


def _version(weight: Tensor) -> tuple[int, int]:
    """Where a weight lies and how often it was written to."""
    try:
        return weight.data_ptr(), 0 if weight.is_inference() else weight._version
    except RuntimeError:  # no storage of its own
        return id(weight), 0


def _is_compiled(module: nn.Module) -> bool:
    forward = vars(module).get("forward")
    called = getattr(module, "_compiled_call_impl", None)
    return (
        "_orig_mod" in module._modules or called is not None or hasattr(forward, "_torchdynamo_orig_callable")
    )
