"""Names that other code calls stay importable, old ones for one version, and the packages keep the rules of the house."""

from __future__ import annotations

import importlib
import sys
import warnings
from pathlib import Path

import pytest

import unmask
from unmask import _moved

SOURCE = Path(unmask.__file__).parent

PUBLIC = [
    "View",
    "Choice",
    "Result",
    "Estimate",
    "Profile",
    "Model",
    "Denoiser",
    "Selector",
    "Score",
    "TokenSource",
    "load",
    "sample",
    "replay",
    "log_likelihood",
    "nelbo",
    "compress",
    "decompress",
    "tune",
    "draw",
    "greedy",
    "given",
    "from_logits",
    "tempered",
    "nucleus",
    "guided",
    "forbidding",
    "biased",
    "denoisers.from_logits",
    "denoisers.tempered",
    "denoisers.nucleus",
    "denoisers.guided",
    "denoisers.forbidding",
    "denoisers.biased",
    "networks.Transformer",
    "networks.TransformerConfig",
    "networks.from_config",
    "scores.confidence",
    "scores.margin",
    "scores.negative_entropy",
    "scores.left_to_right",
    "scores.bisection",
    "scores.moment",
    "scores.at_random",
    "scores.halton",
    "scores.with_noise",
    "scores.learnt",
    "scores.OrderConfig",
    "scores.OrderNetwork",
    "selectors.top_k",
    "selectors.threshold",
    "selectors.entropy_budget",
    "selectors.in_blocks",
    "selectors.hybrid",
    "selectors.independent",
    "evaluation.searched.best_order",
    "training.ordering.learn",
    "profiles.Profile",
    "profiles.measure",
    "plans.one_by_one",
    "plans.uniform",
    "plans.cosine",
    "plans.tc",
    "plans.dtc",
    "plans.log_odds",
    "plans.optimal",
    "plans.describe",
    "laws.Table",
    "laws.Markov",
    "laws.Permutation",
    "laws.OneHot",
    "laws.Balanced",
    "laws.Polya",
    "laws.Mixture",
    "laws.CurieWeiss",
    "laws.Parity",
    "laws.Repetition",
    "laws.ReedSolomon",
    "laws.Hamming74",
    "laws.LatentParity",
    "laws.Support",
    "laws.Sudoku4",
    "evaluation.mutants.likelihood",
    "evaluation.mutants.masked_marginals",
    "evaluation.mutants.pseudo_likelihood",
    "evaluation.letters.letters_of",
    "kernels.commit.sample",
    "kernels.remask.sample",
    "kernels.remask.remdm",
    "kernels.remask.cap",
    "kernels.remask.psi",
    "kernels.remask.p2",
    "kernels.remask.gibbs",
    "variants.upscale.Upscaled",
    "variants.upscale.nelbo",
    "variants.genmd4.nelbo",
    "data.sudoku.puzzles",
    "data.sudoku.read",
    "data.tokens.load",
    "data.prepare.prepare",
]
"""Below `unmask`: what the design promises to other people's code, and what the documentation uses."""

MOST_MODULES = 9
LONGEST = 370
"""Lines of a module."""


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_is_there(name):
    *modules, last = name.split(".")
    home = importlib.import_module(".".join(["unmask", *modules]))
    assert getattr(home, last) is not None
    if modules:  # and by attributes alone, as ``unmask.laws.Markov``
        found = unmask
        for part in modules:
            found = getattr(found, part)
        assert found is home


BOTH_WAYS = [(old, new, how) for old, new in _moved.NEW_NAMES.items() for how in ("import", "attribute")]


@pytest.mark.parametrize(("old", "new", "how"), [c for c in BOTH_WAYS if c[2] == "import" or "." not in c[0]])
def test_an_old_name_warns_once_and_is_the_new_module(old, new, how, monkeypatch):
    monkeypatch.delitem(sys.modules, f"unmask.{old}", raising=False)
    package, _, last = f"unmask.{old}".rpartition(".")
    home = importlib.import_module(package)
    vars(home).pop(last, None)
    module, spec = importlib.import_module(f"unmask.{new}"), importlib.import_module(f"unmask.{new}").__spec__
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            found = importlib.import_module(f"unmask.{old}") if how == "import" else getattr(home, last)
    assert [(w.category, str(w.message)[: len(f"unmask.{old} is now")]) for w in caught] == [
        (FutureWarning, f"unmask.{old} is now")
    ]
    assert f"unmask.{new};" in str(caught[0].message)
    assert vars(found).items() >= vars(module).items()
    assert module.__spec__ is spec
    assert (found is module) == (old not in _moved.ALSO)
    vars(home).pop(last, None)
    sys.modules.pop(f"unmask.{old}")


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_an_old_module_that_was_split_has_all_its_names():
    old = importlib.import_module("unmask.objectives")
    for home, name in (("enumeration", "bound_by_subsets"), ("objectives", "masked_cross_entropy")):
        assert getattr(old, name) is getattr(importlib.import_module(f"unmask.masking.{home}"), name)


def test_other_peoples_modules_of_the_same_names_are_left_alone():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("remask")


def packages():
    """Folders of the package with Python files, by their names below `unmask`."""
    return sorted({path.parent for path in SOURCE.rglob("*.py")} - {SOURCE})


def name_of(folder):
    return folder.relative_to(SOURCE).as_posix()


@pytest.mark.parametrize("folder", packages(), ids=name_of)
def test_a_package_has_nine_modules_at_most_and_none_is_long(folder):
    """A folder inside counts as one, ``__init__`` is not counted."""
    modules = [p for p in folder.glob("*.py") if p.name != "__init__.py"]
    inside = [p for p in folder.iterdir() if (p / "__init__.py").exists()]
    assert len(modules) + len(inside) <= MOST_MODULES
    lengths = {p.name: len(p.read_text().splitlines()) for p in modules}
    assert not {name: lines for name, lines in lengths.items() if lines > LONGEST}


@pytest.mark.parametrize("folder", packages(), ids=name_of)
def test_every_module_says_what_it_answers(folder):
    assert [p.name for p in folder.glob("*.py") if not p.read_text().startswith('"""')] == []
