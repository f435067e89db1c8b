"""Recipe `records`: JSON records of a few hundred bytes, byte by byte (browser fingerprints of the package user-agents).

Small on purpose: records of one kind share nearly everything, and a codec calls the network once a step. Lengths are
given, as in `molecules`. Data: ``unmask data fetch fingerprints``, or ``--data.folder`` with your own, made by
``unmask data prepare FILE --as jsonl``.
"""

from __future__ import annotations

from unmask.data.vocabularies import Bytes
from unmask.masking import corruption
from unmask.networks import TransformerConfig
from unmask.networks.transformer import from_config
from unmask.recipes import sequences
from unmask.recipes.run import Machine, Optimiser, Run


def records() -> Run:
    """Four blocks, width 128; trained in half an hour on one core."""
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
