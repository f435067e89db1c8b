"""What a terminal shows while something is unmasked, and what a file gets instead; colours only where they are wanted."""

from __future__ import annotations

import re
from io import StringIO

import pytest
import torch
from rich.console import Console

import unmask
from unmask.command_line import boards
from unmask.command_line.app import main
from unmask.command_line.commands.sample import animation
from unmask.command_line.commands.sample.animation import Move, Stage
from unmask.kernels import commit, remask
from unmask.masking import schedules
from unmask.pictures import Look

LAW = unmask.laws.Markov([0.5, 0.5], [[0.9, 0.1], [0.2, 0.8]], 6)
LOOKS = {
    "text": Look("text", {0: "a", 1: "b"}, 2),
    "residues": Look("residues", {0: "A", 1: "W"}, 2),
    "molecule": Look("molecule", {0: "C", 1: "O"}, 2),
    "symbols": Look("symbols", {}, 2),
    "grid": Look("grid", {0: "1", 1: "2"}, 2, 3),
    "image": Look("image", {}, 2, 3, 1),
}
COLOUR = re.compile(r"\x1b\[[\d;]*\b(3|4|9|10)[0-9]\b|\x1b\[[\d;]*\b[34]8;")
"""Foreground and background colours among the codes of a terminal."""


def terminal(**more):
    return Console(file=StringIO(), force_terminal=True, color_system="truecolor", width=80, **more)


def watched(console, look, source=unmask.draw):
    """A batch of two whose first row is watched."""
    masked, order = torch.full((2, 6), 2), unmask.selectors.top_k(unmask.scores.confidence, 2)
    with Stage(console, masked[0].tolist(), look) as stage:
        found = unmask.sample(
            LAW, masked, order, generator=torch.Generator().manual_seed(0), source=source, each=stage.each
        )
    return stage, found


@pytest.mark.parametrize("kind", LOOKS)
def test_every_kind_is_seen_while_it_is_unmasked(kind):
    console = terminal()
    stage, found = watched(console, LOOKS[kind])
    assert {m.cell: m.symbol for m in stage.steps} == dict(enumerate(found.tokens[0].tolist()))
    assert [m.call for m in stage.steps] == [1, 1, 2, 2, 3, 3]
    assert stage.now() == found.tokens[0].tolist()
    assert "6 of 6 unmasked, 0 s left" in console.file.getvalue()
    assert COLOUR.search(console.file.getvalue())
    if kind != "image":
        assert all(
            LOOKS[kind].texts.get(t, str(t)) in console.file.getvalue() for t in found.tokens[0].tolist()
        )


@pytest.mark.parametrize("kind", LOOKS)
def test_no_color_leaves_no_colours(kind, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    console = terminal()
    watched(console, LOOKS[kind])
    assert not COLOUR.search(console.file.getvalue())
    assert "▀" not in console.file.getvalue()  # says nothing without its two colours


def test_without_colours_the_unlikely_is_underlined_and_grey_is_a_shade():
    moves = [Move(0, 0, 0.1, 1), Move(1, 1, 0.9, 1)]
    line = animation._running([2, 2], {m.cell: m for m in moves}, 5, LOOKS["text"], plain=True)
    assert [
        (str(s.style), line.plain[s.start : s.end]) for s in line.spans if "underline" in str(s.style)
    ] == [("underline", "a")]
    image = animation._image([2] * 6, {m.cell: m for m in moves}, LOOKS["image"], plain=True)
    assert [row.plain for row in image] == ["  ██··", "······"]


@pytest.mark.parametrize("kind", LOOKS)
def test_a_file_gets_plain_lines(kind):
    console = Console(file=StringIO(), width=80)
    watched(console, LOOKS[kind])
    text = console.file.getvalue()
    assert "\x1b" not in text
    assert re.search(r"(position|cell|pixel) 6 of 6, call 3: ", text)
    assert len(text.splitlines()) <= 2 * 4 + animation.LINES + 1


def test_an_image_has_two_rows_a_line():
    look = Look("image", {}, 256, 2, 255)
    lines = animation._image([0, 255, 256, 128, 255, 0], {}, look, plain=False)
    assert [line.plain for line in lines] == ["▀▀", "▀▀"]
    assert "rgb(255,255,255) on rgb(128,128,128)" in str(lines[0].spans)
    assert "rgb(255,255,255) on rgb(0,0,0)" in str(lines[1].spans)


def test_pixels_in_colour_have_their_channels_and_masked_ones_their_middle():
    look = Look("image", {}, 256, 6, 255, channels=3)
    tokens = [255, 256, 0, 256, 256, 256]
    (line,) = animation._image(tokens, {}, look, plain=False)
    assert [str(span.style) for span in line.spans] == [
        "rgb(255,128,0) on rgb(0,0,0)",
        "rgb(49,86,124) on rgb(0,0,0)",
    ]
    assert [row.plain for row in animation._image(tokens, {}, look, plain=True)] == ["▒···"]
    assert [row.plain for row in animation._image([255] * 6, {}, look, plain=True)] == ["████"]
    assert animation.words(Move(4, 51, 0.5, 1), look) == "row 1, column 2, green is 51 (probability 0.500)"
    assert "still masked stands at its middle" in str(animation.frame_of(tokens, [], look).renderables[-1])


@pytest.mark.parametrize(("cell", "first"), [(0, 1), (150, 5), (299, 9)])
def test_a_text_longer_than_the_screen_follows_the_last_move(cell, first):
    """300 symbols in lines of 20, seven of fifteen lines to be seen: those around the one that was just unmasked."""
    look = Look("text", {0: "a", 1: "b"}, 2)
    shown = animation.frame_of([2] * 300, [Move(cell, 1, 0.7, 1)], look, room=(20, 12)).renderables
    lines = [str(line) for line in shown]
    assert [line for line in lines[:7] if len(line) == 20] == lines[:7]
    assert sum("b" in line for line in lines[:7]) == 1
    assert f"; lines {first} to {first + 6} of 15" in lines[7]


def test_a_board_that_fits_is_seen_whole():
    shown = animation.frame_of([2] * 9, [Move(8, 1, 0.7, 1)], LOOKS["grid"], room=(80, 24)).renderables
    assert not any("; lines" in str(line) for line in shown)


def test_an_image_higher_than_the_screen_follows_the_last_move():
    look = Look("image", {}, 2, 10, 1)
    shown = animation.frame_of([2] * 600, [Move(595, 1, 0.7, 1)], look, room=(80, 15)).renderables
    assert "; lines 21 to 30 of 30" in str(shown[-1])


def test_hidden_again_is_said_and_seen():
    look, moves = LOOKS["text"], [Move(0, 1, 0.5, 1), Move(0, 2, 0.5, 2)]
    assert animation.words(moves[1], look) == "position 1 is hidden again"
    assert animation._running([2, 2], {0: moves[1]}, 0, look, plain=False).plain == "··"


# --- steps are told, and change nothing --------------------------------------------------------------------


SAMPLERS = {
    "commit": lambda tokens, generator, **more: commit.sample(
        LAW, tokens, commit.low_confidence(1.0, 2), generator=generator, **more
    ),
    "remask": lambda tokens, generator, **more: remask.sample(
        LAW,
        tokens,
        remask.remdm(schedules.linear().alpha, schedules.uniform_grid(8), remask.cap(0.3)),
        generator=generator,
        **more,
    ),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_kernels_tell_every_step_and_change_nothing(name):
    seen, masked = [], torch.full((3, 6), LAW.mask_id)
    runs = [
        SAMPLERS[name](masked, torch.Generator().manual_seed(4), **more)
        for more in ({}, {"each": lambda info, tokens: seen.append((info, tokens))})
    ]
    assert torch.equal(runs[0].tokens, runs[1].tokens)
    assert len(seen) == len(runs[1].trace)
    assert torch.equal(seen[-1][1], runs[1].tokens)


def test_a_watch_counts_sequences_in_parts_up_to_all_of_them():
    told: list[float] = []
    watch = boards.Watch(LAW.mask_id, told.append)
    order = unmask.selectors.top_k(unmask.scores.left_to_right, 3)
    sampler = lambda tokens, ids, generator: unmask.sample(  # noqa: E731
        LAW, tokens, order, generator=generator, item_ids=ids, each=watch.each
    )
    machine = boards.Machine(batch_size=2)
    boards.solve(
        torch.full((3, 6), LAW.mask_id), sampler, seed=0, machine=machine, watch=watch, advance=told.append
    )
    assert told == [1.0, 2.0, 2, 2.5, 3.0, 3]


def test_searches_tell_how_far_they_are_and_find_the_same():
    masked, order = torch.full((2, 6), LAW.mask_id), unmask.selectors.top_k(unmask.scores.confidence, 1)
    drawn = lambda **more: unmask.best_of(  # noqa: E731
        LAW, masked, order, count=3, generator=torch.Generator().manual_seed(0), **more
    )
    ways = {
        1: lambda **more: unmask.search(LAW, masked, order, width=3, **more),
        2: drawn,
        4: lambda **more: unmask.backtrack(LAW, masked, order, count=4, **more),
    }
    for passes, way in ways.items():
        told: list[float] = []
        watch = boards.Watch(LAW.mask_id, told.append, passes=1 if passes == 2 else passes)
        watch.begin(10, masked)
        found = way(each=watch.each)
        assert torch.equal(found.tokens, way().tokens)
        assert told == sorted(told)
        assert 10 < told[0] < told[-1] <= 12


def test_a_judge_is_the_last_pass():
    masked, order = torch.full((2, 6), LAW.mask_id), unmask.selectors.top_k(unmask.scores.confidence, 2)
    told: list[float] = []
    watch = boards.Watch(LAW.mask_id, told.append, passes=2)
    watch.begin(0, masked)
    found = unmask.search(LAW, masked, order, width=3, each=watch.each)
    assert told == pytest.approx([1 / 3, 2 / 3, 1])
    unmask.judged(LAW, masked, found, order, each=watch.each)
    assert told[3:] == pytest.approx([4 / 3, 5 / 3, 2])


# --- commands ------------------------------------------------------------------------------------------------


def test_sample_watches_on_standard_error(capsys):
    assert main(["sample", "molecules", "--plan", "12", "--watch", "--seed", "3"]) == 0
    said = capsys.readouterr()
    text = said.out.splitlines()[1].split("\t")[0]
    assert text in said.err
    assert re.search(r"position \d+ of \d+, call \d+: position \d+ is '", said.err)


def test_watching_changes_no_sample(capsys):
    words = ["sample", "molecules", "-n", "2", "--plan", "12", "--quiet", "--seed", "5"]
    outs = []
    for more in ([], ["--watch"]):
        assert main([*words, *more]) == 0
        outs.append(capsys.readouterr().out)
    assert outs[0] == outs[1]


def test_a_search_is_not_watched(capsys):
    assert main(["sample", "molecules", "--beam", "2", "--watch"]) == 2
    assert "--watch beside a search" in capsys.readouterr().err
