"""Train on your own FASTA, CSV or images: prepare, train, measure on what was held out, sample. The same four steps
for each.

    python examples/train_on_own.py chains.fasta --out runs/chains [--steps 300]
    python examples/train_on_own.py table.csv --column smiles --out runs/table
    python examples/train_on_own.py train-images-idx3-ubyte.gz --out runs/pictures      # or a folder of PNG files

Items are split by a hash of their content: 90 % train, 10 % held out. The commands that do the same, with the
recipe's own network, are printed. A few hundred steps show that it learns; a good model takes thousands (`unmask
train RECIPE --dry-run` tells how long). It printed, in 12 s of processor
(1,148 real heavy chains of antibodies, one of each clone, `--steps 100`, long before it is good):

    unmask data prepare chains.fasta -o run/data --as fasta --split train=0.9 test=0.1
    unmask train records --out run --data.folder run/data --optimiser.steps 100
    held out: 2.80 nats a symbol (bound); a blind guess costs 3.00
    16 calls: ['TSALSGLVLSSYGVPWMSYGHVRAQSASSSSKWYKQQVSQYYARRSTIRYRCSQNCRGCTYHISASLQVAA', ..]
"""

import argparse
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

import unmask
from unmask import recipes
from unmask.data.prepare import READINGS, prepare
from unmask.data.readers import lines
from unmask.training import train

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("file", type=Path, help="FASTA, CSV, an IDX file, or a folder of PNG files")
parser.add_argument("--out", type=Path, required=True, help="a new folder for data and run")
parser.add_argument("--column", help="the column of a CSV file")
parser.add_argument("--steps", type=int, default=300)
parser.add_argument("--width", type=int, default=96, help="of the network")
options = parser.parse_args()

name = options.file.name
kind = "png" if options.file.is_dir() else "idx" if "idx" in name else "smiles" if ".csv" in name else "fasta"
reading, data = READINGS[kind], options.out / "data"
if options.column:  # `smiles` also reads a column of a CSV file, whatever it holds
    read = partial(lines.smiles, column=options.column)
    reading = replace(reading, read=read, name=f"smiles, column {options.column}")
own = f" --column {options.column}" if options.column else ""
print(f"unmask data prepare {options.file} -o {data} --as {kind}{own} --split train=0.9 test=0.1")
train_part, test = prepare([options.file], data, reading, split={"train": 0.9, "test": 0.1}, quiet=True)

pictures = reading.kind == "images"
run = recipes.digits() if pictures else recipes.records()
print(f"unmask train {run.name} --out {options.out} --data.folder {data} --optimiser.steps {options.steps}")
if pictures:
    height, width = test.manifest["shape"][:2]
    network = replace(run.network, height=height, width=width, features=options.width, blocks=1)
else:
    longest = max(train_part.longest, test.longest) + 1
    network = replace(run.network, length=longest, width=options.width, depth=2, hidden=2 * options.width)
run = replace(run, data=replace(run.data, folder=str(data)), network=network, batch_size=16)
run = replace(run, optimiser=replace(run.optimiser, steps=options.steps, warmup=20))
model = unmask.load(train(replace(run, machine=replace(run.machine, compile=False)), options.out, quiet=True))

items = [test.item(i) for i in range(min(64, test.items))]
if pictures:
    tokens = torch.stack([torch.as_tensor(item).long() for item in items])
else:
    tokens = model.encode([test.vocabulary.decode(item) for item in items])
bound = model.nelbo(tokens, generator=torch.Generator().manual_seed(0), samples=4).value.mean()
symbols, blind = sum(map(len, items)) / len(items), math.log(test.vocabulary.size)
print(f"held out: {bound / symbols:.2f} nats a symbol (bound); a blind guess costs {blind:.2f}")
made = model.sample(2, order="random", calls=16, seed=1)
print(f"16 calls: {tuple(made.tokens.shape) if pictures else model.decode(made.tokens)}")
