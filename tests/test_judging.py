"""`unmask judge`: numbers about samples, from files and standard input."""

from __future__ import annotations

import io
import json

import pytest

from unmask.cli import main


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
