"""Recipes over short items whose lengths are given, drawn from those of the training part: molecules, records, any lines.

The law of the lengths counts into an item's bits, and the network sees where it ends.
"""

from __future__ import annotations

from dataclasses import replace

from unmask.data import tokens as folders
from unmask.data.vocabularies import SMILES, Bytes, Characters
from unmask.masking import corruption
from unmask.networks import TransformerConfig
from unmask.networks.transformer import from_config
from unmask.recipes import sequences
from unmask.recipes.run import Machine, Optimiser, Run


def molecules() -> Run:
    """Drug-like molecules as SMILES, from the 1.58 million of MOSES (arXiv 1811.12823): six blocks, width 256.

    Half of every batch is masked at random, for any order and plan; the other half from a position on, for orders from
    left to right, in which the grammar of SMILES is easiest to keep. Data: ``unmask data fetch molecules``. Trained in a
    few hours on one core.
    """
    return Run(
        name="molecules",
        network=TransformerConfig(
            vocab_size=len(SMILES) + 1,
            length=58,
            width=256,
            depth=6,
            heads=8,
            hidden=448,
            rotary=True,
            ends=True,
        ),
        data=sequences.Folder("molecules"),
        build=from_config,
        batch=sequences.batches_by_length(corruption.mixed(corruption.exact_count, corruption.next_few)),
        objective=sequences.loss,
        encode=sequences.encode_items,
        decode=sequences.decode_items,
        vocabulary=Characters(SMILES),
        prepare=lambda run: sequences.prepared(run, kind="items"),
        order="left-to-right",
        batch_size=128,
        optimiser=Optimiser(steps=5_000, learning_rate=1e-3, warmup=100, decay=0.3, ema=0.999),
        machine=Machine(bfloat16=None, compile=True),
    )


def records() -> Run:
    """JSON records of a few hundred bytes, byte by byte (browser fingerprints of the package user-agents).

    Small on purpose: records of one kind share nearly everything, and a codec calls the network once a step. Data:
    ``unmask data fetch fingerprints``, or ``--data.folder`` with your own, made by ``unmask data prepare FILE --as
    jsonl``. Four blocks, width 128; trained in half an hour on one core.
    """
    return Run(
        name="records",
        network=TransformerConfig(
            vocab_size=257, length=640, width=128, depth=4, heads=4, hidden=256, rotary=True, ends=True
        ),
        data=sequences.Folder("fingerprints"),
        build=from_config,
        batch=sequences.batches_by_length(corruption.exact_count),
        objective=sequences.loss,
        encode=sequences.encode_items,
        decode=sequences.decode_items,
        vocabulary=Bytes(),
        prepare=lambda run: sequences.prepared(run, kind="items"),
        order="left-to-right",
        batch_size=16,
        optimiser=Optimiser(steps=2_400, learning_rate=1e-3, warmup=100, decay=0.4, ema=0.999),
        machine=Machine(bfloat16=None, compile=True),
    )


LONGEST = 1024
"""Symbols of the longest item that `lines` takes, unless told otherwise."""


def lines() -> Run:
    """Items of your own (lines, FASTA, JSON lines), in a minute of a processor: three blocks, width 64.

    The network is as long as the longest item of any part. Made for a first look, with Muon, which needs few steps: for
    better models raise ``optimiser.steps`` and ``network.width``. Data: ``--data.folder`` with what ``unmask data prepare``
    made.
    """
    run = records()
    return replace(
        run,
        name="lines",
        network=replace(run.network, length=LONGEST, width=64, depth=3, hidden=128),
        prepare=fitted,
        optimiser=Optimiser(steps=800, learning_rate=6e-3, warmup=20, decay=0.4, ema=0.98, muon=True),
        machine=Machine(bfloat16=None),
    )


def fitted(run: Run) -> Run:
    """`sequences.prepared`, and the network made as long as the longest item of the data and of the parts beside it."""
    found = sequences.prepared(run, kind="items")
    place = run.data.place
    beside = place.parent.glob("*/manifest.json") if place.name == run.data.part else ()
    parts = [folders.load(place), *(folders.load(other.parent) for other in beside)]
    longest = min(max(part.longest for part in parts), run.network.length)
    lengths = found.lengths[: longest + 1]
    return replace(found, network=replace(found.network, length=longest), lengths=lengths)
