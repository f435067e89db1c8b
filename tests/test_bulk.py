"""Bulk work: what several processes or calls make is what one makes, and nothing that is done is lost or done again."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from ranks import End, apart, broken, given, spoken, together
from test_tune_command import LENGTH, SOLUTION, small

from unmask.base.progress import IN_TURN, Partly, Pieces, Work
from unmask.training.together import bulk
from unmask.training.together.world import ALONE

pytestmark = [
    pytest.mark.global_random,  # networks are initialised
    pytest.mark.skipif(
        sys.platform == "win32" or not dist.is_available() or not dist.is_gloo_available(),
        reason="needs gloo",
    ),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small models and data."""
    folder = tmp_path_factory.mktemp("bulk")
    small(folder / "text", "text", length=LENGTH)
    small(folder / "sudoku", "sudoku")
    (folder / "some.txt").write_text(
        "the quick brown fox jumps over the lazy dog and runs away from it all " * 2
    )
    (folder / "one.txt").write_text("thirteen\n")
    (folder / "lines.txt").write_text("".join(f"{word}\n" for word in ("ab", "fox", "a", "dog") * 150))
    (folder / "other.txt").write_text("".join(f"{word}\n" for word in ("ab", "fox", "a", "cat") * 150))
    solved = [SOLUTION[9 * n :] + SOLUTION[: 9 * n] for n in (0, 27, 54)]  # bands in another order
    (folder / "puzzles.csv").write_text(
        "puzzle,solution\n" + "".join(f"{'.' * 6}{line[6:]},{line}\n" for line in solved)
    )
    return folder


def words(place: Path, name: str, out: Path) -> list[str]:
    """A command by name; what it writes stands in ``out``."""
    text, sudoku, data = (str(place / n) for n in ("text", "sudoku", "some.txt"))
    known = {
        "sample": ["sample", text, "-n", "10", "--batch", "3", "--temperature", "0.9"],
        "traced": ["sample", text, "-n", "5", "--batch", "2", "--trace", "--json", "--order", "margin"],
        "eval": ["eval", text, data, "--exact", "5", "--batch", "2", "--samples", "2"],
        "puzzles": ["eval", sudoku, str(place / "puzzles.csv"), "--batch", "1", "--samples", "1", "--json",
                    "--plan", "27"],
        "mutants": ["eval", text, str(place / "one.txt"), "--mutants", "1-2", "--by", "marginals,pseudo"],
        "profile": ["profile", text, data, "-n", "12", "--batch", "4", "--rounds", "4", "-o", str(out / "profile.json")],
        "tune": ["tune", text, data, "--calls", "2", "-n", "8", "--json", "-o", str(out / "tuned")],
        "compress": ["compress", text, str(place / "lines.txt"), "--lines", "--calls", "1", "--no-verify",
                     "--json", "-o", str(out / "o.umz")],
    }  # fmt: skip
    return [*known[name], "--threads", "1", "--quiet"]


NAMES = ("sample", "traced", "eval", "puzzles", "mutants", "profile", "tune", "compress")
TIMES = ("seconds", "network_seconds", "time", "wall_seconds")


def timeless(value: object) -> object:
    """A report without what a clock says."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if "seconds" not in k and k not in TIMES}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def result(name: str, end: tuple[int, str, str], out: Path) -> tuple[object, dict[str, object]]:
    """What a command said, and every file that it wrote; times left out, and where it wrote."""
    code, said, errors = end
    assert (code, errors) == (0, ""), errors
    said = said.replace(str(out), "OUT")
    told = timeless(json.loads(said)) if name in ("traced", "puzzles", "tune") else said
    files: dict[str, object] = {}
    for path in sorted(
        p for p in out.rglob("*") if p.is_file() and p.name not in ("parts.jsonl", "front.png")
    ):
        data = path.read_bytes()
        files[str(path.relative_to(out))] = timeless(json.loads(data)) if path.name == "tune.json" else data
    return told, files


def run(place: Path, name: str, out: Path, size: int = 2, *more: str) -> tuple[object, dict[str, object]]:
    """A command in so many processes: what the first said, the others being silent."""
    out.mkdir(exist_ok=True)
    first, *others = given(together(spoken, [*words(place, name, out), *more], size=size))
    assert others == [(0, "", "")] * (size - 1)
    return result(name, first, out)


@pytest.fixture(scope="module")
def alone(
    place: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[object, dict[str, object]]]:
    """What one process says to every command."""
    return {
        name: result(name, spoken(words(place, name, out)), out)
        for name in NAMES
        for out in [tmp_path_factory.mktemp(name)]
    }


def pieces(folder: Path) -> dict[str, int]:
    """When each piece was made."""
    return {p.name: p.stat().st_mtime_ns for p in folder.glob("*.safetensors")}


# --- the same -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_say_and_write_what_one_does(place, alone, tmp_path, name):
    """Byte for byte, whether pieces go over the network or through a folder, which vanishes where nobody named it."""
    assert run(place, name, tmp_path / "out") == alone[name]


@pytest.mark.parametrize("name", ["sample", "profile"])
def test_three_processes_and_a_folder(place, alone, tmp_path, name):
    """Neither batches nor items are a multiple of three; the folder answers the same command at once."""
    work = tmp_path / "work"
    assert run(place, name, tmp_path / "three", 3, "--work", str(work)) == alone[name]
    made = pieces(work)
    assert len(made) == {"sample": 4, "profile": 2 * 4 * 2}[name]  # halves, rounds, batches
    assert run(place, name, tmp_path / "again", 1, "--work", str(work)) == alone[name]
    assert pieces(work) == made


@pytest.mark.parametrize("name", ["sample", "profile", "compress"])
def test_ranges_of_items_join(place, alone, tmp_path, name):
    """A batch belongs to the range that it begins in, so ranges need not fit."""
    work = tmp_path / "work"
    most = 600 if name == "compress" else 140
    for first, end in ((0, most // 28), (most // 28, most)):
        more = ["--work", str(work), "--items", f"{first}:{end}", "--json"]
        code, said, errors = spoken([*words(place, name, tmp_path), *more])
        assert code == 0, errors
        told = json.loads(said)
        assert told["part"] is True
        before, there = told["lacking"], pieces(work)
    assert before == 0
    assert run(place, name, tmp_path / "out", 2, "--work", str(work)) == alone[name]
    assert pieces(work) == there


def test_a_range_does_its_own_batches_only(place, tmp_path):
    more = ["--work", str(tmp_path / "work"), "--items", "5:10", "--json"]
    told = json.loads(spoken([*words(place, "sample", tmp_path), *more])[1])
    assert (told["pieces"], told["lacking"]) == (4, 2)
    assert sorted(int(name.split("-")[1]) for name in pieces(tmp_path / "work")) == [2, 3]


# --- going on -------------------------------------------------------------------------------------


def test_a_process_that_is_killed_costs_only_what_it_was_at(place, alone, tmp_path):
    """Pieces of both stay; going on, in another number of processes, makes those that are missing."""
    work = tmp_path / "work"
    given_words = [*words(place, "sample", tmp_path), "--work", str(work)]
    first, second = together(broken, given_words, 1, "kill", alike=False)
    assert second.code == -signal.SIGKILL
    assert first.value[0] == 2
    assert "another process of this work ended" in first.value[2]
    made = pieces(work)
    assert sorted(int(name.split("-")[1]) for name in made) == [0, 1, 2]
    assert run(place, "sample", tmp_path / "out", 3, "--work", str(work)) == alone["sample"]
    assert made.items() <= pieces(work).items()


def test_what_was_interrupted_beside_an_archive_goes_on(place, alone, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    together(broken, words(place, "compress", out), 0, "kill", alike=False)
    beside = out / "o.umz.parts"
    assert len(pieces(beside)) == 2
    assert not (out / "o.umz").exists()
    for leftover in out.glob(".*.tmp"):  # of the process that was killed
        leftover.unlink()
    assert run(place, "compress", out) == alone["compress"]


def test_lines_that_changed_meanwhile_are_coded_anew(place, alone, tmp_path):
    """The settings of an archive do not tell its input; blocks do."""
    work, out = tmp_path / "work", tmp_path / "out"
    out.mkdir()
    changed = [w.replace("lines.txt", "other.txt") for w in words(place, "compress", out)]
    assert spoken([*changed, "--work", str(work)])[0] == 0
    assert run(place, "compress", out, 2, "--work", str(work)) == alone["compress"]


# --- what is refused ------------------------------------------------------------------------------


def refused(ends: list[End], text: str) -> None:
    """All end, with one line, which says why."""
    for end in ends:
        code, said, errors = end.value
        assert (code, said) == (2, "")
        assert text in errors, errors
        assert errors.count("\n") == 1


def test_the_folder_of_other_work_is_refused(place, tmp_path):
    work = tmp_path / "work"
    these = [*words(place, "sample", tmp_path), "--work", str(work)]
    assert spoken([*these, "--items", "0:3"])[0] == 0
    before = pieces(work)
    refused(
        together(spoken, [*these, "--seed", "7"]), "holds other work: its seed is 0, and 7 here; expected"
    )
    refused(together(spoken, [*these, "--batch", "5"]), "its batch size is 3, and 5 here")
    assert pieces(work) == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    refused(together(spoken, [*these[:-1], str(tmp_path / "full")]), "holds files but no work.json")
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["thesis.txt"]


def test_processes_of_other_settings_or_data_are_told(place, tmp_path):
    these = words(place, "sample", tmp_path)
    first, second = together(apart, [these, [*these, "--seed", "7"]], alike=False)
    refused([first, second], "seed is 7 in process 1, and 0 in process 0: give all the same")
    lines = words(place, "compress", tmp_path)
    other = [w.replace("lines.txt", "other.txt") for w in lines]
    first, second = together(apart, [lines, other], alike=False)
    refused([first, second], "give all the same settings, data and folder")


def test_where_one_fails_all_end_and_the_first_says_why(place, tmp_path):
    """At its second piece; the others stop at their next and keep what they have."""
    these = [*words(place, "eval", tmp_path), "--work", str(tmp_path / "work")]
    first, second = together(broken, these, 1, "disk", alike=False)
    refused([first, second], "No space left on device")
    assert "process 1 of 2" in first.value[2]
    assert not list((tmp_path / "work").glob(".failed*"))
    assert len(pieces(tmp_path / "work")) >= 2


def test_two_calls_in_one_folder(place, tmp_path):
    work = tmp_path / "work"
    these = [*words(place, "sample", tmp_path), "--work", str(work)]
    with bulk.locked(work, "worked"):
        refused(together(spoken, these), f"{work} is being worked in by process")


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--items", "0:5"], "--items without --work"),
        (["--items", "5", "--work", "w"], "--items 5: expected FIRST:END"),
        (["--items", "5:5", "--work", "w"], "--items 5:5: expected FIRST:END"),
    ],
)
def test_ranges_that_make_no_sense(place, tmp_path, more, text):
    code, _, errors = spoken([*words(place, "sample", tmp_path), *more])
    assert (code, text in errors) == (2, True), errors


def test_a_tuning_has_no_ranges_and_standard_input_one_reader(place, tmp_path):
    more = ["--work", str(tmp_path / "w"), "--items", "0:5"]
    code, _, errors = spoken([*words(place, "tune", tmp_path), *more])
    assert (code, "decides round by round" in errors) == (2, True)
    read = ["eval", str(place / "text"), "-"]
    refused(together(spoken, read), "- (standard input) under torchrun")


# --- pieces ---------------------------------------------------------------------------------------


def doubled(n: int) -> Work:
    return Work(n, 1, lambda: {"twice": torch.tensor([2 * n]), "name": [n, float("nan"), "x"]})


def test_pieces_come_back_as_they_were(tmp_path):
    piece = {
        "a": torch.tensor([1.5, float("nan"), float("-inf")], dtype=torch.float64),
        "json": torch.zeros(0, 3, dtype=torch.int64),
        "steps": [[{"positions": [1, 2], "log_probs": [0.1]}]],
    }
    bulk.write_tensors(tmp_path / "p.safetensors", bulk.packed(piece))
    found = bulk.unpacked(bulk.read_tensors(tmp_path / "p.safetensors"))
    assert set(found) == {"a", "json", "steps"}
    assert torch.equal(found["a"].view(torch.int64), piece["a"].view(torch.int64))
    assert found["json"].shape == (0, 3)
    assert found["steps"] == piece["steps"]


def test_every_part_is_done_before_the_lack_of_one_is_told():
    heard = []

    def part(n: int) -> None:
        heard.append(n)
        raise Partly

    with pytest.raises(Partly):
        Pieces().every(lambda: part(0), lambda: part(1), lambda: heard.append(2))
    assert heard == [0, 1, 2]
    assert IN_TURN.every(lambda: 3, lambda: 4) == (3, 4)


def test_parts_of_a_work_have_the_numbers_of_the_whole(tmp_path):
    """Of every second item from the second on, those numbered 2 to 5 are the second and third."""
    dealt = bulk.Dealt(ALONE, tmp_path / "work", range(2, 6))
    dealt.of(what="test")
    with pytest.raises(Partly):
        dealt.within("odd", 1, 2).each("n", map(doubled, range(4)))
    assert sorted(name.split("-")[:3] for name in pieces(tmp_path / "work")) == [
        ["n", "odd", "00000001"],
        ["n", "odd", "00000002"],
    ]
    assert dealt.lacking() == 2


def test_a_piece_that_vanished_is_named(tmp_path):
    dealt = bulk.Dealt(ALONE, tmp_path / "work")
    dealt.of(what="test")
    found = dealt.each("n", map(doubled, range(2)))
    next((tmp_path / "work").glob("n-00000001*")).unlink()
    assert next(found)["twice"].tolist() == [0]
    with pytest.raises(
        ValueError, match=r"n-00000001-.* is not there: expected a folder that all processes see"
    ):
        next(found)
