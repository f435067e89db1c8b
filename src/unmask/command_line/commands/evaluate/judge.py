"""``unmask judge``: how good are samples, ours or those of any other program: texts one a line, or pictures?"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from unmask.command_line.options import in_range
from unmask.command_line.output import Report, number, percent, share
from unmask.data import files
from unmask.data import tokens as folders
from unmask.data.readers.images import array, png
from unmask.data.sources.cache import cache
from unmask.data.vocabularies import Levels
from unmask.evaluation import judges

FEWEST = 50
"""Valid molecules below which a Fréchet distance would say nothing."""


def run(kind: str, samples: Path, against: Path | None, training: Path | None, num: int) -> Report:
    """What a judge says of ``samples`` (``-``: standard input); SMILES are also compared with two token folders."""
    in_range("num", num, 1)
    files.once(samples, against, training)
    if kind not in JUDGES:
        raise ValueError(f"kind '{kind}': expected one of {', '.join(JUDGES)}")
    return {"command": "judge", "kind": kind} | JUDGES[kind](samples, against, training, num)


def _smiles(samples: Path, against: Path | None, training: Path | None, num: int) -> Report:
    """Validity, uniqueness, novelty against ``training``, and the Fréchet ChemNet distance to ``num`` of ``against``."""
    texts = _lines(samples)
    seen = frozenset() if training is None else frozenset(_items(training, None))
    found = judges.molecules(texts, seen)
    report: Report = {
        "samples": len(texts),
        "valid": share(found.valid, len(texts), "samples", "parsed by RDKit"),
        "unique": share(found.unique, found.valid, "valid samples", "distinct canonical SMILES"),
    }
    if training is not None:
        about = f"canonical SMILES not among the lines of {training}"
        report["novel"] = share(found.novel, found.unique, "unique samples", about)
    if against is not None:
        report["fcd"] = _distance(found, against, num)
    return report


def _distance(found: judges.Molecules, against: Path, num: int) -> Report:
    """The Fréchet ChemNet distance of the valid samples; ValueError where there are too few."""
    if found.valid < FEWEST:
        raise ValueError(f"{found.valid} valid samples; a Fréchet distance needs at least {FEWEST}")
    real = _items(against, num)
    value = judges.frechet(judges.chemnet(found.canonical), judges.chemnet(real))
    about = f"Fréchet ChemNet distance of {found.valid} valid samples to {len(real)} of {against}"
    return number(value, "squared feature distance", f"{about}, biased upwards for few")


def _english(samples: Path, against: Path | None, training: Path | None, num: int) -> Report:  # noqa: ARG001
    """A judge's nats per word with the entropy of the words, without which it means little."""
    texts = _lines(samples)
    words = [text.split() for text in texts]
    cost = judges.judged(texts)
    about = "trigram model of CMU pocketsphinx, unknown words 13.8 nats"
    return {
        "samples": len(texts),
        "judge": number(cost, "nats per word", about),
        "judge_perplexity": number(math.exp(cost), "per word", "exp(nats per word)"),
        "word_entropy": number(judges.entropy(words), "nats per word", "unigrams of all samples"),
        "character_entropy": number(judges.entropy(texts), "nats per character", "unigrams of all samples"),
    }


def _images(samples: Path, against: Path | None, training: Path | None, num: int) -> Report:
    """The Fréchet distance of pictures to ``num`` real ones, on EfficientNet-Lite0's features."""
    if training is not None:
        raise ValueError("images know no novelty; expected no --training")
    if against is None:
        raise ValueError("images are judged against real ones; expected --against DATA")
    found, real = _pictures(samples, None), _pictures(against, num)
    for place, some in ((samples, found), (against, real)):
        if len(some) < FEWEST:
            raise ValueError(f"{place} has {len(some)} images; a Fréchet distance needs at least {FEWEST}")
    value = judges.frechet(judges.efficientnet(found), judges.efficientnet(real))
    about = (
        f"Fréchet distance of {len(found)} samples to {len(real)} images of {against} on the last 1,280 features "
        "of EfficientNet-Lite0 (ImageNet) at 64x64 pixels, biased upwards for few"
    )
    return {"samples": len(found), "frechet": number(value, "squared feature distance", about)}


def _pictures(given: Path, num: int | None) -> NDArray[np.uint8]:
    """Images of a ``.npy`` file, a folder of PNG files, or a token folder: all, or ``num`` spread over them."""
    place = given if given == files.STANDARD or given.exists() else cache() / given
    if place == files.STANDARD or (place.suffix == ".npy" and place.is_file()):
        images = array(files.read_bytes(place, "images uint8 [n, h, w] of numpy.save"), files.shown(place))
        return images[_spread(len(images), num)]
    if (place / "manifest.json").is_file():
        data = folders.load(place)
        if not isinstance(data.vocabulary, Levels):
            raise ValueError(f"{given} holds no images; expected a token folder of images")
        rows = [data.item(int(i)) for i in _spread(data.items, num)]
        return np.stack(rows).astype(np.uint8).reshape(-1, *data.manifest["shape"])
    found_files = sorted(place.glob("*.png")) if place.is_dir() else []
    if not found_files:
        raise ValueError(
            f"no images in '{given}'; expected a .npy file, a token folder or a folder of PNG files"
        )
    found = [np.asarray(piece.data) for i in _spread(len(found_files), num) for piece in png(found_files[i])]
    if len(shapes := {image.shape for image in found}) > 1:
        raise ValueError(f"the images in {given} have shapes {sorted(shapes)}; expected one size and kind")
    return np.stack(found)


def _spread(count: int, num: int | None) -> NDArray[np.int64]:
    """All of ``count`` places, or ``num`` evenly spread; ValueError unless that is at least one."""
    in_range("num", num, 1)
    return np.arange(count) if num is None else np.linspace(0, count - 1, min(num, count)).round().astype(int)


JUDGES = {"smiles": _smiles, "text": _english, "images": _images}
"""Judges by the kind of samples; each reads its own: (samples, against, training, num) -> numbers."""


def _lines(path: Path) -> list[str]:
    """The first column of every line, empty samples included; what `unmask sample` says in comments is left out."""
    found = files.text_lines(path, None)
    if texts := [line.split("\t")[0] for line in found if not line.startswith("# ")]:
        return texts
    raise ValueError(f"{files.shown(path)} holds no samples; expected one a line")


def _items(place: Path, num: int | None) -> list[str]:
    """Texts of a token folder, or one in the cache: all, or ``num`` spread over it; lines of a text file as well."""
    place = place if place == files.STANDARD or place.exists() else cache() / place
    if place == files.STANDARD or place.is_file():
        lines = files.text_lines(place)
        return lines if num is None else lines[:num]
    data = folders.load(place)
    if isinstance(data.vocabulary, Levels):
        raise ValueError(f"{place} holds images; expected molecules")
    return [str(data.vocabulary.decode(data.item(int(i)))) for i in _spread(data.items, num)]


def render(report: Report, console: Console) -> None:
    """Prints every number with its unit and definition."""
    table = Table("", "value", "unit: definition", box=None)
    for name, found in report.items():
        if isinstance(found, dict):
            value = percent(found) if "interval" in found else f"{found['value']:.3f}"
            table.add_row(name.replace("_", " "), value, f"{found['unit']}: {found['estimator']}")
    console.print(f"{report['samples']} samples")
    console.print(table)
