"""Files at the command line: errors with file and line, line ends, packed files, ``-``, and nothing left behind."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import shutil
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import unmask
from unmask import Profile
from unmask.command_line.app import main
from unmask.planning import measuring

SOLUTION = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
PUZZLE = SOLUTION[:75] + "." * 6
SMILES = b"CCO\nc1ccccc1\n"


@pytest.fixture
def run(capfdbinary, monkeypatch):
    """Runs a command, ``fed`` on standard input: exit code, standard output, standard error."""

    def call(*words: object, fed: bytes | None = None) -> tuple[int, bytes, str]:
        capfdbinary.readouterr()
        if fed is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(fed)))
        code = main([str(word) for word in words])
        out, err = capfdbinary.readouterr()
        return code, out, err.decode()

    return call


@pytest.fixture
def refused(run):
    """The one line of a refusal; nothing is printed beside it."""

    def call(*words: object, fed: bytes | None = None) -> str:
        code, out, err = run(*words, fed=fed)
        lines = [line for line in err.splitlines() if line.startswith("unmask: ")]
        assert (code, out, len(lines)) == (2, b"", 1), err
        return lines[0]

    return call


@pytest.fixture
def document(run):
    def call(*words: object, fed: bytes | None = None):
        code, out, err = run(*words, "--json", fed=fed)
        assert code == 0, err
        return json.loads(out)

    return call


def made(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.fixture
def profile(tmp_path):
    path = tmp_path / "exact.json"
    Profile([0.69, 0.5, 0.3, 0.1]).save(path)
    return path


# --- errors name file and line --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "content", "says"),
    [
        (["eval", "molecules", "FILE"], b"CCO\nCCx\n", "FILE, line 2, column 3: character 'x' is not in"),
        (
            ["eval", "molecules", "FILE"],
            b"CCO\n\n" + b"C" * 59,
            "FILE, line 3: 59 symbols; expected at most 58",
        ),
        (["eval", "molecules", "FILE"], b"CCO\nC\xffO\n", "FILE, line 2, column 2: not UTF-8"),
        (["eval", "molecules", "FILE"], b"", "FILE is empty"),
        (["eval", "molecules", "FILE"], b"\n\n", "FILE holds blank lines only"),
        (
            ["eval", "text", "FILE"],
            b"too short\n",
            "FILE holds no sequence of length 128: it is too short, 9 symbols",
        ),
        (["eval", "text", "FILE"], b"a" * 200 + b"\nb\xff", "FILE, line 2: not UTF-8"),
        (["eval", "sudoku", "FILE"], PUZZLE.encode() + b"\n12\n", "FILE, line 2: puzzle has 2 characters"),
        (["eval", "sudoku", "FILE"], b"", "FILE: no puzzles found"),
        (["sample", "molecules", "--prompt", "FILE"], b"C_O\nCx_\n", "FILE, line 2, column 2: character 'x'"),
        (["sample", "molecules", "--prompt", "FILE"], b"C_O\nCCO\n", "FILE, line 2: no _; expected lines"),
        (
            ["sample", "text", "--prompt", "FILE"],
            b"a" * 129,
            "FILE, line 1: no _; expected lines of at most 128",
        ),
        (["sample", "text", "--prompt", "FILE"], b"a\nthe Cat", "FILE, line 2, column 5: character 'C'"),
        (["sample", "sudoku", "--prompt", "FILE"], b"\n..x\n", "FILE, line 2: puzzle has 3 characters"),
        (["sample", "sudoku", "--plan", "FILE"], b"{}", "--plan FILE: got a record of format None"),
        (["sample", "sudoku", "--plan", "FILE"], b"", "FILE is empty; expected a plan file"),
        (["sample", "sudoku", "--plan", "FILE"], b"\xff", "FILE, line 1: not UTF-8"),
        (["plan", "FILE", "--steps", "2"], b"[", "FILE: got text that is not JSON"),
        (["plan", "FILE", "--steps", "2"], b"", "FILE is empty; expected a profile"),
        (["profile", "molecules", "FILE"], b"CCO\nC C\n", "FILE, line 2, column 2: character ' '"),
        (["profile", "sudoku", "FILE"], b"x" * 81, "FILE, line 1: puzzle has 'x' at character 1"),
        (["judge", "smiles", "FILE"], b"", "FILE holds no samples"),
        (["judge", "text", "FILE"], b"ab\n\xff\n", "FILE, line 2: not UTF-8"),
        (["judge", "images", "FILE.npy", "--against", "FILE.npy"], b"", "FILE.npy is empty"),
        (["decompress", "FILE"], b"", "FILE: field magic"),
        (["inspect", "FILE"], b"not an archive", "FILE: field magic"),
        (["data", "prepare", "FILE", "--as", "jsonl"], b"{}\n{x\n", "FILE, line 2: not JSON"),
        (
            ["data", "prepare", "FILE", "--as", "jsonl", "--field", "t"],
            b'{"t":null}\n',
            "line 1: field 't' holds null",
        ),
        (
            ["data", "prepare", "FILE", "--as", "fasta"],
            b">a\nAC\n>b\n>c\nG\n",
            "FILE, line 3: a header without a seq",
        ),
        (["data", "prepare", "FILE", "--as", "characters"], b"a\nb\xff", "FILE, line 2: not UTF-8 at byte 3"),
        (
            ["data", "prepare", "FILE", "--as", "lines", "--alphabet", "ab"],
            b"ab\nac\n",
            "FILE, line 2, column 2: char",
        ),
        (
            ["data", "prepare", "FILE", "--as", "bytes", "--tokenizer", "FILE"],
            b"\xff",
            "FILE, line 1: not UTF-8",
        ),
        (["data", "prepare", "FILE", "--as", "bytes"], b"", "FILE is empty"),
    ],
)
def test_an_error_names_file_and_line_and_leaves_nothing(refused, tmp_path, words, content, says):
    name = "in.npy" if "FILE.npy" in words else "in"
    path = made(tmp_path / name, content)
    words = [path if w in ("FILE", "FILE.npy") else w for w in words]
    if words[0] in ("plan", "profile") or words[:2] == ["data", "prepare"]:
        words += ["-o", tmp_path / "out"]
    assert says.replace("FILE.npy", str(path)).replace("FILE", str(path)) in refused(*words)
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    "words",
    [
        ["eval", "sudoku"],
        ["profile", "sudoku"],
        ["plan", "--steps", "2"],
        ["sample", "molecules", "--prompt"],
        ["sample", "sudoku", "--plan"],
        ["judge", "smiles"],
        ["decompress"],
        ["inspect"],
    ],
)
@pytest.mark.parametrize("kind", ["folder", "missing"])
def test_folders_and_missing_files_are_one_line(refused, tmp_path, words, kind):
    place = tmp_path / kind
    if kind == "folder":
        place.mkdir()
    out = ["-o", tmp_path / "out"] if words[0] in ("plan", "profile") else []
    assert str(place) in refused(*words, place, *out)
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_has_nothing_to_compress(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "holds no files" in refused("compress", "text", tmp_path / "empty", "-o", tmp_path / "o.umz")


# --- the same file in other clothes ---------------------------------------------------------------

CLOTHES = {
    "as it is": lambda data: ("f", data),
    "CRLF": lambda data: ("f", data.replace(b"\n", b"\r\n")),
    "no final newline": lambda data: ("f", data.removesuffix(b"\n")),
    "BOM": lambda data: ("f", b"\xef\xbb\xbf" + data),
    "gzip by name": lambda data: ("f.gz", gzip.compress(data)),
    "gzip by content": lambda data: ("f", gzip.compress(data)),
    "bzip2": lambda data: ("f", bz2.compress(data)),
    "xz": lambda data: ("f", lzma.compress(data)),
    "standard input": lambda data: ("-", data),
    "standard input, gzip": lambda data: ("-", gzip.compress(data)),
}


def dressed(tmp_path, clothes, data):
    """A file's name and what is fed to standard input."""
    name, content = CLOTHES[clothes](data)
    return ("-", content) if name == "-" else (made(tmp_path / name, content), None)


def numbers(report):
    """What does not name the file."""
    return (
        report["nelbo"]["nats"]["value"],
        report["nelbo"]["bits_per_byte"]["value"],
        report["data"]["characters"],
    )


@pytest.mark.parametrize("clothes", CLOTHES)
@pytest.mark.parametrize(
    ("model", "data"),
    [
        ("molecules", SMILES),
        ("text", b"the cat sat on the mat " * 12 + b"\n"),
        ("records", b'{"a":1}\n{"b":"c"}\n'),
    ],
)
def test_eval_reads_the_same_file_in_any_clothes(document, tmp_path, clothes, model, data):
    plain = document("eval", model, made(tmp_path / "plain", data), "--samples", "1", "--quiet")
    name, fed = dressed(tmp_path, clothes, data)
    assert numbers(document("eval", model, name, "--samples", "1", "--quiet", fed=fed)) == numbers(plain)


@pytest.mark.parametrize("clothes", CLOTHES)
def test_prompts_and_puzzles_in_any_clothes(document, tmp_path, clothes):
    name, fed = dressed(tmp_path, clothes, b"C_O\nc1_ccc1\n")
    found = document("sample", "molecules", "--prompt", name, "--quiet", fed=fed)
    assert [s["prompt"] for s in found["samples"]] == ["C_O", "c1_ccc1"]
    name, fed = dressed(tmp_path, clothes, f"{PUZZLE},{SOLUTION}\n".encode())
    found = document("sample", "sudoku", "--prompt", name, "--quiet", fed=fed)
    assert found["samples"][0]["prompt"] == PUZZLE
    found = document("eval", "sudoku", name, "--samples", "1", "--quiet", fed=fed)
    assert found["exact_match"]["of"] == 1


@pytest.mark.parametrize("clothes", CLOTHES)
@pytest.mark.parametrize(
    ("words", "data"),
    [
        (["--as", "lines"], b"ab\nba\n"),
        (["--as", "jsonl"], b'{"a":1}\n{"b":"c"}\n'),
        (["--as", "smiles", "--column", "s"], b"s,t\nCC,1\nO,2\n"),
        (["--as", "smiles"], b"CC ethane\nO\n"),
        (["--as", "fasta"], b">x\nAC\nGT\n>y\nG\n"),
        (["--as", "text8"], b"The cat\nsat\n"),
        (["--as", "sudoku"], SOLUTION.encode() + b"\n"),
    ],
)
def test_data_prepare_reads_the_same_file_in_any_clothes(document, tmp_path, clothes, words, data):
    plain, other = tmp_path / "plain.out", tmp_path / "other.out"
    document("data", "prepare", made(tmp_path / "plain", data), "-o", plain, *words, "--quiet")
    name, fed = dressed(tmp_path, clothes, data)
    document("data", "prepare", name, "-o", other, *words, "--quiet", fed=fed)
    for part in ("tokens-00000.bin", "ends-00000.bin"):
        if (plain / part).exists():
            assert (other / part).read_bytes() == (plain / part).read_bytes()
    facts = [json.loads((folder / "manifest.json").read_text()) for folder in (plain, other)]
    assert facts[0]["source_bytes"] == facts[1]["source_bytes"]
    assert facts[0]["vocabulary"] == facts[1]["vocabulary"]


def test_json_lines_end_at_newlines_only(document, tmp_path):
    """U+2028 and form feeds, at which Python's splitlines cuts, are part of a line."""
    path = made(tmp_path / "r", '{"a":"x\u2028y\x0cz"}\n'.encode())
    assert document("eval", "records", path, "--samples", "1", "--quiet")["data"]["sequences"] == 1


@pytest.mark.parametrize("clothes", CLOTHES)
def test_plans_and_profiles_in_any_clothes(run, profile, tmp_path, clothes):
    name, fed = dressed(tmp_path, clothes, profile.read_bytes())
    out = tmp_path / "plan.json"
    assert run("plan", name, "--steps", "2", "-o", out, fed=fed)[0] == 0
    known = out.read_bytes()
    sizes = {"format": "unmask.plan", "version": 1, "length": 81, "sizes": [40, 41]}
    record = json.loads(known) | sizes | {"length": 81, "sizes": [40, 41]}
    name, fed = dressed(tmp_path, clothes, json.dumps(record).encode())
    code, text, _ = run("sample", "sudoku", "--order", "random", "--plan", name, "--json", "--quiet", fed=fed)
    assert (code, json.loads(text)["samples"][0]["nfe"]) == (0, 2)


# --- standard output --------------------------------------------------------------------------------


def test_profiles_and_plans_go_to_standard_output(run, refused, profile):
    code, out, err = run("plan", profile, "--steps", "2", "-o", "-")
    assert (code, sum(json.loads(out)["sizes"])) == (0, 4)
    assert "optimal" in err
    words = ["profile", "sudoku", "-", "--rounds", "1", "-o", "-", "--quiet"]
    code, out, _ = run(*words, fed=f"{SOLUTION}\n".encode() * 200)
    assert (code, Profile.from_json(out.decode()).length) == (0, 81)
    assert not Path("-").exists()
    assert "both write to standard output" in refused("plan", profile, "--steps", "2", "-o", "-", "--json")
    assert "expected the name of a file" in refused("plan", profile, "--steps", "2", "-o", "-", "--plot", "-")


@pytest.mark.parametrize(
    "text",
    [
        b"CCO\r\nc1ccccc1\r\n",
        b"CCO\r\nCC",
        b"CC\nO\r\nCC\r\nCCC\n",
        b"\r\n\r\n",
        b"\r",
        b"CC\r\r\nO\n",
        b"",
        b"CCO\nC\n",
    ],
)
def test_lines_come_back_with_their_own_ends(run, tmp_path, text):
    code, archive, _ = run("compress", "molecules", "-", "--lines", "-o", "-", "--quiet", fed=text)
    assert code == 0
    assert run("decompress", "-", "--quiet", fed=archive)[:2] == (0, text)
    assert run("decompress", "-", "-o", "-", "--quiet", fed=archive)[:2] == (0, text)
    assert run("decompress", "-", "-o", tmp_path / "back", "--quiet", fed=archive)[0] == 0
    assert (tmp_path / "back").read_bytes() == text
    again = run(
        "compress", "molecules", made(tmp_path / "f", text), "--lines", "-o", tmp_path / "a", "--quiet"
    )
    assert (again[0], (tmp_path / "a").read_bytes()) == (0, archive)


def test_lines_with_crlf_are_coded_like_others_and_nothing_prints_nan(run, document, tmp_path):
    for name, end in (("lf", b"\n"), ("crlf", b"\r\n")):
        made(tmp_path / name, b"CCO" + end + b"c1ccccc1" + end)
        report = document(
            "compress", "molecules", tmp_path / name, "--lines", "-o", tmp_path / f"{name}.umz", "--quiet"
        )
        assert report["kinds"] == {"coded": 2}
    plain, other = ((tmp_path / f"{name}.umz") for name in ("lf", "crlf"))
    items = [list(unmask.decompress(unmask.load("molecules"), archive)) for archive in (plain, other)]
    assert items == [[b"CCO", b"c1ccccc1"]] * 2
    assert run("decompress", other, "--item", "1", "--quiet")[1] == b"c1ccccc1"
    made(tmp_path / "raw", b"\xff\n")
    code, out, err = run("compress", "molecules", tmp_path / "raw", "--lines", "-o", tmp_path / "raw.umz")
    assert code == 0
    assert "nan" not in (out.decode() + err)


def test_packed_lines_are_unpacked_with_a_remark_and_files_are_kept(run, tmp_path):
    packed = made(tmp_path / "m.gz", gzip.compress(SMILES))
    code, _, err = run("compress", "molecules", packed, "--lines", "-o", tmp_path / "a.umz")
    assert code == 0
    assert "is packed; the archive gets its lines" in err
    assert run("decompress", tmp_path / "a.umz", "--quiet")[1] == SMILES
    assert run("compress", "molecules", packed, "-o", tmp_path / "b.umz", "--quiet")[0] == 0
    assert run("decompress", tmp_path / "b.umz", "-o", "-", "--quiet")[1] == packed.read_bytes()


def test_archives_through_pipes(run, refused):
    code, archive, _ = run("compress", "molecules", "-", "-o", "-", "--quiet", fed=SMILES)
    assert code == 0
    assert run("decompress", "-", "-o", "-", "--quiet", fed=archive)[1] == SMILES
    assert b"items" in run("inspect", "-", fed=archive)[1]
    assert "expected -o FOLDER" in refused("decompress", "-", fed=archive)


def test_pictures_go_to_standard_output(run):
    pytest.importorskip("PIL.Image")
    code, out, err = run("sample", "digits", "--plan", "784", "--order", "random", "-o", "-")
    assert (code, out[:8]) == (0, b"\x89PNG\r\n\x1a\n")
    assert "samples" in err


def test_standard_input_is_one_file(refused):
    for words in (
        ["judge", "smiles", "-", "--training", "-"],
        ["sample", "sudoku", "--prompt", "-", "--plan", "-"],
        ["eval", "molecules", "-", "--exact", "1", "--plan", "scaled:-"],
        ["data", "prepare", "-", "-", "--as", "lines", "-o", "never"],
        ["compress", "molecules", "-", "-", "-o", "never"],
    ):
        assert "standard input (-)" in refused(*words, fed=SMILES)
    assert not Path("never").exists()


# --- skipping and going on --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "data", "kept", "dropped", "first"),
    [
        (
            ["--as", "jsonl", "--field", "t"],
            b'{"t":null}\n{"t":"ab"}\n{x\n[]\n',
            1,
            {"no text": 2, "not JSON": 1},
            "line 1",
        ),
        (["--as", "jsonl"], b'{"t":1}\nnot\nnull\n', 2, {"not JSON": 1}, "line 2: not JSON"),
        (["--as", "fasta"], b">a\nAC\n>b\n>c\nG\n", 2, {"no sequence": 1}, "line 3: a header without"),
        (
            ["--as", "smiles", "--column", "s"],
            b"t,s\na,CC\nb\nc,O\n",
            2,
            {"short row": 1},
            "line 3: 1 columns",
        ),
        (
            ["--as", "lines", "--alphabet", "ab", "--longest", "2"],
            b"ab\nax\nabab\n",
            1,
            {"foreign": 1, "long": 1},
            "line 2",
        ),
    ],
)
def test_skipped_records_are_counted_and_the_first_is_named(
    document, run, tmp_path, words, data, kept, dropped, first
):
    path = made(tmp_path / "f", data)
    (folder,) = document("data", "prepare", path, "-o", tmp_path / "o", *words, "--skip", "--quiet")[
        "folders"
    ]
    assert (folder["items"], folder["dropped"]) == (kept, dropped)
    assert folder["first_dropped"].startswith(f"{path}, {first}")
    shown = run("data", "check", tmp_path / "o")[1].decode()
    assert folder["first_dropped"] in shown.replace("\n", "")
    assert run("data", "prepare", path, "-o", tmp_path / "p", *words, "--quiet")[0] == 2
    assert not (tmp_path / "p").exists()


def test_a_part_that_stays_empty_takes_the_others_with_it(refused, tmp_path):
    path = made(tmp_path / "f", b"ab\n")
    words = ["data", "prepare", path, "-o", tmp_path / "o", "--as", "lines", "--quiet", "--split"]
    assert "nothing was found" in refused(*words, "one=0.5", "two=0.5")
    assert not (tmp_path / "o").exists()
    for shares, says in (
        (["a=2"], "a=2: expected positive"),
        (["a=1", "a=1"], "a=1 a=1: expected diff"),
        (["1=1"], "1=.."),
    ):
        assert f"--split {says}" in refused(*words, *shares)


def test_a_pipe_with_a_name_is_not_read_twice(refused, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert "is read only once" in refused("compress", "molecules", pipe, "--lines", "-o", tmp_path / "o.umz")
    assert "is read only once" in refused("data", "prepare", pipe, "--as", "lines", "-o", tmp_path / "o")


def test_a_finished_folder_is_not_taken_for_another_reading(refused, document, tmp_path):
    path, out = made(tmp_path / "f", b"s,t\nCC,OO\n"), tmp_path / "o"
    words = ["data", "prepare", path, "-o", out, "--as", "smiles", "--alphabet", "CO", "--quiet"]
    document(*words, "--column", "s")
    document(*words, "--column", "s")  # the same is left alone
    assert "other sources or settings" in refused(*words, "--column", "t")


@pytest.mark.parametrize("change", ["model", "data", "seed", "rounds"])
def test_half_a_profile_of_something_else_is_refused(run, refused, monkeypatch, tmp_path, change):
    """A measurement that is stopped after its first batches goes on, but not as another one."""
    lines = ["CCO", "c1ccccc1", "CC(=O)N", "CCN"] * 40
    data, out = made(tmp_path / "f", "\n".join(lines).encode()), tmp_path / "p.json"
    words = {"model": "molecules", "data": data, "seed": 0, "rounds": 1}

    def command(**changes):
        found = words | changes
        return [
            "profile",
            found["model"],
            found["data"],
            "-o",
            out,
            "--seed",
            found["seed"],
            "--rounds",
            found["rounds"],
            "--quiet",
        ]

    stop_at = iter([False, True])

    def stopping(*arguments, **keywords):
        if next(stop_at, False):
            raise KeyboardInterrupt
        return real(*arguments, **keywords)

    real = measuring.losses_and_entropies
    with monkeypatch.context() as patch:
        patch.setattr(measuring, "losses_and_entropies", stopping)
        assert run(*command())[0] == 130
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".part"] == ["p.json.half1.part"]
    other = {
        "model": tmp_path / "other",
        "data": made(tmp_path / "g", "\n".join([*lines[1:], "CO"]).encode()),
        "seed": 1,
        "rounds": 2,
    }
    if change == "model":
        folder = Path(unmask.__file__).parent / "pretrained" / "molecules"
        shutil.copytree(folder, tmp_path / "other")
        weights = load_file(tmp_path / "other" / "weights.safetensors")
        save_file({k: v * 1.01 for k, v in weights.items()}, tmp_path / "other" / "weights.safetensors")
    assert "belongs to another measurement" in refused(*command(**{change: other[change]}))
    assert run(*command())[0] == 0
    assert not list(tmp_path.glob("*.part"))


# --- the command's own words --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            "--temperature 0",
            "--temperature 0: expected a number above 0; --greedy takes the most probable symbol",
        ),
        ("--temperature nan", "--temperature nan: expected"),
        ("--top-p 2", "--top-p 2: expected a number above 0, at most 1"),
        ("--order threshold --tau 2", "--tau 2: expected a number from 0 to 1"),
        ("--order threshold --tau nan", "--tau nan: expected a number from 0 to 1"),
        ("--order eb --gamma -1", "--gamma -1: expected at least 0"),
        ("--order factor --limit 0", "--limit 0: expected a number above 0"),
        ("--order klass --eps -1", "--eps -1: expected at least 0"),
        ("--order noisy-margin --alpha -1", "--alpha -1: expected at least 0"),
        ("--order race --alpha 0", "--alpha 0: expected a number above 0"),
        ("--order moment --beta 0.5", "--beta 0.5: expected at least 1"),
        ("--order hybrid --share 2", "--share 2: expected a number from 0 to 1"),
        ("--order pc --decay -1", "--decay -1: expected at least 0"),
        ("--order information-gain --candidates 0", "--candidates 0: expected at least 1"),
        ("--order psi --eta 3", "--eta 3: expected a number from 0 to 1"),
        ("--order p2 --steps 0", "--steps 0: expected at least 1"),
        ("--order margin --blocks 0", "--blocks 0: expected at least 1"),
        ("--order margin --spacing 0", "--spacing 0: expected at least 1"),
        ("--order margin --substeps 0", "--substeps 0: expected at least 1"),
        ("--order margin --plan 0", "--plan 0: expected at least one position per call"),
        ("--order margin --plan 3,2", "--plan 3,2 sums to 5 but 81 positions are masked; expected that many"),
        ("--order margin --plan x", "--plan x: no such file"),
        ("--num 0", "--num 0: expected at least 1"),
        ("--seed -1", "--seed -1: expected 0..2^63 - 1"),
    ],
)
def test_options_are_named_as_they_are_typed(refused, options, says):
    line = refused("sample", "sudoku", *options.replace(" -1", "=-1").split())
    assert line.startswith(f"unmask: {says}")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("eval sudoku --generate 5", "--generate 5: expected a number of clues 21..81"),
        ("eval sudoku --generate 34 --num 0", "--num 0: expected at least 1"),
        ("eval sudoku --generate 34 --samples 0", "--samples 0: expected at least 1"),
        ("eval molecules FILE --exact=-1", "--exact -1: expected at least 0"),
        ("profile sudoku --rounds 0", "--rounds 0: expected at least 1"),
        ("profile sudoku --num 1", "--num 1: expected at least 2"),
        ("plan PROFILE --steps 0", "--steps 0: expected 1..4"),
        ("plan PROFILE --max-kl=-1", "--max-kl -1: expected at least 0"),
        ("plan PROFILE --steps 2 --visible 9", "--visible 9: expected 0..3"),
        ("compress molecules FILE --calls 0 -o out.umz", "--calls 0: expected 1..58, the positions of a row"),
        ("compress molecules FILE --batch 0 -o out.umz", "--batch-size 0: expected at least 1"),
        ("compress molecules FILE --order x -o out.umz", "--order x: expected one of"),
        ("decompress FILE --batch 0", "--batch-size 0: expected at least 1"),
        ("judge smiles FILE --num 0", "--num 0: expected at least 1"),
        ("data prepare FILE --as lines --shard 0 -o out", "--shard 0: expected at least 1"),
        ("data prepare FILE --as lines --longest 0 -o out", "--longest 0: expected at least 1"),
        ("demo --num 1", "--num 1: expected at least 2 puzzles"),
        ("demo --tau 2", "--tau 2: expected a number above 0, at most 1"),
    ],
)
def test_other_commands_name_their_options(refused, profile, monkeypatch, tmp_path, words, says):
    monkeypatch.chdir(tmp_path)
    path = made(tmp_path / "f", SMILES)
    words = [{"FILE": path, "PROFILE": profile}.get(w, w) for w in words.split()]
    assert refused(*words).startswith(f"unmask: {says}")
    assert {p.name for p in tmp_path.iterdir()} == {"f", "exact.json"}
