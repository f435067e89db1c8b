"""`unmask judge`: numbers about samples, from files and standard input."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

from unmask.command_line.app import main


def judged(capsys, *words):
    assert main(["judge", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_molecules_are_counted_as_the_sampler_prints_them(tmp_path, capsys):
    pytest.importorskip("rdkit")
    samples, known = tmp_path / "s.txt", tmp_path / "known.smi"
    samples.write_text("# sample\tlog\nCCO\t-1\t3\nOCC\t-1\t3\nc1ccccc1\t-1\t8\nC(C\t-1\t3\n\t-1\t0\n")
    known.write_text("c1ccccc1\n")
    found = judged(capsys, "smiles", samples, "--training", known)
    counts = {k: (found[k]["count"], found[k]["of"]) for k in ("valid", "unique", "novel")}
    assert counts == {"valid": (3, 5), "unique": (2, 3), "novel": (1, 2)}


def test_text_never_goes_without_its_entropy(monkeypatch, capsys):
    pytest.importorskip("pocketsphinx")
    monkeypatch.setattr("sys.stdin", io.StringIO("the the the the\n"))
    found = judged(capsys, "text", "-")
    assert found["word_entropy"]["value"] == 0
    assert found["judge"]["value"] > 0


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [("poems", "a\n", "kind 'poems': expected one of smiles, text"), ("smiles", "", "holds no samples")],
)
def test_bad_questions_are_one_line(tmp_path, capsys, kind, text, message):
    (tmp_path / "s.txt").write_text(text)
    assert main(["judge", kind, str(tmp_path / "s.txt")]) == 2
    assert message in capsys.readouterr().err


def test_images_are_judged_against_real_ones(tmp_path, capsys):
    pytest.importorskip("efficientnet_lite_pytorch")
    r = np.random.default_rng(0)
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", r.integers(0, 256, (60, 8, 8), np.uint8))
    found = judged(capsys, "images", tmp_path / "a.npy", "--against", tmp_path / "b.npy", "--num", 50)
    assert found["frechet"]["value"] > 0
    assert "EfficientNet-Lite0" in found["frechet"]["estimator"]


@pytest.mark.parametrize(
    ("more", "message"),
    [([], "expected --against"), (["--against", "s"], "at least 50"), (["--against", "n"], "no images")],
)
def test_too_few_images_are_refused(tmp_path, monkeypatch, capsys, more, message):
    monkeypatch.chdir(tmp_path)
    np.save("s.npy", np.zeros((3, 8, 8), np.uint8))
    more = ["s.npy" if word == "s" else word for word in more]
    assert main(["judge", "images", "s.npy", *more]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b""), "s.npy is empty"),
        (lambda path: path.write_bytes(b"junk" * 99), "s.npy is no array"),
        (lambda path: np.save(path, np.zeros((60, 8, 8))), "holds float64"),
        (lambda path: np.save(path, np.uint8(3)), "holds uint8 []"),
    ],
)
def test_files_that_hold_no_images_are_named(tmp_path, capsys, make, message):
    make(tmp_path / "s.npy")
    assert main(["judge", "images", str(tmp_path / "s.npy"), "--against", str(tmp_path / "s.npy")]) == 2
    assert message in capsys.readouterr().err


def test_pictures_of_several_sizes_are_refused(tmp_path, capsys):
    image = pytest.importorskip("PIL.Image")
    for n in range(60):
        image.fromarray(np.zeros((8 + n % 2, 8), np.uint8)).save(tmp_path / f"{n:02}.png")
    assert main(["judge", "images", str(tmp_path), "--against", str(tmp_path)]) == 2
    assert "have shapes [(8, 8), (9, 8)]" in capsys.readouterr().err
