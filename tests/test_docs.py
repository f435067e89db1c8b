"""Every Python example of the documentation runs, and every script of examples/, small.

Scripts get stand-ins for the data and models that a real run fetches, and a few steps of training.
"""

import contextlib
import io
import json
import re
import runpy
import struct
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_transformers import SIZES, TOKENS

from unmask import recipes
from unmask.data.prepare import READINGS, prepare
from unmask.training import train

ROOT = Path(__file__).parent.parent
PAGES = sorted(p for p in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")] if "```python" in p.read_text())


@pytest.mark.global_random
@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_examples_run(page):
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile("\n".join(blocks), str(page), "exec"), {"__name__": "example"})


def test_links_lead_to_files():
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which does not exist"


# --- scripts of one page ---

EXAMPLES = ROOT / "examples"
WORDS = "and the king said unto her let it be so and she went away to the river with her sisters "
CHAINS = [  # heavy chains of trastuzumab and adalimumab
    "EVQLVESGGGLVQPGGSLRLSCAASGFNIKDTYIHWVRQAPGKGLEWVARIYPTNGYTRYADSVKGRFTISADTSKNTAYLQMNSLRAEDTAVYYCSRWGGDGFYAMDYWGQGTLVTVSS",
    "EVQLVESGGGLVQPGRSLRLSCAASGFTFDDYAMHWVRQAPGKGLEWVSAITWNSGHIDYADSVEGRFTISRDNAKNSLYLQMNSLRAEDTAVYYCAKVSYLSTASSLDYWGQGTLVTVSS",
]


def run(name: str, *options: object) -> str:
    """What an example prints."""
    before, sys.argv = sys.argv, [name, *map(str, options)]
    try:
        with contextlib.redirect_stdout(io.StringIO()) as said:
            runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    finally:
        sys.argv = before
    return said.getvalue()


def tiny(run: recipes.Run, data: Path, folder: Path, **shape: int) -> Path:
    """A model of a recipe after one step of a small network."""
    run = replace(
        run, network=replace(run.network, width=16, depth=1, heads=2, hidden=32, **shape), batch_size=2
    )
    run = replace(run, data=replace(run.data, folder=str(data)), optimiser=replace(run.optimiser, steps=1))
    train(replace(run, machine=replace(run.machine, compile=False, threads=1)), folder, quiet=True)
    return folder


def test_every_example_is_tested():
    tested = Path(__file__).read_text()
    assert all(f'"{example.name}"' in tested for example in EXAMPLES.glob("*.py"))


def test_each_is_of_one_page_and_says_what_it_printed():
    for example in EXAMPLES.glob("*.py"):
        lines = example.read_text().splitlines()
        assert len(lines) <= 90, f"{example.name} has {len(lines)} lines"
        assert "It printed, in" in example.read_text()
        assert "RESULT" not in example.read_text(), f"{example.name} does not say what it printed"


@pytest.mark.global_random
@pytest.mark.filterwarnings("default")
def test_sudoku(tmp_path):
    solution = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
    puzzle = "".join("0" if place % 9 == 0 else digit for place, digit in enumerate(solution))
    (tmp_path / "some.csv").write_text(f"puzzle,solution\n{puzzle},{solution}\n")
    said = run("solve_sudoku.py", "--file", tmp_path / "some.csv")
    assert said.count("100% [") == 5


@pytest.mark.global_random
@pytest.mark.filterwarnings("default")
def test_antibodies(tmp_path):
    transformers = pytest.importorskip("transformers")
    sizes = SIZES | {
        "max_position_embeddings": 130,
        "position_embedding_type": "rotary",
        "token_dropout": False,
    }
    torch.manual_seed(0)
    network = transformers.EsmForMaskedLM(transformers.EsmConfig(**sizes))
    network.save_pretrained(tmp_path / "model")
    (tmp_path / "model/vocab.txt").write_text("\n".join(TOKENS) + "\n")
    (tmp_path / "chains.txt").write_text("".join(f"{chain} 98 106\n" for chain in CHAINS))
    said = run(
        "infill_antibodies.py",
        "--model",
        tmp_path / "model",
        "--chains",
        tmp_path / "chains.txt",
        "--calls",
        3,
    )
    assert "2 chains, loops of 8 to 8 residues" in said
    assert "confidence, 3 calls" in said
    assert f"the first loop {CHAINS[0][98:106]} drawn" in said


@pytest.mark.global_random
@pytest.mark.filterwarnings("default")
def test_text(tmp_path):
    (tmp_path / "words.txt").write_text(WORDS * 40)
    split = {"train": 0.9, "valid": 0.1}
    prepare([tmp_path / "words.txt"], tmp_path / "data", READINGS["text8"], split=split, quiet=True)
    model = tiny(recipes.text(), tmp_path / "data", tmp_path / "model", length=16)
    said = run("plan_text.py", "--model", model, "--text", tmp_path / "words.txt", "--num", 16, "--calls", 4)
    assert "4 calls for 16 characters" in said
    assert said.count("realised") == 4


@pytest.mark.global_random
@pytest.mark.filterwarnings("default")
def test_logs(tmp_path):
    log = [json.dumps({"level": "info", "event": "login", "user": n, "ok": n % 3 > 0}) for n in range(40)]
    (tmp_path / "log.jsonl").write_text("\n".join(log) + "\n")
    prepare(
        [tmp_path / "log.jsonl"],
        tmp_path / "data",
        READINGS["jsonl"],
        split={"train": 0.8, "test": 0.2},
        quiet=True,
    )
    model = tiny(recipes.records(), tmp_path / "data", tmp_path / "model", length=64)
    said = run(
        "archive_logs.py", "--model", model, "--log", tmp_path / "log.jsonl", "--num", 4, "--symbols", 32
    )
    assert "4 records of 5" in said
    assert "come back, no wrong one" in said


@pytest.mark.global_random
@pytest.mark.filterwarnings("default")
def test_own_network(tmp_path):
    (tmp_path / "words.txt").write_text(WORDS * 130)
    said = run("own_network.py", "--steps", 2, "--text", tmp_path / "words.txt")
    assert "exactly, from left to right" in said


@pytest.mark.global_random
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("kind", ["fasta", "csv", "idx"])
def test_own_files(tmp_path, kind):
    rng, options = np.random.default_rng(0), []
    if kind == "fasta":
        chains = ["".join(rng.choice([*"ACDEFGH"], 12)) for _ in range(40)]
        text = "".join(f">{n}\n{chain}\n" for n, chain in enumerate(chains)).encode()
    elif kind == "csv":
        text = (
            "name,smiles\n" + "".join(f"{n},{'C' * (1 + n % 9)}O{'N' * (n % 4)}\n" for n in range(40))
        ).encode()
        options = ["--column", "smiles"]
    else:
        images = rng.integers(0, 256, (30, 8, 8), dtype=np.uint8)
        text = bytes([0, 0, 8, 3]) + struct.pack(">3I", *images.shape) + images.tobytes()
    file = tmp_path / {"fasta": "a.fasta", "csv": "a.csv", "idx": "a-idx3-ubyte"}[kind]
    file.write_bytes(text)
    said = run("train_on_own.py", file, "--out", tmp_path / "run", "--steps", 2, "--width", 16, *options)
    assert "held out:" in said
    assert "16 calls:" in said
