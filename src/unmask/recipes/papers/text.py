"""Text of papers: text8 (27 symbols) and OpenWebText (GPT-2's 50,257 tokens)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from unmask.data.vocabularies import TEXT8, Characters, Tokenizer
from unmask.masking import corruption, schedules
from unmask.masking.schedules import Schedule
from unmask.networks import TransformerConfig
from unmask.networks.transformer import from_config
from unmask.recipes import baselines, sequences
from unmask.recipes.papers import optimisers
from unmask.recipes.run import Machine, Run

GPT2 = 50_257
"""Tokens of GPT-2."""


def text8() -> Run:
    """MD4 on text8: 12 blocks, width 768, stretches of 256 characters; 1.37 bits per character published.

    Linear schedule, time told, AdamW .9 / .999, EMA .9999. Learning rate 3e-4 as in the paper; a sweep line in the code has
    5e-4. The paper prints width "784" for 768. Other than in the code: SiLU gates where it has sigmoid, norms with weights
    and no time in the last one, characters embedded into 768 channels at once (there 64, then a dense layer).
    """
    run = Run(
        name="text8",
        network=TransformerConfig(
            vocab_size=len(TEXT8), length=256, width=768, depth=12, heads=12, rotary=True, dropout=0.05
        ),
        data=sequences.Folder("text8"),
        build=from_config,
        batch=sequences.batches(sequences.windows),
        objective=sequences.loss,
        encode=sequences.encode_windows,
        decode=sequences.decode_windows,
        vocabulary=Characters(TEXT8),
        prepare=lambda run: sequences.prepared(run, kind="stream"),
        batch_size=512,
        optimiser=optimisers.md4(
            steps=1_000_000, learning_rate=3e-4, warmup=2000, beta2=0.999, weight_decay=0.03
        ),
        machine=Machine(bfloat16=None, compile=True),
    )
    return baselines.md4(run, sequences.windows, timed=True)


def owt_small() -> Run:
    """MD4-S on OpenWebText: GPT-2 small's 12 blocks of width 768, 1,024 tokens; perplexity 22.13 published.

    As `text8` with dropout .02, and logits at masked positions only, which changes no value. Documents end with GPT-2's
    end-of-text token and are packed.
    """
    network = TransformerConfig(
        vocab_size=GPT2, length=1024, width=768, depth=12, heads=12, rotary=True, timed=True, dropout=0.02
    )
    return replace(
        text8(),
        name="owt-small",
        network=network,
        data=sequences.Folder("openwebtext"),
        objective=sequences.sparse_loss,
        vocabulary=Tokenizer(""),  # comes with the data
    )


def owt_medium() -> Run:
    """MD4-M on OpenWebText: GPT-2 medium's 24 blocks of width 1,024; perplexity 16.64 published.

    As `owt_small` without dropout, and with the cosine schedule. The network is told the share that is hidden in the mean,
    1 - alpha(t), for t: the same, one to one, and what networks of ours are told elsewhere.
    """
    network = TransformerConfig(
        vocab_size=GPT2, length=1024, width=1024, depth=24, heads=16, rotary=True, timed=True
    )
    batch = sequences.batches(sequences.windows, _told_the_share(schedules.cosine(eps=1e-4)))
    return replace(owt_small(), name="owt-medium", network=network, batch=batch)


def _told_the_share(schedule: Schedule) -> corruption.Corrupt:
    """MD4's corruption whose time is the chance 1 - alpha(t) of being hidden, which is the time of the linear schedule."""

    def corrupt(maskable: Tensor, generator: torch.Generator) -> corruption.Corruption:
        hidden = corruption.md4(schedule)(maskable, generator)
        return replace(hidden, time=None if hidden.time is None else 1 - schedule.alpha(hidden.time))

    return corrupt


def ardm_text8() -> Run:
    """Order-agnostic ARDM on text8: 12 blocks, width 768, stretches of 250; 1.43 bits per character published.

    3 million steps as in the paper; the code has 5 million. Adam, learning rate 5e-4 constant after the warm-up, clip .25,
    EMA .995, no dropout, .0001 of plain cross-entropy added, weight decay .001 (code; unverified for the paper's run); no
    time, the code's default. Other than in the code: gated MLPs of hidden width 2,048, which have as many weights as its
    plain ones of 3,072, and rotary positions for sinusoids.
    """
    network = TransformerConfig(vocab_size=len(TEXT8), length=250, width=768, depth=12, heads=12, rotary=True)
    return replace(
        text8(),
        name="ardm-text8",
        network=network,
        batch=sequences.batches(sequences.windows),
        objective=partial(sequences.loss, auxiliary=1e-4),
        optimiser=optimisers.ardm(3_000_000, 5e-4, warmup=5000, clip=0.25, ema=0.995, weight_decay=0.001),
    )
