"""Data with hard subproblems: zebra puzzles against plain recursion, and what the recipes of both kinds show a network."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

import unmask
from unmask import recipes
from unmask.data import zebra
from unmask.data.zebra import Kind, Size
from unmask.laws import NotAllEqual
from unmask.networks.transformer import from_config
from unmask.recipes.laboratory.clue_network import KINDS, read, symbols
from unmask.recipes.laboratory.latents import LatentData, coordinates
from unmask.recipes.laboratory.zebra import to_tokens
from unmask.recipes.run import Machine, override
from unmask.training import train

SMALL, USUAL = Size(3, 3, 12), Size()
TRUE = {
    Kind.AT: lambda x, y: x == y,
    Kind.NOT_AT: lambda x, y: x != y,
    Kind.SAME: lambda x, y: x == y,
    Kind.APART: lambda x, y: x != y,
    Kind.JUST_LEFT: lambda x, y: y - x == 1,
    Kind.LEFT: lambda x, y: y > x,
    Kind.BESIDE: lambda x, y: x - y in (1, -1),
    Kind.BETWEEN: lambda x, y: x - y in (2, -2),
}


def keeps(grid: tuple[int, ...], clues: np.ndarray) -> bool:
    """Whether every clue is true of a grid, said by the definitions above."""
    return all(
        TRUE[Kind(kind)](grid[x], y if kind <= Kind.NOT_AT else grid[y]) for kind, x, y in clues if kind >= 0
    )


def every_grid(size: Size) -> list[tuple[int, ...]]:
    rows = list(itertools.permutations(range(size.houses)))
    return [sum(parts, ()) for parts in itertools.product(rows, repeat=size.attributes)]


@pytest.fixture(scope="module")
def small() -> tuple[np.ndarray, np.ndarray]:
    pytest.importorskip("numba")
    return zebra.puzzles(40, 1, SMALL)


@pytest.fixture(scope="module")
def usual() -> tuple[np.ndarray, np.ndarray]:
    pytest.importorskip("numba")
    return zebra.puzzles(150, 2, USUAL)


class TestPuzzles:
    def test_the_solution_is_the_only_grid_that_keeps_the_clues(self, small) -> None:
        grids = every_grid(SMALL)
        for clues, solution in zip(*small):
            assert [g for g in grids if keeps(g, clues)] == [tuple(solution)]

    def test_no_clue_can_be_spared(self, small) -> None:
        grids = every_grid(SMALL)
        for clues, _ in zip(*small):
            told = clues[clues[:, 0] >= 0]
            for i in range(len(told)):
                assert sum(keeps(g, np.delete(told, i, 0)) for g in grids) > 1

    def test_solving_agrees_with_recursion_whatever_the_clues(self) -> None:
        pytest.importorskip("numba")
        grids, random = every_grid(SMALL), np.random.default_rng(0)
        clues = np.full((300, SMALL.most, 3), -1)
        for puzzle in clues:
            for i in range(random.integers(1, 7)):
                kind = random.integers(KINDS)
                x, y = random.choice(9, 2, replace=False)
                while kind in (Kind.SAME, Kind.APART) and x // 3 == y // 3:
                    x, y = random.choice(9, 2, replace=False)
                puzzle[i] = kind, x, y % 3 if kind <= Kind.NOT_AT else y
        counts, found = zebra.solve(clues, SMALL, limit=1000)
        wanted = [sum(keeps(g, c) for g in grids) for c in clues]
        assert counts.tolist() == wanted
        assert 0 in wanted
        assert 1 in wanted
        some = counts > 0
        assert zebra.is_solved(clues[some], found[some], SMALL).all()

    def test_checks_agree_with_the_definitions(self, small) -> None:
        grids = every_grid(SMALL)[::7]
        for clues in small[0][:10]:
            found = zebra.is_solved(np.stack([clues] * len(grids)), np.array(grids), SMALL)
            assert found.tolist() == [keeps(g, clues) for g in grids]

    def test_an_item_twice_is_not_solved(self, usual) -> None:
        clues, grids = usual
        assert zebra.is_solved(clues, grids, USUAL).all()
        twice = grids.copy()
        twice[:, 0] = twice[:, 1]
        assert not zebra.is_solved(clues, twice, USUAL).any()
        foreign = grids.copy()
        foreign[:, 0] = USUAL.houses + 3  # a symbol of the model that is no house
        assert not zebra.is_solved(clues, foreign, USUAL).any()

    def test_symmetries_keep_the_puzzle(self, usual) -> None:
        clues, grids = zebra.symmetries(*usual, USUAL, seed=5)
        counts, found = zebra.solve(clues, USUAL)
        assert (counts == 1).all()
        assert (found == grids).all()
        assert ((clues[..., 0] < 0).sum(1) == (usual[0][..., 0] < 0).sum(1)).all()
        assert (clues != usual[0]).any((1, 2)).all()

    def test_puzzles_are_functions_of_seed_and_number(self, usual) -> None:
        clues, grids = zebra.puzzles(70, 2, USUAL)
        assert (clues == usual[0][:70]).all()
        assert (grids == usual[1][:70]).all()
        assert (zebra.puzzles(70, 3, USUAL)[1] != grids).any(1).all()

    @pytest.mark.parametrize("size", [Size(3, 4), Size(5, 5, 24), Size(6, 2), Size(5, 3)])
    def test_every_size_has_one_solution(self, size) -> None:
        pytest.importorskip("numba")
        clues, grids = zebra.puzzles(20, 4, size)
        counts, found = zebra.solve(clues, size)
        assert (counts == 1).all()
        assert (found == grids).all()
        assert all((clues[..., 0] == kind).any() for kind in Kind)

    def test_kinds_without_weight_do_not_occur(self) -> None:
        pytest.importorskip("numba")
        clues, _ = zebra.puzzles(20, 4, SMALL, weights=[1, 0, 1, 0, 0, 1, 0, 0])
        assert set(clues[..., 0].ravel()) == {-1, Kind.AT, Kind.SAME, Kind.LEFT}


class TestNotation:
    def test_a_line_comes_back(self, usual) -> None:
        for clues, grid in zip(*usual):
            told, cells = zebra.parse(zebra.text(clues, grid, USUAL), USUAL)
            assert (told == clues).all()
            assert (cells == grid).all()

    def test_a_line_by_hand(self) -> None:
        clues, grid = zebra.parse("A1@2 B3!1 A1=B2 A1#C2 A1<<B3 C1<A3 A2|B1 B1_B3 : A.1. B... C321", SMALL)
        assert clues[:8].tolist() == [
            [0, 0, 1], [1, 5, 0], [2, 0, 4], [3, 0, 7], [4, 0, 5], [5, 6, 2], [6, 1, 3], [7, 3, 5],
        ]  # fmt: skip
        assert grid.tolist() == [-1, 0, -1, -1, -1, -1, 2, 1, 0]
        assert zebra.sentences(clues, SMALL)[4] == "A1 is immediately left of B3"

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("A1", "clue 'A1'"),
            ("A1@B2", "clue 'A1@B2'"),
            ("A1=2", "clue 'A1=2'"),
            ("A4@1", "A1 to C3"),
            ("A1@2 : A123", "grid 'A123'"),
            (": A123 B123 C124", "A123 B123 C123"),
            ("A1@2 " * 13, "at most 12"),
        ],
    )
    def test_faults_are_named(self, line, message) -> None:
        with pytest.raises(ValueError, match=message):
            zebra.parse(line, SMALL)

    def test_sizes_out_of_range_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"houses 2.*3\.\.6"):
            Size(2, 3)
        with pytest.raises(ValueError, match="at least 18 clues"):
            Size(6, 6, 14)


class TestRecipes:
    def test_a_batch_of_zebras_shows_clues_that_have_the_grid_as_solution(self) -> None:
        pytest.importorskip("numba")
        run = recipes.zebra()
        run = run.prepare(run)
        size = run.data.size()
        data = run.batch(run, 3)
        assert not data.masked[:, : size.most].any()
        assert data.masked.sum(1).min() >= 1
        read = [zebra.parse(line, size) for line in run.decode(run, data.tokens)]
        clues, grids = (np.stack(x) for x in zip(*read))
        assert (zebra.solve(clues, size)[0] == 1).all()
        assert zebra.is_solved(clues, grids, size).all()
        assert torch.equal(run.encode(run, run.decode(run, data.tokens)), data.tokens)
        assert int(data.tokens.max()) < run.network.vocab_size
        assert len({tuple(g) for g in grids}) > 0.8 * len(grids)  # copies are moved

    def test_weights_reach_the_puzzles_of_a_batch(self) -> None:
        pytest.importorskip("numba")
        run = replace(recipes.zebra(), data=replace(recipes.zebra().data, weights=(1, 0, 1, 0, 0, 0, 0, 0)))
        run = run.prepare(run)
        for line in run.decode(run, run.batch(run, 0).tokens):
            kinds = zebra.parse(line, run.data.size())[0][:, 0]
            assert set(kinds) <= {-1, Kind.AT, Kind.SAME}
        with pytest.raises(ValueError, match="8 whole numbers"):
            replace(run.data, weights=(1, 1))

    def test_masked_cells_read_as_gaps(self) -> None:
        run = recipes.zebra()
        run = run.prepare(run)
        tokens = run.encode(run, ["A1@2 A1<<B3"])
        assert (tokens[:, run.data.most :] == run.network.vocab_size).all()
        assert run.decode(run, tokens)[0].startswith("A1@2 A1<<B3 : A.... B.... ")
        with pytest.raises(ValueError, match="item 1: clue"):
            run.encode(run, ["A1@2", "A1@@2"])

    def test_observations_share_coordinates_with_their_latents(self) -> None:
        law = NotAllEqual(6, 10, 4)
        axes = np.array(coordinates(law))
        for j, triple in enumerate(law.sees.tolist()):
            place = axes[:3, law.latents + j]
            assert [int(axes[k, z]) for k, z in enumerate(triple)] == place.tolist() == triple

    @pytest.mark.global_random
    def test_a_batch_of_latents_keeps_the_law_of_its_settings(self) -> None:
        run = replace(recipes.lo_nae_sat(), data=LatentData(7, 11, triples=3))
        run = run.prepare(run)
        assert run.network.length == 18
        data = run.batch(run, 0)
        assert NotAllEqual(7, 11, 3).consistent(data.tokens).all()
        assert not NotAllEqual(7, 11, 4).consistent(data.tokens).all()
        told = from_config(run.network)
        assert told(data.tokens).shape == (run.batch_size, 18, 2)
        assert run.prepare(replace(run, data=replace(run.data, told=False))).network.axes is None
        assert torch.equal(run.encode(run, run.decode(run, data.tokens)), data.tokens)

    def test_a_perfect_denoiser_is_consistent_in_any_order(self) -> None:
        law = NotAllEqual(6, 12, 1)
        blank = torch.full((200, law.length), law.mask_id)
        for score in (unmask.scores.at_random(0), unmask.scores.margin, unmask.scores.left_to_right):
            drawn = unmask.sample(
                law, blank, unmask.selectors.top_k(score, 1), generator=torch.Generator().manual_seed(0)
            )
            assert law.consistent(drawn.tokens).all()
            assert float(drawn.tokens[:, :6].double().mean()) == pytest.approx(0.5, abs=0.06)


def test_a_model_of_other_sizes_reads_and_writes_its_own_puzzles(tmp_path):
    """The size travels with the model: its recipe's default is another one."""
    run = override(
        recipes.all_recipes()["zebra"](), {"data.houses": "3", "data.attributes": "2", "data.most": "6"}
    )
    short = replace(run, optimiser=replace(run.optimiser, steps=0), machine=Machine())
    model = unmask.load(train(short, tmp_path / "run", quiet=True))
    clues, grids = zebra.puzzles(4, 5, short.data.size())
    lines = [zebra.text(c, g, short.data.size()) for c, g in zip(clues, grids)]
    tokens = model.encode(lines)
    assert tokens.shape == (4, model.length)
    assert model.decode(tokens) == lines


def test_clues_are_read_as_they_were_written():
    clues, grids = zebra.puzzles(5, 3, SMALL)
    told = to_tokens(clues, grids, SMALL)[:, : SMALL.most]
    found = read(told, SMALL)
    there = torch.as_tensor(clues[..., 0] >= 0)
    assert torch.equal(found.first[there], torch.as_tensor(clues[..., 1])[there])
    assert torch.equal(found.second[there], torch.as_tensor(clues[..., 2])[there])
    kinds = torch.full(told.shape, -1)
    for kind, places in enumerate(found.places):
        kinds.view(-1)[places] = kind
    assert torch.equal(kinds, torch.as_tensor(clues[..., 0]))
    assert torch.equal(found.named, (kinds == Kind.AT) | (kinds == Kind.NOT_AT))


@pytest.fixture
def clue_network():
    """The network of small puzzles, its answers not yet learnt but not nothing, and tokens of some."""
    run = recipes.all_recipes()["zebra"]()
    data = replace(run.data, houses=3, attributes=3, most=12)
    run = run.prepare(replace(run, data=data, batch_size=4, network=replace(run.network, width=8, hidden=12)))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = run.build(run.network).double()
        torch.nn.init.normal_(network.head.weight)
    return run, network, run.batch(run, 0)


def test_what_items_are_called_plays_no_part(clue_network):
    """Attributes and values under other names, and clues in another order, give the same logits where the items went."""
    run, network, _ = clue_network
    size, random = run.data.size(), np.random.default_rng(5)
    clues, grids = zebra.puzzles(4, 7, size)
    names = np.concatenate([a * 3 + random.permutation(3) for a in random.permutation(3)])
    kind, x, y = np.moveaxis(clues, -1, 0)
    named = (kind == Kind.AT) | (kind == Kind.NOT_AT)
    moved = np.stack([kind, np.where(kind < 0, -1, names[x]), np.where((kind < 0) | named, y, names[y])], -1)
    seen = np.where(random.random(grids.shape) < 0.5, grids, -1)
    there = np.empty_like(seen)
    there[:, names] = seen
    own, other = (
        network(to_tokens(c, g, size))[:, size.most :, :3]
        for c, g in ((clues, seen), (moved[:, random.permutation(size.most)], there))
    )
    assert own.std() > 0.01
    assert torch.allclose(other[:, names], own)


def test_every_part_of_a_clue_is_heard(clue_network):
    run, network, _ = clue_network
    size, grid = run.data.size(), np.full((1, 9), -1)

    def logits(*clue: int) -> torch.Tensor:
        clues = np.full((1, size.most, 3), -1)
        clues[0, 0] = clue
        return network(to_tokens(clues, grid, size))[0, size.most :, :3]

    base = logits(Kind.JUST_LEFT, 0, 4)
    for other in ((Kind.LEFT, 0, 4), (Kind.JUST_LEFT, 4, 0), (Kind.JUST_LEFT, 0, 5), (Kind.AT, 0, 2)):
        assert not torch.allclose(logits(*other), base)
    assert not torch.allclose(logits(Kind.AT, 0, 2), logits(Kind.AT, 0, 1))
    assert torch.allclose(
        logits(Kind.AT, 0, 2)[3:6], logits(Kind.AT, 1, 2)[3:6]
    )  # items 3 to 5 hear of neither
    none = logits(-1, -1, -1)
    assert [not torch.allclose(base[i], none[i]) for i in (0, 4)] == [True, True]
    assert torch.allclose(none, network(torch.full((1, 21), network.mask_id))[0, 12:, :3])


def test_only_houses_can_stand_in_a_grid(clue_network):
    run, network, data = clue_network
    network.zero_grad()
    torch.nn.init.zeros_(network.head.weight)
    seen = data.tokens.masked_fill(data.masked, network.mask_id)
    logits = network(seen)
    assert logits.shape[-1] == symbols(run.data.size())
    assert logits[..., :3].isfinite().all()
    assert (logits[..., 3:] == -torch.inf).all()
    rows = torch.tensor([[20, 3]]).expand(4, -1)
    assert torch.equal(network(seen, rows), logits[:, [20, 3]])
    loss = run.objective(network, data)
    loss.backward()
    assert loss.item() == pytest.approx(np.log(3), rel=1e-4)  # nothing is known at the start
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
