"""What help says beside a command's options: real examples, shipped models, recipes, orders. Needs no torch."""

from __future__ import annotations

import textwrap
from importlib import resources

from unmask.command_line.catalogue import ORDERS

RECIPES = (
    *(
        "digits",
        "digits_md4",
        "digits_upscale4",
        "digits_upscale16",
        "digits_autoregressive",
        "emoji",
        "pictures",
    ),
    *(
        "molecules",
        "records",
        "lines",
        "lo_nae_sat",
        "zebra",
        "sudoku",
        "sudoku_hard",
        "sudoku_equivariant",
        "sudoku_solver",
        "sudoku_fixed",
        "sudoku4",
        "sudoku4_solver",
        "sudoku4_fixed",
        "sudoku6",
        "sudoku6_solver",
        "sudoku6_fixed",
    ),
    *("text", "text_md4", "text_genmd4", "text_d3pm", "text_autoregressive", "text_pi"),
    *("text8", "owt-small", "owt-medium", "cifar10", "imagenet64"),
    *("ardm-text8", "ardm-cifar10", "ardm-cifar10-upscale4", "ardm-sc09"),
)
"""Names of `recipes.all_recipes`, which is not imported here, for that takes torch; a test compares them."""

CODED = ("random", "left-to-right", "bisection", "confidence", "margin", "entropy")
"""Names of `codec.ORDERS`, likewise."""

EXAMPLES = {
    "demo": ("unmask demo", "unmask demo --num 100 --precision float32"),
    "train": (
        "unmask train sudoku --optimiser.steps 200 --batch-size 64",
        "unmask train digits --out runs/digits --device cuda",
        "unmask train lines --data.folder mine --out runs/mine",
        "unmask train sudoku --fields",
        "unmask train owt-small --dry-run --devices 8 --accumulate 4",
        "unmask train --start esm2_folder --data mine.fasta --optimiser.steps 1000",
    ),
    "eval": (
        "unmask eval sudoku --generate 34 -n 50 --order margin --greedy",
        "unmask eval text text/test --exact 4",
        "unmask eval runs/mine mine/test --calls 4,8,16 --json > orders.json",
        "unmask eval molecules my.smi --json > report.json",
        "unmask eval text wiki.test.raw --zero-shot wikitext2",
    ),
    "sample": (
        "unmask sample sudoku --prompt puzzles.txt --order margin --greedy --pretty",
        "unmask sample molecules -n 100 --plan 2 > samples.smi",
        "unmask sample digits -n 64 --out sheet.png",
        "unmask sample sudoku_hard --prompt puzzles.txt --order margin --beam 8",
    ),
    "judge": (
        "unmask judge smiles samples.smi --against molecules/test --training molecules/train",
        "unmask sample text -n 20 | unmask judge text -",
    ),
    "profile": (
        "unmask profile sudoku -o profile.json",
        "unmask profile text text/valid -n 256 --plot h.svg",
    ),
    "plan": ("unmask plan profile.json --steps 16 -o plan.json", "unmask plan profile.json --max-kl 0.5"),
    "tune": (
        "unmask tune text text/valid --calls 4,8,16,32 -o tuned",
        "unmask tune sudoku --generate 34 --calls 2,4,8 -n 200",
        "unmask tune molecules my.smi --calls 8,16 --task infill --share 0.5",
        "unmask sample text -n 4 --sampler tuned/sampler_16.json",
    ),
    "compress": (
        "unmask compress text book.txt -o book.umz",
        "unmask compress records log.jsonl --jsonl -o log.umz --calls 64",
        "unmask compress digits scans --images -o scans.umz",
    ),
    "decompress": (
        "unmask decompress book.umz -o back",
        "unmask decompress log.umz > log.jsonl",
        "unmask decompress log.umz --item 7",
    ),
    "inspect": ("unmask inspect book.umz", "unmask inspect book.umz --json"),
    "report": (
        "unmask sample text -n 4 --json --trace > text.json && unmask report text.json",
        "unmask report profile.json plan.json tuned runs/digits log.umz -o look.html",
        "unmask report text.json -o text.gif",
    ),
    "data": (),
    "data prepare": (
        "unmask data prepare book.txt --as text8 -o book",
        "unmask data prepare molecules.csv --as smiles --column SMILES -o mols --split train=0.9 valid=0.1",
    ),
    "data fetch": ("unmask data fetch --list", "unmask data fetch molecules"),
    "data check": ("unmask data check book",),
    "orders": ("unmask orders", "unmask orders --json"),
    "doctor": ("unmask doctor",),
    "completion": ("unmask completion bash > ~/.local/share/bash-completion/completions/unmask",),
}
"""Every command, with lines that one could type."""

COMMANDS = tuple(EXAMPLES)


def shipped() -> list[str]:
    """Names of the models that come with the package."""
    place = resources.files("unmask") / "pretrained"
    return sorted(p.name for p in place.iterdir() if (p / "config.json").is_file()) if place.is_dir() else []


TAKES_MODEL = ("demo", "eval", "sample", "profile", "tune", "compress")


def more(name: str) -> str:
    """What follows the options in the help of a command; nothing where no command is named."""
    lists = []
    if name in TAKES_MODEL:
        lists.append(("models", shipped()))
    if name == "train":
        lists.append(("recipes", list(RECIPES)))
    if name in ("eval", "sample"):
        lists.append(("orders (`unmask orders` tells what each does)", list(ORDERS)))
    if name == "compress":
        lists.append(("orders", list(CODED)))
    text = "".join(f"{title}:\n{_filled(names)}\n" for title, names in lists)
    examples = "".join(f"  {line}\n" for line in EXAMPLES.get(name, ()))
    return text + (f"examples:\n{examples}" if examples else "")


def _filled(names: list[str]) -> str:
    return textwrap.fill(
        ", ".join(names), 80, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
    )
