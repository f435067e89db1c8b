"""Zero-shot perplexity: sets made plain by rules that are written out here, and a model whose value is known."""

from __future__ import annotations

import json
import math

import pytest
from test_papers import TINY, Ids

from unmask.command_line.app import main
from unmask.data.readers.papers import END
from unmask.data.readers.text import text8
from unmask.evaluation.harness.zero_shot import SETS, documents, plain
from unmask.recipes import all_recipes
from unmask.recipes.run import override

pytestmark = pytest.mark.global_random

PLAINLY = [
    ("wikitext2", " = = = Early life = = = ", "=== Early life ==="),
    (
        "wikitext2",
        " The 1 @,@ 000 @.@ 5 guest @-@ stars ( 12 ) left . ",
        "The 1,000.5 guest-stars (12) left.",
    ),
    (
        "wikitext103",
        " He said , \" It 's fine \" ; they did n't : no ! ",
        "He said, \"It's fine\"; they didn't: no!",
    ),
    ("wikitext103", " = Robert <unk> = ", "= Robert <unk> ="),
    (
        "ptb",
        " it rose to $ N from N as traders ' bets did n't pay ",
        "it rose to $1 from 1 as traders' bets didn't pay",
    ),
    ("ptb", " the <unk> company 's no. N\\/a Net ", "the ? company's no. N/a Net"),
    (
        "lm1b",
        '" Good , " he said ( twice ) for $ 40 at http : / / x .',
        '"Good," he said (twice) for $40 at http://x.',
    ),
    ("lambada", " “ Yes , ” he said\n", '" Yes , " he said'),
    ("plain", "as ( it ) is , now", "as ( it ) is , now"),
]


@pytest.mark.parametrize(("name", "text", "wanted"), PLAINLY)
def test_traces_of_tokenisation_are_taken_out(name, text, wanted):
    assert plain(text, SETS[name].rules) == wanted
    assert plain(wanted, SETS[name].rules) == wanted or name == "lambada"


def test_documents_are_lines_or_fields_with_the_words_that_they_had(tmp_path):
    (tmp_path / "wiki.test.raw").write_text(" \n = A b = \n \n Two words @-@ here . \n")
    found = list(documents(tmp_path / "wiki.test.raw", "wikitext2"))
    assert found == [("= A b =", 4), ("Two words-here.", 5)]
    (tmp_path / "lambada.jsonl").write_text(json.dumps({"text": "some “ text ”"}) + "\n")
    assert list(documents(tmp_path / "lambada.jsonl", "lambada")) == [('some " text "', 4)]
    with pytest.raises(ValueError, match="--zero-shot lambda: expected one of lambada, wikitext2"):
        list(documents(tmp_path / "wiki.test.raw", "lambda"))


def untrained(name, folder):
    """A model whose head is zero: every symbol is as probable as any other."""
    run = override(
        all_recipes()[name](), TINY[name] | {"network.timed": "False"}
    )  # a bound without the noise of times
    if name.startswith("owt"):
        vocabulary = Ids.vocabulary()
        run = override(run, {"network.vocab_size": str(vocabulary.size)})
        object.__setattr__(run, "vocabulary", vocabulary)
    run.write(run, folder, run.build(run.network).state_dict(), 0)
    return folder


def measured(*words, capsys):
    code = main(["eval", *map(str, words), "--json", "--quiet"])
    said = capsys.readouterr()
    return (code, json.loads(said.out)) if code == 0 else (code, said.err)


def test_a_uniform_model_has_as_much_perplexity_as_it_has_symbols(tmp_path, capsys):
    """Per token exactly V; per word V to the tokens of a word, over the words of the file as it is."""
    model = untrained("text8", tmp_path / "m")
    lines = ["The 1 @,@ 000 stars , ( 12 ) ."] * 9
    (tmp_path / "w").write_text("\n".join(lines))
    code, found = measured(model, tmp_path / "w", "--zero-shot", "wikitext2", capsys=capsys)
    assert code == 0
    tokens, words = 9 * len(text8("The 1,000 stars, (12).")), 9 * 10
    assert (found["data"]["tokens"], found["data"]["words"], found["data"]["documents"]) == (tokens, words, 9)
    assert found["perplexity"]["value"] == pytest.approx(27, rel=1e-6)
    assert found["nats"]["value"] == pytest.approx(math.log(27))
    assert found["word_perplexity"]["value"] == pytest.approx(27 ** (tokens / words), rel=1e-6)
    assert found["data"]["tokens_dropped"] == tokens % 16
    assert found["md4"] == [34.94, 25.84]


def test_a_tokenizers_documents_end_with_its_end_of_text(tmp_path, capsys):
    model = untrained("owt-small", tmp_path / "m")
    (tmp_path / "t").write_text("\n".join(["w1 w2 w3"] * 9))
    code, found = measured(model, tmp_path / "t", "--zero-shot", "plain", "-n", 1, capsys=capsys)
    assert code == 0
    assert (found["data"]["tokens"], found["data"]["words"]) == (9 * 4, 9 * 3)
    assert found["data"]["between_documents"] == repr(END)
    assert found["data"]["rows"] == 1
    assert found["perplexity"]["value"] == pytest.approx(40, rel=1e-6)


def test_mistakes_are_one_line(tmp_path, capsys):
    model = untrained("text8", tmp_path / "m")
    (tmp_path / "short").write_text("few")
    (tmp_path / "blank").write_text("\n \n")
    for words, message in (
        ((model, tmp_path / "short", "--zero-shot", "ptb"), "has 4 tokens; expected at least 16"),
        ((model, tmp_path / "blank", "--zero-shot", "ptb"), "holds no text; expected ptb.test.txt"),
        ((model, "--zero-shot", "ptb"), "--zero-shot ptb without data; expected its file: ptb.test.txt"),
        ((model, tmp_path / "short", "--zero-shot", "ptb", "--exact", 2), "expected no --generate, --exact"),
        ((model, tmp_path / "short", "--zero-shot", "web"), "--zero-shot web: expected one of lambada"),
        (("digits", tmp_path / "short", "--zero-shot", "ptb"), "is not one of a stream of text"),
    ):
        code, said = measured(*words, capsys=capsys)
        assert code == 2
        assert message in said
        assert said.count("\n") == 1
