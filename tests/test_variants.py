"""Scores of mutants: each is what its name says, by enumeration on an exact law; and how mutants are written."""

from __future__ import annotations

import csv
import io
import json
from types import SimpleNamespace

import pytest
import torch
from helpers import SMALL_LAWS, Recording, every_sequence

import unmask
from unmask import laws
from unmask.command_line.app import main
from unmask.evaluation import letters, mutants
from unmask.orders import presets

EVERYTHING = every_sequence(SMALL_LAWS["table"](), 4)
LAW = laws.Table(
    torch.logaddexp(SMALL_LAWS["table"]().log_prob(EVERYTHING), torch.tensor(0.01).log()).log_softmax(0), 4
)
JOINT = LAW.log_prob(EVERYTHING).exp()
WILD = torch.tensor([0, 2, 1, 1])
SINGLES = mutants.singles(WILD, range(4), range(3))
DOUBLES = (((0, 1), (3, 2)), ((3, 0), (1, 0)), ((2, 2), (1, 1), (0, 2)))
ALL = (*SINGLES, *DOUBLES)
LEFT = presets.left_to_right()


def conditional(sequence, hidden, place, symbol):
    """p(symbol at place | the sequence outside hidden), by adding up the table."""
    others = [n for n in range(4) if n not in hidden]
    fits = (EVERYTHING[:, others] == sequence[others]).all(1)
    return JOINT[fits & (EVERYTHING[:, place] == symbol)].sum() / JOINT[fits].sum()


def pseudo(sequence, scored=range(4)):
    return sum(conditional(sequence, [n], n, int(sequence[n])).log() for n in scored)


def test_singles_are_all_others_at_each_place():
    assert SINGLES == (((0, 1),), ((0, 2),), ((1, 0),), ((1, 1),), ((2, 0),), ((2, 2),), ((3, 0),), ((3, 2),))
    assert mutants.applied(WILD, DOUBLES).tolist() == [[1, 2, 1, 2], [0, 0, 1, 0], [2, 1, 2, 1]]


@pytest.mark.parametrize("selector", [LEFT, presets.margin(), presets.random()], ids=lambda s: s.name)
@pytest.mark.parametrize("size", [1, 5, 64])
def test_exact_scores_are_differences_of_the_law(selector, size):
    found = mutants.likelihood(LAW, WILD, ALL, selector, batch_size=size)
    wanted = LAW.log_prob(mutants.applied(WILD, ALL)) - LAW.log_prob(WILD[None])
    assert found == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("size", [1, 5, 64])
def test_masked_marginals_are_conditionals_with_all_mutated_positions_masked(size):
    found = mutants.masked_marginals(LAW, WILD, ALL, batch_size=size)
    wanted = []
    for mutant in ALL:
        hidden = [place for place, _ in mutant]
        ratios = [
            conditional(WILD, hidden, place, symbol) / conditional(WILD, hidden, place, int(WILD[place]))
            for place, symbol in mutant
        ]
        wanted.append(torch.stack(ratios).log().sum())
    assert found == pytest.approx(torch.stack(wanted), abs=1e-12)
    exact = mutants.likelihood(LAW, WILD, SINGLES, LEFT)
    assert found[: len(SINGLES)] == pytest.approx(exact, abs=1e-12)  # of an exact law, one by one
    assert (found[len(SINGLES) :] - mutants.likelihood(LAW, WILD, DOUBLES, LEFT)).abs().min() > 1e-3


@pytest.mark.parametrize("size", [1, 5, 64])
@pytest.mark.parametrize("visible", [None, torch.tensor([False, True, False, False])], ids=["all", "prompt"])
def test_pseudo_likelihood_sums_every_scored_position_given_all_others(size, visible):
    scored = [0, 1, 2, 3] if visible is None else [0, 2, 3]
    some = [m for m in ALL if visible is None or all(place != 1 for place, _ in m)]
    found = mutants.pseudo_likelihood(LAW, WILD, some, visible=visible, batch_size=size)
    wanted = [pseudo(row, scored) - pseudo(WILD, scored) for row in mutants.applied(WILD, some)]
    assert found == pytest.approx(torch.stack(wanted), abs=1e-12)


def test_exact_scores_leave_out_a_prompt():
    visible = torch.tensor([False, True, False, False])
    some = [m for m in ALL if all(place != 1 for place, _ in m)]
    found = mutants.likelihood(LAW, WILD, some, LEFT, visible=visible)
    told = unmask.log_likelihood(
        LAW, mutants.applied(WILD, some), LEFT, visible=visible.expand(len(some), 4)
    ) - unmask.log_likelihood(LAW, WILD[None], LEFT, visible=visible[None])
    assert found == pytest.approx(told, abs=1e-12)


def test_wild_type_marginals_read_what_a_network_says_where_nothing_is_masked():
    table = torch.linspace(-2, 3, 64, dtype=torch.float64).sin().view(4, 4, 4)

    def network(tokens):
        assert (tokens != 3).all()
        return torch.stack([table[tokens[:, n], n] for n in range(4)], 1)

    law = table[WILD, torch.arange(4), :3].log_softmax(-1)
    wanted = [sum(law[p, s] - law[p, WILD[p]] for p, s in mutant) for mutant in ALL]
    found = mutants.wild_type_marginals(unmask.from_logits(network, 3, 3), WILD, ALL)
    assert found == pytest.approx(torch.stack(wanted), abs=1e-12)


def test_calls_are_shared():
    """One row for each set of positions: single mutants of a site share theirs, and the wild type's."""
    base = Recording(LAW)
    mutants.masked_marginals(base, WILD, SINGLES)
    assert [len(call[1]) for call in base.calls] == [4]
    base = Recording(LAW)
    mutants.masked_marginals(base, WILD, ALL, batch_size=2)
    assert sum(len(call[1]) for call in base.calls) == 7
    base = Recording(LAW)
    mutants.wild_type_marginals(base, WILD, ALL)
    assert [len(call[1]) for call in base.calls] == [1]
    base = Recording(LAW)
    mutants.pseudo_likelihood(base, WILD, ALL, batch_size=10)
    assert sum(len(call[1]) for call in base.calls) == 4 * (len(ALL) + 1)
    assert max(len(call[1]) for call in base.calls) == 10


@pytest.mark.parametrize(
    "score",
    [
        lambda d, m: mutants.likelihood(d, WILD, m, LEFT),
        lambda d, m: mutants.masked_marginals(d, WILD, m),
        lambda d, m: mutants.pseudo_likelihood(d, WILD, m),
        lambda d, m: mutants.wild_type_marginals(d, WILD, m),
    ],
    ids=["exact", "marginals", "pseudo", "wild type"],
)
def test_every_score_follows_the_law_that_is_asked_and_refuses_what_is_no_mutant(score):
    same = (((0, int(WILD[0])),),)
    assert score(LAW, same).tolist() == [0.0] or score(LAW, same).isnan().all()
    assert score(LAW, ()).shape == (0,)
    forbidden = score(unmask.forbidding(LAW, [[False, True, False]] + [[False] * 3] * 3), SINGLES)
    if not forbidden[1].isneginf():  # which is what the law says of any other symbol where nothing is masked
        assert forbidden[0] == -torch.inf
        assert forbidden[1].isfinite()
    for wrong, message in (
        (((4, 0),), "distinct places in 0..3"),
        (((0, 1), (0, 2)), "distinct places"),
        ((), "at least one"),
        (((0, 3),), "data symbols 0..2"),
    ):
        with pytest.raises(ValueError, match=message):
            score(LAW, [wrong])


def test_tokens_and_prompts_that_do_not_fit_are_one_clear_line():
    with pytest.raises(ValueError, match=r"expected one sequence"):
        mutants.masked_marginals(LAW, WILD[None], SINGLES)
    with pytest.raises(ValueError, match=r"no masks"):
        mutants.masked_marginals(LAW, torch.tensor([0, 3, 1, 1]), SINGLES)
    with pytest.raises(ValueError, match=r"a place is visible"):
        mutants.pseudo_likelihood(LAW, WILD, SINGLES, visible=torch.tensor([True, False, False, False]))
    with pytest.raises(ValueError, match=r"visible has dtype .*expected bool \[4\]"):
        mutants.pseudo_likelihood(LAW, WILD, SINGLES, visible=torch.zeros(3, dtype=torch.bool))


# --- letters ----------------------------------------------------------------------------------------------

TOKENS = ["<cls>", "<pad>", "<eos>", "A", "C", "<odd>", "G", "AB", "T", "<mask>"]


def outside(spaces=True):
    """A model as other people's are: special tokens around, some symbols of several letters, the mask among them."""

    def decode(rows):
        kept = [[TOKENS[i] for i in row if i > 2] for row in rows.tolist()]
        return [(" " if spaces else "").join(row) for row in kept]

    def encode(texts):
        return torch.tensor([[0, *(TOKENS.index(c) for c in text), 2] for text in texts])

    network = unmask.from_logits(lambda tokens: torch.ones(*tokens.shape, 10), 9, 10)
    return SimpleNamespace(
        name="outside", denoiser=network, encode=encode, decode=decode, visible=lambda t: t < 3
    )


@pytest.mark.parametrize("spaces", [True, False])
def test_letters_come_from_what_a_model_decodes(spaces):
    model = outside(spaces)
    known = letters.letters_of(model, model.encode(["GATTACA"])[0])
    assert known.text == "GATTACA"
    assert known.places == (1, 2, 3, 4, 5, 6, 7)
    assert known.symbols == {"A": 3, "C": 4, "G": 6, "T": 8}
    assert known.read("A2T") == ((2, 8),)
    assert known.read("G1C:A7G") == ((1, 4), (7, 6))
    assert known.write(((1, 4), (7, 6))) == "G1C:A7G"
    assert known.region("2-3,7,3") == [2, 3, 7]
    assert known.region("all") == [1, 2, 3, 4, 5, 6, 7]
    assert known.alphabet() == [3, 4, 6, 8]
    assert known.alphabet("TTA") == [8, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "T2A",
            r"mutant T2A: position 2 holds A, expected T: is this the sequence, and are positions counted from 1\?",
        ),
        ("A8T", r"position 8; expected 1\.\.7"),
        ("A0T", r"position 0; expected 1\.\.7"),
        ("A2X", r"no symbol is 'X'; expected one of ACGT"),
        ("A2T:A2C", "a position twice"),
        ("A2", "expected a letter, a position and a letter"),
        ("2T", "expected a letter, a position and a letter"),
        ("", "expected a letter"),
        ("A2T:", "expected a letter"),
    ],
)
def test_what_is_no_mutant_of_the_sequence_is_one_clear_line(text, message):
    model = outside()
    with pytest.raises(ValueError, match=message):
        letters.letters_of(model, model.encode(["GATTACA"])[0]).read(text)


def test_proteins_mutate_to_amino_acids_and_digits_are_letters_too():
    protein = letters.Letters("MKV", (0, 1, 2), {c: n for n, c in enumerate("XBACDEFGHIKLMNPQRSTVWYZ")})
    assert len(protein.alphabet()) == 20
    assert letters.Letters("CCO", (0, 1, 2), {c: n for n, c in enumerate("CON=")}).alphabet() == [0, 1, 2, 3]
    sudoku = letters.Letters("53" * 40, tuple(range(80)), {str(n): n - 1 for n in range(1, 10)})
    assert sudoku.read("5119") == ((10, 8),)  # a 5 at position 11 becomes a 9
    assert letters.is_region("1-3,9")
    assert not letters.is_region("A1T")
    for wrong in ("0-2", "3-2", "80-81"):
        with pytest.raises(ValueError, match=r"expected positions in 1\.\.80"):
            sudoku.region(wrong)


def test_models_without_letters_say_so():
    model = outside()
    model.decode = lambda rows: ["ab"] * len(rows)
    with pytest.raises(ValueError, match="model 'outside' does not write a letter for a symbol"):
        letters.letters_of(model, model.encode(["GATTACA"])[0])


# --- the command line -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def molecules():
    return unmask.load("molecules")


@pytest.fixture
def ethanol(tmp_path):
    path = tmp_path / "wild.smi"
    path.write_text("CCO\n")
    return path


def run(capsys, *words):
    code = main(["eval", "molecules", *map(str, words), "--quiet"])
    return code, *capsys.readouterr()


def test_the_command_prints_what_the_library_says(molecules, ethanol, tmp_path, capsys):
    words = (ethanol, "--mutants", "2-3", "--letters", "NSC", "--by", "exact,marginals,pseudo,wild-type")
    code, out, _ = run(capsys, *words, "--order", "left-to-right", "-o", tmp_path / "m.csv", "--json")
    assert code == 0
    report = json.loads(out)
    tokens = molecules.encode(["CCO"])[0]
    visible = molecules.visible(tokens[None])[0]
    known = letters.letters_of(molecules, tokens)
    some = [known.read(text) for text in ("C2N", "C2S", "O3N", "O3S", "O3C")]
    wanted = {
        "exact": mutants.likelihood(molecules.denoiser, tokens, some, LEFT, visible=visible),
        "marginals": mutants.masked_marginals(molecules.denoiser, tokens, some),
        "pseudo": mutants.pseudo_likelihood(molecules.denoiser, tokens, some, visible=visible),
        "wild-type": mutants.wild_type_marginals(molecules.denoiser, tokens, some),
    }
    assert [row["mutant"] for row in report["mutants"]] == ["C2N", "C2S", "O3N", "O3S", "O3C"]
    for way, values in wanted.items():
        assert [row[way] for row in report["mutants"]] == pytest.approx(values.tolist(), abs=1e-5)
        assert report["scores"][way]["unit"] == "nats"
    table = list(csv.DictReader(io.StringIO((tmp_path / "m.csv").read_text())))
    assert [float(row["pseudo"]) for row in table] == [row["pseudo"] for row in report["mutants"]]
    code, out, _ = run(capsys, *words)
    assert code == 0
    assert "C2N" in out
    assert "masked marginals: log p(mutant) - log p(wild type)" in out


def test_lists_come_from_files_and_sequences_from_fasta(ethanol, tmp_path, capsys):
    fasta, listed, scored = tmp_path / "w.fasta", tmp_path / "m.txt", tmp_path / "m.csv"
    fasta.write_text(">ethanol\nCC\nO\n")
    listed.write_text("C1N\n\nC1N:O3S\n")
    scored.write_text("DMS_score,mutant\n0.5,C1N\n0.25,C1N:O3S\n")
    answers = [
        json.loads(run(capsys, wild, "--mutants", which, "--json")[1])["mutants"]
        for wild in (ethanol, fasta)
        for which in (listed, scored, "C1N,C1N:O3S")
    ]
    assert all(answer == answers[0] for answer in answers)
    assert [row["mutant"] for row in answers[0]] == ["C1N", "C1N:O3S"]
    assert set(answers[0][0]) == {"mutant", "marginals"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["WILD", "--mutants", "N1C"], "position 1 holds C, expected N"),
        (["WILD", "--mutants", "9"], "region 9: expected positions in 1..3"),
        (["WILD", "--mutants", "BAD"], "line 2: mutant 'CC': expected a letter"),
        (["WILD", "--mutants", "none.txt"], "--mutants none.txt: no such file; expected a region"),
        (
            ["WILD", "--mutants", "1", "--by", "magic"],
            "--by magic: expected exact, marginals, pseudo, wild-type",
        ),
        (["WILD", "--mutants", "1", "--letters", "?"], "letter '?': expected some of"),
        (["WILD", "--mutants", "C1N", "--letters", "N"], "--letters is for the mutants of a region"),
        (["WILD", "--by", "exact"], "expected --mutants beside them"),
        (["WILD", "--mutants", "1", "--exact", "3"], "expected no --generate, --num and --exact"),
        (["--mutants", "1"], "--mutants without data"),
        (["TWO", "--mutants", "1"], "holds 2 sequences; expected one"),
        (["WILD", "--mutants", "1", "--by", "exact", "--order", "maskgit"], "has no likelihood"),
        (["WILD", "--mutants", "1", "--json", "-o", "-"], "both write to standard output"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else None,
)
def test_bad_wishes_end_with_two_and_one_line(words, message, ethanol, tmp_path, capsys):
    bad, two = tmp_path / "bad.txt", tmp_path / "two.smi"
    bad.write_text("C1N\nCC\n")
    two.write_text("CCO\nCCN\n")
    names = {"WILD": ethanol, "BAD": bad, "TWO": two}
    code, out, err = run(capsys, *(names.get(w, w) for w in words))
    assert code == 2
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
