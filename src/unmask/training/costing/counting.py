"""Counts what a step computes and keeps, as it runs on the meta device: operations, and bytes that are alive.

Tensors there have shapes and no numbers, so a network of any size fits. What a step does with numbers must not decide
what it does next; only the places of what is masked are foreseen, half of all positions.
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry

MASKED = 2
"""One position of so many is masked, in the mean of every objective here."""


class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, counts floating-point operations (of products) and live bytes, in all and by block of the network.

    A block is a member of an `nn.ModuleList`; what is computed belongs to the block whose parameters were read last, until
    the forward pass is over. Parameters themselves are not counted, and gradients, once whole, apart.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.blocks = {_key(p): block for block, p in _by_block(network)}
        self.known = {_key(t) for t in (*network.parameters(), *network.buffers())}
        self.flops: dict[str, float] = defaultdict(float)
        self.alive: dict[str, int] = defaultdict(int)
        self.block, self.last = "", dict[str, int]()
        self.peak = self.peak_with_gradients = 0
        self.gradients = 0
        self._counted = dict[int, tuple[str, int]]()
        trained = [p for p in network.parameters() if p.requires_grad]
        self._hooks = [p.register_post_accumulate_grad_hook(self._whole) for p in trained]  # type: ignore[no-untyped-call]

    @property
    def live(self) -> int:
        """Bytes that are alive, without parameters and their gradients."""
        return sum(self.alive.values())

    def add(self, flops: float) -> None:
        """Counts operations that are no product of the registry."""
        self.flops[self.block] += flops

    def forward_over(self) -> None:
        """From here on nothing belongs to a block."""
        self.block, self.blocks = "", {}

    def close(self) -> None:
        """Takes its hooks off the network."""
        for hook in self._hooks:
            hook.remove()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation and counts it."""
        kwargs = kwargs or {}
        for read in tree_leaves((args, kwargs)):
            if isinstance(read, Tensor):
                self.block = self.blocks.get(_key(read), self.block)
        if func is torch.ops.aten.nonzero.default and args[0].is_meta:
            size = (args[0].numel() // MASKED, args[0].ndim)
            out: Any = torch.empty(size, dtype=torch.int64, device="meta")
        else:
            out = func(*args, **kwargs)
        if formula := flop_registry.get(func._overloadpacket):
            self.add(formula(*args, **kwargs, out_val=out))
        for made in tree_leaves(out):
            if isinstance(made, Tensor):
                self._track(made)
        return out

    def _track(self, made: Tensor) -> None:
        key = _key(made)
        if key in self.known or key in self._counted:
            return
        storage = made.untyped_storage()
        size = storage.nbytes()
        self._counted[key] = (self.block, size)
        self.alive[self.block] += size
        self.last[self.block] = size
        weakref.finalize(storage, self._gone, key)
        self.peak = max(self.peak, self.live)
        self.peak_with_gradients = max(self.peak_with_gradients, self.live + self.gradients)

    def _gone(self, key: int) -> None:
        block, size = self._counted.pop(key, ("", 0))
        self.alive[block] -= size

    def _whole(self, parameter: Tensor) -> None:
        """A gradient is whole: it stays until the step is done."""
        if parameter.grad is not None and (found := self._counted.pop(_key(parameter.grad), None)):
            self.alive[found[0]] -= found[1]
            self.gradients += found[1]
            self.known.add(_key(parameter.grad))


def _key(tensor: Tensor) -> int:
    """Which memory a tensor lies in."""
    return int(tensor.untyped_storage()._cdata)


def _by_block(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters in a member of an `nn.ModuleList`, with the name of the outermost one."""
    for name, module in network.named_modules():
        if isinstance(module, nn.ModuleList):
            for number, block in enumerate(module):
                yield from ((f"{name}.{number}", p) for p in block.parameters())


class Unwritten(TorchFunctionMode):
    """Leaves parameters as they are made: there is nothing to initialise without numbers, and torch is slow at it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs a function that is no initialiser."""
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        if func is torch.randn:
            return torch.empty(*args, **kwargs)
        return func(*args, **kwargs)


class _Attention(torch.autograd.Function):
    """Attention that keeps no weights, as fused kernels do: what it keeps and computes, without numbers."""

    @staticmethod
    def forward(ctx: Any, counter: Counter, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """An output of q's shape."""
        out, sums = q.new_empty((*q.shape[:-1], v.shape[-1])), q.new_empty(q.shape[:-1], dtype=torch.float32)
        ctx.flops = 2.0 * q.shape[:-1].numel() * k.shape[-2] * (q.shape[-1] + v.shape[-1])
        counter.add(ctx.flops)
        ctx.counter = counter
        ctx.save_for_backward(q, k, v, out, sums)
        return out

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ARG004
        """Gradients of the three; twice the operations, those done again for want of weights not counted."""
        ctx.counter.add(2 * ctx.flops)
        q, k, v, *_ = ctx.saved_tensors
        return None, torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


class _Functions(TorchFunctionMode):
    """Attention as fused kernels have it; with ``half``, products in bfloat16 and norms in float32, as under autocast."""

    def __init__(self, counter: Counter, half: bool) -> None:
        super().__init__()
        self.counter, self.half, self.cast = counter, half, dict[int, Tensor]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs a function, or its stand-in."""
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            q, k, v = (self._low(t) if self.half else t for t in args[:3])
            return _Attention.apply(self.counter, q, k, v)  # type: ignore[no-untyped-call]
        if self.half and func in PRODUCTS:
            args, kwargs = tree_map(self._low, (args, kwargs))
        elif self.half and func in PRECISE:
            args, kwargs = tree_map(_high, (args, kwargs))
        return func(*args, **kwargs)

    def _low(self, value: Any) -> Any:
        """A tensor in bfloat16; of a parameter one copy, as autocast keeps it."""
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.dtype == torch.bfloat16:
            return value
        if not isinstance(value, nn.Parameter):
            return value.to(torch.bfloat16)
        if id(value) not in self.cast:
            self.cast[id(value)] = value.to(torch.bfloat16)
        return self.cast[id(value)]


def _high(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.bfloat16 else value


PRODUCTS = {F.linear, F.conv1d, F.conv2d, torch.matmul, torch.bmm, torch.mm, Tensor.matmul, Tensor.__matmul__}
PRECISE = {
    *(F.layer_norm, torch.layer_norm, F.group_norm, torch.group_norm, F.cross_entropy, torch.logsumexp),
    *(F.softmax, F.log_softmax, torch.softmax, torch.log_softmax, torch.exp, torch.log),
    *(Tensor.softmax, Tensor.log_softmax, Tensor.logsumexp, Tensor.exp, Tensor.log),
}


@contextmanager
def counting(network: nn.Module, *, half: bool = False) -> Iterator[tuple[Counter, Callable[[], None]]]:
    """A counter of what is done inside, and what tells it that the forward pass is over (it ends autocast's copies)."""
    counter = Counter(network)
    functions = _Functions(counter, half)
    with ExitStack() as stack:
        stack.callback(counter.close)
        stack.enter_context(counter)
        inner = stack.enter_context(ExitStack())
        inner.enter_context(functions)

        def over() -> None:
            counter.forward_over()
            functions.cast.clear()
            inner.close()

        yield counter, over
