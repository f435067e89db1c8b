"""Pictures show the numbers given, as HTML that stands alone and reads without a mouse and without colours."""

from __future__ import annotations

import io
import json
import math
import re
import shutil
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from unmask import pictures
from unmask.data.readers.boards import BOXES
from unmask.pictures import (
    Item,
    Look,
    Series,
    Staircase,
    charts,
    films,
    heat,
    molecules,
    moving,
    pages,
    plans,
    svg,
)

VOID = {"meta", "link", "input", "br", "img", "hr"}
EVIL = "</script><script>alert(1)</script><!-- & \"'"


class Parsed(HTMLParser):
    """Elements with their attributes; ``open`` must be empty at the end, or the text was not well formed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.inside: list[tuple[str, str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        self.inside.append((self.open[-1] if self.open else "", data))

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        kept = {k.rstrip("_").replace("_", "-"): v for k, v in wanted.items()}
        return [a for name, a in self.found if name == tag and all(a.get(k) == v for k, v in kept.items())]

    def text_of(self, tag: str) -> list[str]:
        return [data for name, data in self.inside if name == tag]


def path_of(text: str) -> list[tuple[float, float]]:
    """The corners of a path of straight lines."""
    return [tuple(map(float, pair.split())) for pair in re.findall(r"[ML]([-\d.]+ [-\d.]+)", text)]


def steps_of(*sizes: int, symbols=lambda at: at % 3, log_prob=-0.5, entropy=0.25):
    places = iter(range(sum(sizes)))
    return [
        {
            "positions": (own := [next(places) for _ in range(size)]),
            "symbols": [symbols(at) for at in own],
            "log_probs": [log_prob] * size,
            "entropies": None if entropy is None else [entropy] * size,
        }
        for size in sizes
    ]


TEXT = Look("text", {0: "a", 1: "<", 2: "c"}, 9)
FILM = pictures.film(
    "a film", TEXT, [Item([9, 9, 9], steps_of(1, 2), "one"), Item([0, 9, 9], steps_of(1, 1), "two")]
)


# --- numbers ------------------------------------------------------------------------------------------


def test_a_line_goes_through_the_numbers_given():
    x, y = [1.0, 2.0, 4.0, 8.0], [3.0, 0.5, 2.25, 1.0]
    series = Series("loss", x, y)
    axes = charts.axes([series], "x", "y", log_x=2.0)
    (path,) = Parsed(charts.drawn(series, 0, axes)).all("path", class_="um-line")
    back = [(axes.x.inverse(a), axes.y.inverse(b)) for a, b in path_of(path["d"])]
    np.testing.assert_allclose(back, list(zip(x, y)), rtol=1e-3)
    assert axes.y(3.0) < axes.y(0.5)  # more stands higher
    assert axes.x(4.0) - axes.x(2.0) == pytest.approx(axes.x(2.0) - axes.x(1.0))


def test_an_interval_reaches_from_low_to_high():
    series = Series("s", [1.0, 2.0], [5.0, 6.0], [4.0, None], [7.0, None])
    axes = charts.axes([series], "x", "y")
    (span,) = Parsed(charts.drawn(series, 0, axes)).all("path", class_="um-span")
    low, high = re.match(r"M\S+ (\S+?)V([\d.]+)", span["d"]).groups()
    assert [axes.y.inverse(float(v)) for v in (low, high)] == pytest.approx([4.0, 7.0], rel=1e-3)


def surface(places: list[tuple[float, float]]) -> float:
    """The area inside a path."""
    (x, y), (a, b) = np.array(places).T, np.array([*places[1:], places[0]]).T
    return abs(float((x * b - a * y).sum())) / 2


@pytest.mark.parametrize("sizes", [(6,), (1, 5), (2, 1, 3), (1, 1, 1, 1, 1, 1)])
def test_the_area_between_staircase_and_profile_is_the_cost_of_the_plan(sizes):
    entropies = [3.0, 2.0, 1.0, 0.5, 0.5, 0.5]
    starts = np.cumsum(sizes) - sizes
    cost = float(np.repeat(np.array(entropies)[starts], sizes).sum() - sum(entropies))
    found = Parsed(plans.profile("h", entropies, [Staircase("plan", sizes)]))
    (stairs,), (ground,) = (found.all("path", class_=f"um-{name}") for name in ("cost", "ground"))
    axes = charts.axes([Series("", [0, 6], [*entropies, 0])], "", "", zero=True)
    outer, inner = (
        surface([(axes.x.inverse(a), axes.y.inverse(b)) for a, b in path_of(p["d"])])
        for p in (stairs, ground)
    )
    assert outer - inner == pytest.approx(cost, abs=0.01)


def test_series_at_the_same_place_stand_side_by_side():
    text = pictures.chart("t", [Series(n, [1.0], [1.0], [0.5], [2.0]) for n in "ab"], "x", "y", apart=4.0)
    assert [g.get("transform") for g in Parsed(text).all("g") if "data-name" in g] == [
        "translate(-2 0)",
        "translate(2 0)",
    ]


def test_one_plan_is_shown_and_all_can_be_chosen():
    found = Parsed(plans.profile("h", [2.0, 1.0], [Staircase("first", (2,)), Staircase("second", (1, 1))]))
    assert [g.get("style") for g in found.all("g") if "um-plan" in g["class"]] == [None, "display:none"]
    assert found.text_of("option") == ["first", "second"]


def test_the_table_below_a_chart_has_the_numbers():
    text = pictures.chart("t", [Series("s", [1.0, 2.0], [0.123456, None])], "x", "y")
    assert [c for c in Parsed(text).text_of("td") if c] == ["s", "1", "0.123456", "s", "2", svg.NONE]


def test_long_series_have_short_tables():
    text = charts.numbers([Series("s", range(1000), [0.0] * 1000)], "x", "y")
    assert len(Parsed(text).all("tr")) <= charts.MOST_ROWS + 1
    assert "one in 16" in text


@pytest.mark.parametrize(
    ("low", "high", "base", "ticks"),
    [
        (0.0, 1.0, 0.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (1.0, 16.0, 2.0, [1, 2, 4, 8, 16]),
        (-3.0, 47.0, 0.0, [0, 10, 20, 30, 40]),
    ],
)
def test_ticks_are_round(low, high, base, ticks):
    assert svg.Scale(low, high, 0, 100, base).ticks() == pytest.approx(ticks)


@pytest.mark.parametrize("values", [[], [2.0], [0.0, 0.0], [math.nan, None], [-1.0]])
@pytest.mark.parametrize("base", [0.0, 2.0])
def test_a_scale_has_room_whatever_it_holds(values, base):
    scale = svg.scale(values, 0, 100, base)
    assert scale.low < scale.high
    assert all(math.isfinite(scale(t)) for t in scale.ticks())


def test_bars_are_as_long_as_their_numbers():
    text = pictures.bars("sizes", [("a", 100.0, "100 bytes"), ("b", 25.0, "25 bytes")])
    assert [s["style"] for s in Parsed(text).all("span")] == ["width:100.00%", "width:25.00%"]


# --- orders ---------------------------------------------------------------------------------------------


def test_ranks_are_the_middle_of_their_step():
    assert heat.ranks(4, [1, 2], [3, 0, 1]) == [0.75, 0.75, None, 0.25]


def test_a_map_of_the_order_tells_the_mean_of_samples():
    text = heat.order_map("o", [[0.1, 0.5, None], [0.3, 0.5, None]], 3)
    (board,) = Parsed(text).all("div", class_="um-map")
    assert (board["data-values"], board["data-columns"]) == ("20 50 -", "3")


def test_early_cells_are_larger_than_late_ones():
    early, late = (float(c["width"]) for c in Parsed(heat.order_map("o", [[0.05, 0.95]], 2)).all("rect")[1:3])
    assert early > 3 * late > 0


def test_a_map_over_positions_tells_shares():
    text = heat.over_positions("o", [[0.05, 0.95], [0.05, 0.15]])
    (board,) = Parsed(text).all("div", class_="um-map")
    values = board["data-values"].split()
    assert (values[0], values[1], values[3], values[-1]) == ("100", "0", "50", "50")


# --- films --------------------------------------------------------------------------------------------------


def data_of(text: str) -> dict:
    return json.loads(Parsed(text).text_of("script")[0])


def test_a_film_holds_what_was_given():
    record = data_of(FILM)
    assert record["items"][0] == {
        "t": "one",
        "b": 3,
        "n": [1, 2],
        "p": [0, 1, 2],
        "s": [0, 1, 2],
        "c": [607] * 3,
        "e": [25] * 3,
    }
    assert record["items"][1]["b"] == [0, 9, 9]
    assert (record["mask"], record["texts"]) == (9, {"0": "a", "1": "<", "2": "c"})


def test_unknown_probabilities_and_entropies_are_said_to_be_unknown():
    steps = steps_of(2, log_prob=math.nan, entropy=None)
    (item,) = data_of(pictures.film("f", TEXT, [Item([9, 9], steps)]))["items"]
    assert (item["c"], item["e"]) == ([-1, -1], None)


def test_without_a_script_the_finished_item_stands_there():
    assert "a<c" in Parsed(FILM).text_of("pre")


def test_a_board_is_written_in_rows():
    assert Look("grid", {0: "x", 1: "y"}, 5, 2).written([0, 1, 5, 0]) == "x y\n_ x"


def test_what_was_masked_is_known_from_the_steps():
    assert Item.before([4, 5, 6], steps_of(1, 1), 9).start == [9, 9, 6]


def test_a_look_comes_back_from_json():
    look = Look("grid", {0: "1", 7: "8"}, 9, 9)
    assert Look.of(json.loads(json.dumps(look.record([0, 7, 9])))) == look
    assert Look.of(look.record([]) | {"kind": "hologram"}).kind == "symbols"


@pytest.mark.parametrize("kind", films.KINDS)
def test_every_kind_makes_a_film(kind):
    look = Look(kind, {0: "C", 1: "=", 2: "O"}, 9, 2 if kind in ("grid", "image") else 0, 2)
    found = Parsed(pictures.film("f", look, [Item([9] * 4, steps_of(2, 2))]))
    assert (found.open, found.wrong) == ([], [])


# --- molecules ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("smiles", "atoms", "bonds"),
    [
        ("CCO", 3, 2),
        ("c1ccccc1", 6, 6),
        ("C[N+](C)(C)C", 5, 4),
        ("ClC%12CC%12", 4, 4),
        ("[nH]1cccc1", 5, 5),
        ("C.O", 2, 0),
    ],
)
def test_smiles_have_their_atoms_and_bonds(smiles, atoms, bonds):
    graph = molecules.parsed(smiles)
    assert (len(graph.labels), len(graph.bonds)) == (atoms, bonds)


@pytest.mark.parametrize("text", ["", "C(", "C)", "C1CC", "hello", "1C", "()"])
def test_text_that_is_no_smiles_has_no_drawing(text):
    assert molecules.parsed(text) is None
    assert molecules.drawing([*text]) is None


def test_a_ring_is_regular_and_a_chain_zigzags():
    ring = molecules.laid_out(molecules.parsed("c1ccccc1"))
    sides = np.linalg.norm(ring - np.roll(ring, 1, 0), axis=1)
    assert np.allclose(sides, 1, atol=0.05)
    assert np.allclose(np.linalg.norm(ring, axis=1), 1, atol=0.05)
    chain = molecules.laid_out(molecules.parsed("CCCC"))
    assert np.linalg.norm(chain[0] - chain[2]) == pytest.approx(math.sqrt(3), abs=0.1)


def test_an_atom_belongs_to_the_symbol_that_named_it():
    found = molecules.drawing(["C", "(", "=", "O", ")", "Cl"])
    assert (found["p"], found["l"], found["b"]) == ([0, 3, 5], ["", "O", "Cl"], [[0, 1, 2], [0, 2, 1]])


# --- pages ------------------------------------------------------------------------------------------------------


def whole(title: str = "a page") -> str:
    look = Look("text", {0: EVIL, 1: "b"}, 9)
    film = pictures.film(EVIL, look, [Item([9, 9], steps_of(1, 1, symbols=lambda at: at), EVIL)])
    lines = pictures.chart(
        EVIL, [Series(EVIL, [1.0, 2.0], [1.0, 2.0], [0.5, 1], [2, 3]), Series("b", [1, 3], [2, 2])], "x", "y"
    )
    stairs = pictures.profile("h", [2.0, 1.0], [Staircase(EVIL, (2,)), Staircase("b", (1, 1))], [0.1, 0.1])
    more = pictures.listed(EVIL, {EVIL: {"a": [1.0, EVIL], "b": None}}) + pictures.bars(
        "b", [(EVIL, 1.0, EVIL)]
    )
    maps = pictures.order_map("o", [[0.5, 0.2]], 2) + pictures.over_positions("p", [[0.5, 0.2]])
    return pictures.page(title, [("One", film + lines), (EVIL, stairs + more + maps)])


@pytest.mark.parametrize(
    "text", [whole(), whole(EVIL), pictures.fragment(FILM, EVIL)], ids=["page", "evil", "cell"]
)
def test_pages_are_well_formed_and_escape_what_they_show(text):
    found = Parsed(text)
    assert (found.open, found.wrong) == ([], [])
    assert "alert(1)" not in "".join(found.text_of("script")).replace(
        "\\u003c/script>\\u003cscript>alert(1)", ""
    )
    assert len(found.all("script")) <= 3


def test_a_page_asks_for_nothing():
    text = whole()
    found = Parsed(text)
    named = [
        v
        for _, attributes in found.found
        for k, v in attributes.items()
        if k in ("src", "href", "srcset", "data", "action")
    ]
    assert all(v.startswith("#") for v in named)
    addresses = set(re.findall(r"https?://[^\"'\s)]+", text))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttpRequest|import\(|sendBeacon|WebSocket", text)
    assert "default-src 'none'" in text


@pytest.mark.parametrize("text", [whole(), pictures.fragment(FILM)], ids=["page", "cell"])
def test_everything_that_acts_has_a_label(text):
    found = Parsed(text)
    for tag, attributes in found.found:
        if tag in ("input", "button") and "um-theme" not in (attributes.get("class") or ""):
            assert attributes.get("aria-label"), (tag, attributes)
        if "tabindex" in attributes or attributes.get("role") in ("img", "group", "region"):
            assert attributes.get("aria-label"), (tag, attributes)
    labels = [k for k, (tag, _) in enumerate(found.found) if tag == "select"]
    assert all(found.found[k - 1][0] == "label" for k in labels)
    assert len(found.all("html", lang="en")) == ("<html" in text)


def test_a_page_without_data_is_small():
    assert len(pictures.page("t", []).encode()) < 60_000


def test_looks_do_not_hang_on_colour_alone():
    style = pages._file("report.css")
    lines = [
        re.search(rf"\.um-s{k} \.um-line {{ stroke-dasharray: ([^;}}]+)", style)
        for k in range(1, charts.STYLES)
    ]
    assert len({m[1].strip() for m in lines}) == len(set(charts.SHAPES)) - 1
    assert {"dotted", "dashed", "solid"} <= {*re.findall(r"\.um-q\d \{ border-bottom: 2px (\w+)", style)}


def test_both_themes_name_every_colour():
    style = pages._file("report.css")
    light, dark, forced = (
        set(re.findall(r"--([\w]+):", block)) for block in re.findall(r"\{([^{}]*--paper:[^{}]*)\}", style)
    )
    assert light >= dark == forced
    assert light - dark <= {"s0"} or light == dark


def test_sections_are_reached_from_the_list():
    found = Parsed(whole())
    links = [a["href"].removeprefix("#") for a in found.all("a")]
    assert links == [s["id"] for s in found.all("section")]
    assert len(set(links)) == 2


def test_a_cell_holds_style_and_script_and_a_picture_saves_as_a_page():
    shown = pictures.Picture("t", FILM)
    assert "<style>" in shown._repr_html_()
    assert shown.html().startswith("<!doctype html>")


def test_digits_of_levels_play_as_pixels():
    """Two pixels of 16 levels in two stages of base 4: each digit leaves the middle of what is still possible."""
    look = Look("image", {}, 4, 2, 3, whole=16)
    steps = [
        {"positions": [0, 1], "symbols": [3, 0], "log_probs": [-1.0, -1.0], "entropies": None},
        {"positions": [3, 2], "symbols": [1, 2], "log_probs": [-1.0, -1.0], "entropies": None},
    ]
    after, (item,) = films.pixels(Look.of(look.record([])), [Item([4] * 4, steps)])
    assert (after.mask, after.levels, after.whole) == (16, 15, 0)
    assert item.start == [16, 16]
    assert [(s["positions"], s["symbols"]) for s in item.steps] == [([0, 1], [14, 2]), ([1, 0], [1, 14])]
    assert item.final() == [3 * 4 + 2, 1]
    told = data_of(films.film("t", look, [Item([4] * 4, steps)]))
    assert (told["mask"], told["levels"], told["items"][0]["b"]) == (16, 15, 2)


# --- images in colour ---------------------------------------------------------------------------------

COLOUR = Look("image", {}, 256, 6, 255, channels=3)
"""A row of two pixels."""
PIXELS = [
    {"positions": [0, 4], "symbols": [255, 51], "log_probs": [-1.0] * 2, "entropies": None},
    {"positions": [2, 1], "symbols": [0, 102], "log_probs": [-1.0] * 2, "entropies": None},
]


def test_a_look_in_colour_comes_back_and_old_ones_stay_grey():
    assert Look.of(json.loads(json.dumps(COLOUR.record([])))) == COLOUR
    assert Look.of({k: v for k, v in COLOUR.record([]).items() if k != "channels"}).channels == 1
    assert COLOUR.place(4) == "row 1, column 2, green"
    assert Look("grid", {}, 9, 9).place(10) == "row 2, column 2"
    assert TEXT.place(4) == "position 5"


def test_a_map_in_colour_has_its_channels_side_by_side():
    rows = ["r", "g", "b", "R", "G", "B", "1", "2", "3", "4", "5", "6"]
    assert heat.planes(rows, 6, 3) == ["r", "R", "g", "G", "b", "B", "1", "4", "2", "5", "3", "6"]
    assert heat.planes(rows, 6, 1) == rows
    told = pictures.order_map("t", [[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]], 6, 3)
    assert 'data-values="10 40 20 50 30 60"' in told
    assert "Red, green and blue side by side" in told


def test_a_film_in_colour_says_what_masked_channels_look_like():
    film = films.film("t", COLOUR, [Item([256] * 6, PIXELS)])
    assert data_of(film)["channels"] == 3
    assert "still masked stands at its middle level" in film
    grey = films.film("t", replace(COLOUR, channels=1), [Item([256] * 6, PIXELS)])
    assert "channels" not in data_of(grey)
    assert "still masked" not in grey


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_a_board_has_rules_round_its_boxes(tmp_path):
    """A board of 6x6 has boxes of 2 by 3: a rule right of the third column, below the second and the fourth row."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
    from browser import chromium

    page = tmp_path / "film.html"
    look = Look("grid", {k: str(k + 1) for k in range(6)}, 6, 6)
    page.write_text(pages.page("t", [("t", films.film("t", look, [Item([6] * 36, steps_of(*[1] * 36))]))]))
    ruled = (
        "[...document.querySelectorAll('.um-grid span')].map((c, k) => c.classList.contains('{}') ? k : -1)"
    )
    with chromium(shutil.which("chromium")) as browser:
        browser.open(page, 800, 600)
        right, low = (
            [k for k in browser.evaluate(ruled.format(name)) if k >= 0] for name in ("um-right", "um-low")
        )
    assert right == [2, 8, 14, 20, 26, 32]
    assert low == [*range(6, 12), *range(18, 24)]


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_pixels_have_the_colours_of_their_channels(tmp_path):
    """At the corner of a pixel is its frame, between frame and middle its colour, in the middle what is masked."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
    from browser import chromium

    page = tmp_path / "film.html"
    page.write_text(pages.page("t", [("t", films.film("t", COLOUR, [Item([256] * 6, PIXELS)]))]))
    at = "[...document.querySelector('canvas').getContext('2d').getImageData({}, {}, 1, 1).data].slice(0, 3)"
    blue, dot, frame = [0x31, 0x56, 0x7C], [0x6F, 0x93, 0xB8], [0xE6, 0x9F, 0x00]
    seen = []
    with chromium(shutil.which("chromium")) as browser:
        browser.open(page, 800, 600)
        browser.evaluate("document.querySelector('.um-film').focus()")
        browser.press("Home")
        for _ in range(3):
            seen.append(
                [browser.evaluate(at.format(x, y)) for x, y in ((0, 0), (2, 2), (3, 3), (4, 4), (12, 2))]
            )
            browser.press("ArrowRight")
        size = browser.evaluate(
            "[document.querySelector('canvas').width, document.querySelector('canvas').height]"
        )
        said = browser.evaluate("document.querySelector('.um-said').textContent")
        paces = []
        for key in ("+", "+", "+", "-", "-"):
            browser.press(key)
            paces.append(browser.evaluate("document.querySelector('.um-pace').value"))
    assert size == [20, 10], "a pixel is a square"
    assert seen[0] == [blue, blue, blue, dot, blue], "all masked"
    assert seen[1] == [frame, [255, 128, 128], blue, dot, [128, 51, 128]], (
        "two channels masked, at their middle"
    )
    assert seen[2] == [frame, [255, 102, 0], [255, 102, 0], [255, 102, 0], [128, 51, 128]], "known"
    assert "row 1, column 1, blue" in said
    assert paces == ["2", "4", "4", "2", "1"]


def test_boards_have_their_boxes():
    boxes = {n: Look("grid", {}, n, n).box(n * n) for n in (4, 6, 7, 8, 9)}
    assert boxes == {4: (2, 2), 6: (2, 3), 7: (7, 7), 8: (2, 4), 9: (3, 3)}
    assert boxes.items() >= {n: BOXES[n * n] for n in (4, 6, 8, 9)}.items()
    assert Look("grid", {}, 9, 9).box(18) == (2, 9), "no square"
    assert Look("text", {}, 9).box(81) == (81, 0)


# --- films as GIFs ------------------------------------------------------------------------------------


def frames_of(data: bytes) -> list:
    """The pictures of a GIF, in colours."""
    from PIL import Image, ImageSequence

    return [frame.convert("RGB") for frame in ImageSequence.Iterator(Image.open(io.BytesIO(data)))]


def test_a_gif_has_the_colours_of_its_pixels():
    pytest.importorskip("PIL")
    frames = frames_of(moving.gif(COLOUR, Item([256] * 6, PIXELS)))
    (x, y, side, _), (x2, *_) = moving.layout(COLOUR, Item([256] * 6, PIXELS))
    assert (x2 - x, len(frames)) == (side, 3)
    edge, inside, middle = (x, y), (x + 2, y + 2), (x + side // 2, y + side // 2)
    seen = [[frame.getpixel(at) for at in (edge, inside, middle)] for frame in frames]
    assert seen[0] == [moving.MASKED] * 3
    assert seen[1] == [moving.FRAME, (255, 128, 128), moving.MASKED]
    assert seen[2] == [moving.FRAME, (255, 102, 0), (255, 102, 0)]


def test_a_gif_shows_the_start_each_call_and_holds_the_end():
    pytest.importorskip("PIL")
    from PIL import Image

    item = Item([0, 9, 9, 9], [*steps_of(2), *steps_of(1)], "one")
    picture = Image.open(io.BytesIO(moving.gif(TEXT, item)))
    times = [(picture.seek(k), picture.info["duration"])[1] for k in range(picture.n_frames)]
    assert times == [500, 500, 2500]
    assert picture.info["loop"] == 0


def test_moments_are_tokens_with_their_calls():
    steps = [
        {"positions": [1], "symbols": [2], "log_probs": [math.log(0.5)], "entropies": None},
        {"positions": [1, 2], "symbols": [9, 0], "log_probs": [0.0, None], "entropies": None},
    ]
    first, second, third = moving.moments(Item([0, 9, 9], steps), 9)
    assert (first.tokens, first.when) == ((0, 9, 9), (0, -1, -1))
    assert (second.tokens, second.when, second.sure[1]) == ((0, 2, 9), (0, 1, -1), pytest.approx(0.5))
    assert (third.tokens, third.when) == ((0, 9, 0), (0, -1, 2)), "hidden again is masked"


def test_a_long_film_keeps_its_ends():
    pytest.importorskip("PIL")
    look = Look("image", {}, 2, 20, 1)
    frames = frames_of(moving.gif(look, Item([2] * 400, steps_of(*[1] * 400))))
    assert len(frames) == moving.FRAMES + 1
    at = moving.layout(look, Item([2] * 400, []))
    assert frames[0].getpixel(at[0][:2]) == moving.MASKED
    assert frames[-1].getpixel(at[0][:2]) != moving.MASKED


@pytest.mark.parametrize("kind", films.KINDS)
def test_every_kind_makes_a_gif(kind):
    pytest.importorskip("PIL")
    look = Look(kind, {0: "C", 1: "=", 2: "O"}, 9, 2 if kind in ("grid", "image") else 0, 2)
    boxes = moving.layout(look, Item([9] * 4, steps_of(2, 2)))
    assert len({box[:2] for box in boxes}) == 4, "no two positions in one place"
    assert moving.gif(look, Item([9] * 4, steps_of(2, 2)))[:6] == b"GIF89a"
