"""Recipe `molecules`: drug-like molecules as SMILES, from the 1.58 million of MOSES (arXiv 1811.12823).

The length of a molecule is given (drawn from the lengths of the training part, whose law counts into its bits), and
the network sees where it ends. Half of every batch is masked at random, for any order and plan; the other half from a
position on, for orders from left to right, in which the grammar of SMILES is easiest to keep. Data: ``unmask data
fetch molecules``.
"""

from __future__ import annotations

from unmask.data.vocabularies import SMILES, Characters
from unmask.masking import corruption
from unmask.networks import TransformerConfig
from unmask.networks.transformer import from_config
from unmask.recipes import sequences
from unmask.recipes.run import Machine, Optimiser, Run


def molecules() -> Run:
    """Six blocks, width 256; trained in a few hours on one core."""
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
