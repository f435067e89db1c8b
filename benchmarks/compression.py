"""How small do single items become? Archives of real data beside general-purpose compressors, exactness and speed.

Run: python benchmarks/compression.py molecules [--items 5000] [--parts sizes exact speed] [--write], or records, text,
digits. Needs ``unmask data fetch`` of the data and ``pip install zstandard brotli pillow``.
"""

from __future__ import annotations

import argparse
import io
import lzma
import math
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import brotli
import numpy as np
import record
import torch
import zstandard
from numpy.typing import NDArray
from PIL import Image

import unmask
from unmask import codec, profiles
from unmask.codec.settings import full_passes
from unmask.command_line import sequences
from unmask.command_line.commands.archives.compress import suited
from unmask.data import tokens as folders
from unmask.data.readers.text import text8
from unmask.data.sources.cache import cache as cache_folder
from unmask.data.vocabularies import Bytes, Levels
from unmask.models import measured_profile

Pack: TypeAlias = Callable[[bytes], bytes]


def general(training: Sequence[bytes]) -> dict[str, Pack]:
    """General-purpose compressors at their strongest, headers as small as they go; the last has a trained dictionary."""
    dictionary = zstandard.train_dictionary(112_640, list(training))
    bare: dict[str, Any] = {"write_checksum": False, "write_content_size": False, "write_dict_id": False}
    lean = zstandard.ZstdCompressionParameters.from_level(22, **bare)
    plain = zstandard.ZstdCompressor(compression_params=lean)
    trained = zstandard.ZstdCompressor(compression_params=lean, dict_data=dictionary)
    raw = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
    return {
        "zlib -9 (no header)": lambda data: zlib.compress(data, 9, -15),
        "zstd -22": plain.compress,
        "xz -9e (no header)": lambda data: lzma.compress(data, lzma.FORMAT_RAW, filters=raw),
        "brotli -11": lambda data: brotli.compress(data, quality=11, lgwin=24),
        "zstd -22, trained dictionary": trained.compress,
    }


def pictures(shape: tuple[int, ...]) -> dict[str, Pack]:
    """Lossless image formats, of an image's raw pixels."""

    def saved(data: bytes, kind: str, **how: Any) -> bytes:
        file = io.BytesIO()
        Image.fromarray(np.frombuffer(data, np.uint8).reshape(shape)).save(file, kind, **how)
        return file.getvalue()

    return {
        "PNG, optimised": lambda data: saved(data, "PNG", optimize=True),
        "WebP lossless": lambda data: saved(data, "WEBP", lossless=True, quality=100, method=6),
    }


def together(items: Sequence[bytes], packs: dict[str, Pack], separator: bytes) -> dict[str, int]:
    """Bytes of the whole set as one file."""
    whole = separator.join(items)
    return {name: len(pack(whole)) for name, pack in packs.items() if "dictionary" not in name}


def one_by_one(items: Sequence[bytes], packs: dict[str, Pack]) -> dict[str, NDArray[np.int64]]:
    """Bytes of every item on its own."""
    return {name: np.array([len(pack(item)) for item in items]) for name, pack in packs.items()}


# --- data -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Set:
    """Where the items of a kind come from."""

    train: str
    test: str
    images: bool = False


SETS = {
    "molecules": Set("molecules/train", "molecules/test"),
    "records": Set("fingerprints/train", "fingerprints/test"),
    "text": Set("glosses/train", "glosses/test"),
    "digits": Set("mnist/train", "mnist/test", images=True),
}


PLAIN = ("glosses/train", "glosses/test")
"""Sets that are compressed, by every program, in the 27 symbols of text8, which are all that the model `text` has."""


def items_of(place: str, count: int) -> list[bytes]:
    """Items of a fetched set, evenly spread over it: text in UTF-8, or pixels."""
    data = folders.load(cache_folder() / place)
    chosen = np.linspace(0, data.items - 1, min(count, data.items)).round().astype(int)
    if isinstance(data.vocabulary, Levels):
        return [data.item(int(i)).astype(np.uint8).tobytes() for i in chosen]
    if isinstance(data.vocabulary, Bytes):
        found = [bytes(data.item(int(i)).tolist()) for i in chosen]
        return [text8(item.decode()).encode() for item in found] if place in PLAIN else found
    return [str(data.vocabulary.decode(data.item(int(i)))).encode() for i in chosen]


def as_items(model: unmask.Model, data: list[bytes]) -> list[Any]:
    """Items as `compress` takes them."""
    if not isinstance(model.vocabulary, Levels):
        return list(data)
    return [np.frombuffer(d, np.uint8).reshape(SHAPE) for d in data]


# --- what is measured -------------------------------------------------------------------------------


def sizes(
    model: unmask.Model, items: list[Any], symbols: int, settings: codec.Settings, name: str, scored: int
) -> tuple[dict[str, Any], bytes]:
    """One row: payload, likelihood and whole archive of items under a plan; encoding and decoding time."""
    began = time.perf_counter()
    archive = codec.compress(model, items, **keywords(settings), verify=False)
    encoded = time.perf_counter()
    back = list(codec.decompress(model, archive))
    decoded = time.perf_counter()
    nats = codec.scored(model, items, settings) if len(items) <= scored else []
    found = codec.inspect(archive).summary
    coded = [n for n in nats if n is not None]
    n, bits = len(items), 8 / math.log(2) / 8
    row = {
        "calls": name,
        "items": n,
        "full passes an item": mean_passes(settings, codec.of_model(model), items),
        "coded by the model, %": 100 * (found.kinds["coded"] + found.kinds["coded with escapes"]) / n,
        "likelihood, bits an item": -sum(coded) * bits / len(coded) if coded else "",
        "payload, bits an item": 8 * found.payload_bytes / n,
        "payload, bits a symbol": 8 * found.payload_bytes / symbols,
        "payload, bytes an item": found.payload_bytes / n,
        "archive, bytes an item": found.bytes / n,
        "encode, items a second": n / (encoded - began),
        "decode, items a second": n / (decoded - encoded),
        "exact": all(same(a, b) for a, b in zip(items, back)),
    }
    return row, archive


def mean_passes(settings: codec.Settings, subject: codec.Subject, items: list[Any]) -> float:
    """Network calls of an item in full passes."""
    plan = settings.plan if callable(settings.plan) else (lambda n: (1,) * n)
    total = 0.0
    for item in items:
        for n in row_lengths(subject, len(item) if not isinstance(item, np.ndarray) else item.size):
            total += full_passes(plan(n), settings.substeps)
    return total / len(items)


def row_lengths(subject: codec.Subject, symbols: int) -> list[int]:
    """Positions of each row of an item: full rows and what is left."""
    whole, rest = divmod(symbols, subject.length)
    return [subject.length] * whole + ([rest] if rest else [])


def keywords(settings: codec.Settings) -> dict[str, Any]:
    """Settings as `codec.compress` takes them."""
    return {name: getattr(settings, name) for name in ("plan", "order", "seed", "substeps")}


def same(one: Any, other: Any) -> bool:
    """Whether an item came back bit for bit."""
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and one.shape == other.shape and bool((one == other).all())
    return as_bytes(one) == as_bytes(other)


def as_bytes(item: Any) -> bytes | None:
    """A text's bytes."""
    return item.encode() if isinstance(item, str) else item


@dataclass(frozen=True)
class Noisy:
    """A denoiser whose every finite log-probability is off by up to ``bound`` nats, in another way at every call."""

    base: Any
    bound: float
    random: torch.Generator

    @property
    def mask_id(self) -> int:
        """The base's."""
        return int(self.base.mask_id)

    @property
    def vocab_size(self) -> int:
        """The base's."""
        return int(self.base.vocab_size)

    def __call__(self, tokens: torch.Tensor, rows: torch.Tensor | None = None, **more: Any) -> torch.Tensor:
        """The base's law, disturbed."""
        return self.disturbed(self.base(tokens, rows, **more))

    def full(self, *words: Any, **more: Any) -> tuple[torch.Tensor, Any]:
        """The base's law, disturbed, and its cache."""
        law, cache = self.base.full(*words, **more)
        return self.disturbed(law), cache

    def partial(self, *words: Any, **more: Any) -> torch.Tensor:
        """The base's law, disturbed."""
        return self.disturbed(self.base.partial(*words, **more))

    def disturbed(self, law: torch.Tensor) -> torch.Tensor:
        """A law with noise."""
        noise = torch.rand(law.shape, dtype=torch.float64, generator=self.random) * 2 - 1
        return law + self.bound * noise


def exactness(model: unmask.Model, items: list[Any], how: codec.Settings, noisy: int) -> list[dict[str, Any]]:
    """Round trips across batch sizes and threads, and with disturbed logits on the decoder's side."""
    rows: list[dict[str, Any]] = []

    def tell(what: str, count: int, archive: bytes, back: list[Any], wanted: list[Any]) -> None:
        wrong = sum(not same(a, b) for a, b in zip(wanted, back))
        escaped = codec.inspect(archive).summary.kinds["coded with escapes"]
        lost = sum(item is None for item in back)
        rows.append({"what": what, "items": count, "items with escapes": escaped, "not exact": wrong})
        rows[-1] |= {"reported as damaged": lost, "silently wrong": wrong - lost}
        print(rows[-1], flush=True)

    threads = torch.get_num_threads()
    for first, then in (((2, 64), (1, 1)), ((1, 1), (2, 64))):
        some = items if first[1] > 1 else items[: max(50, len(items) // 10)]
        torch.set_num_threads(first[0])
        archive = codec.compress(model, some, **keywords(how), batch=first[1], verify=False)
        torch.set_num_threads(then[0])
        part = some if then[1] > 1 else some[: max(50, len(some) // 10)]
        whole = codec.Archive(model, archive, batch=64)
        back = [whole.item(i) for i in range(len(part))] if then[1] == 1 else list(whole.items())
        name = "written with {} threads, batches of {}; read with {}, {}".format(*first, *then)
        tell(name, len(part), archive, back, part)
    torch.set_num_threads(threads)
    subject = codec.of_model(model)
    some = items[:noisy]
    for band, bound in ((1e-9, 1e-9), (1e-4, 1e-4), (1e-4, 1e-2)):
        archive = codec.compress(model, some, **keywords(how), band=band, verify=False, shorter=False)
        noisy_law: Any = Noisy(subject.denoiser, bound, torch.Generator().manual_seed(1))
        disturbed = replace(subject, denoiser=noisy_law)
        back = list(codec.decompress(disturbed, archive, errors="skip"))
        tell(f"band {band:g}, decoder's logits off by up to {bound:g}", len(some), archive, back, some)
    return rows


def bound_row(model: unmask.Model, data: Path, count: int) -> dict[str, Any]:
    """The bound over random orders, to stand above likelihood and payload, bits an item."""
    posed = sequences.read(model, data, count, seed=0)
    measure, about = sequences.estimator(model, 4, seed=0)
    nats = sequences.nats_of(posed, measure)
    return {
        "calls": f"{about} ({count} sequences)",
        "items": count,
        "likelihood, bits an item": float(nats.mean()) / math.log(2),
    }


SHAPE = (28, 28)
NOTES = """
Model {model}, weights {hash}, {steps} training steps; {items} items of {test}, evenly spread{plain}; raw size {raw:.1f}
bytes an item. Payload: the coded streams and stored items, without header and index ("archive" has them). Likelihood: exact
-log p along the same order and plan. K is a share of the N positions of a full row, in full passes; S sub-steps
run the positions of their step again, S - 1 passes more in all, which K counts. Plans of random order and
bisection are optimal for the profile that ships with the model, or equal steps without one.
Rows of all items: what `unmask compress --calls` does.
General-purpose compressors get each item alone; "whole set" is one file of all of
them. The dictionary (110 KB) is trained on {training} training items. One thread unless said otherwise; verification off
(it would add a decoding). Times of a machine that did other things as well.
"""


def main() -> None:
    """Prints, and with --write records, what was asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=list(SETS))
    parser.add_argument("--model", help="default: the shipped one of that name")
    parser.add_argument("--items", type=int, default=500, help="for the last of the shares")
    parser.add_argument("--some", type=int, default=256, help="for the other shares")
    parser.add_argument("--single", type=int, default=50, help="items for one position per call")
    parser.add_argument(
        "--scored",
        type=int,
        default=512,
        help="items up to which the likelihood is computed: as long as encoding",
    )
    parser.add_argument("--exact", type=int, default=500, help="items for exactness")
    parser.add_argument("--exact-share", type=float, default=0.1, help="calls for these, as a share of N")
    parser.add_argument("--noisy", type=int, default=100, help="of these with disturbed logits")
    parser.add_argument("--profiled", type=int, default=512)
    parser.add_argument("--training", type=int, default=20_000, help="items for the dictionary")
    parser.add_argument("--shares", type=float, nargs="*", default=[0.25, 0.1])
    parser.add_argument("--parts", nargs="*", default=["sizes", "exact"])
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    model, where = unmask.load(options.model or options.name), SETS[options.name]
    raw = items_of(where.test, options.items)
    found: dict[str, list[dict[str, Any]]] = {}
    profile = measured(model, where, options.profiled)
    if "sizes" in options.parts:
        found["sizes"] = coded(model, profile, raw, options)
        found["others"] = others(where, raw, options.training)
    if "exact" in options.parts:
        calls = math.ceil(options.exact_share * model.length)
        how = suited(model, codec.of_model(model), calls, None, None, 0)
        some = as_items(model, items_of(where.test, options.exact))
        found["exactness"] = exactness(model, some, how, options.noisy)
    facts = {"model": model.name, "hash": model.hash, "steps": model.config.get("trained_steps")}
    plain = ", in text8's 27 symbols" if where.test in PLAIN else ""
    mean = float(np.mean([len(item) for item in raw]))
    notes = NOTES.format(
        **vars(options) | facts | {"items": len(raw), "test": where.test, "raw": mean, "plain": plain}
    )
    for name, rows in found.items():
        print(f"\n{name}\n" + "\n".join(record.table(rows)))
    if options.write:
        print(record.write_parts(f"compression_{options.name}", found, notes))


def measured(model: unmask.Model, where: Set, count: int) -> unmask.Profile:
    """The profile that ships with the model, or one from training items, smoothed."""
    if (shipped := measured_profile(model)) is not None:
        return shipped
    place = "text/valid" if model.name == "text" else where.train
    tokens = sequences.read(model, Path(place), count, seed=1).tokens
    raw = profiles.measure(
        model.denoiser, tokens, generator=torch.Generator().manual_seed(0), rounds=2, end=model.end
    )
    return profiles.smooth(raw)


def coded(
    model: unmask.Model, profile: unmask.Profile, raw: list[bytes], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Rows for every plan: what `unmask compress` does at each number of calls, and on fewer items the alternatives."""
    subject, single = codec.of_model(model), options.single
    cases = [("K = N, random order", codec.Settings(1, codec.RANDOM), single)]
    if model.config["order"] == codec.LEFT_TO_RIGHT.name:
        cases.append(("K = N, left to right", codec.Settings(1, codec.LEFT_TO_RIGHT), single))
    best = [
        suited(model, subject, math.ceil(share * model.length), None, None, 0) for share in options.shares
    ]
    counts = [options.some] * (len(best) - 1) + [len(raw)]
    cases += [(title(share, how), how, n) for share, how, n in zip(options.shares, best, counts)]
    cases.append((f"{title(options.shares[0], best[0])}, on fewer items", best[0], single))
    plan = unmask.plans.for_counts(profile, share=options.shares[0])
    taken = {best[0].order.name if best[0].order else ""}
    others = [
        codec.Settings(plan, order) for order in codec.ORDERS if order.name in {"random", "bisection"} - taken
    ]
    cases += [(f"{title(options.shares[0], how)}, on fewer items", how, single) for how in others]
    rows: list[dict[str, Any]] = []
    for name, settings, count in (case for case in cases if case[2] > 0):
        some = raw[:: max(1, len(raw) // count)][:count]
        row, _ = sizes(model, as_items(model, some), sum(map(len, some)), settings, name, options.scored)
        rows.append(row)
        print(row, flush=True)
    if model.name != "text" and options.single:  # a bound of whole stretches says nothing about short texts
        rows.append(bound_row(model, Path(SETS[options.name].test), options.single))
    return rows


def title(share: float, how: codec.Settings) -> str:
    """A row's name."""
    order = how.order.name if how.order else "random"
    return f"K = {share:g} N, {order}" + (f", {how.substeps} sub-steps" if how.substeps > 1 else "")


def others(where: Set, raw: list[bytes], training: int) -> list[dict[str, Any]]:
    """General-purpose compressors on the same items."""
    packs = pictures(SHAPE) if where.images else general(items_of(where.train, training))
    if where.images:
        packs |= {k: v for k, v in general(items_of(where.train, 2000)).items() if "zstd" in k or "xz" in k}
    whole = together(
        raw, {k: v for k, v in packs.items() if k[:3] not in ("PNG", "Web")}, b"" if where.images else b"\n"
    )
    return [
        {
            "compressor": name,
            "bytes an item, each alone": float(alone.mean()),
            "bits a byte": 8 * float(alone.sum()) / sum(map(len, raw)),
            "bytes an item, whole set": whole[name] / len(raw) if name in whole else "",
        }
        for name, alone in one_by_one(raw, packs).items()
    ]


if __name__ == "__main__":
    main()
