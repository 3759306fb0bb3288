"""Measures of texts, against the libraries that define them, against loops, and by hand."""

from __future__ import annotations

import random

import pytest

from evaluation.measures import diversity, format_errors, references, registry
from evaluation.measures.measure import Responses, add_columns, measure_metrics
from plumbline.data.checkers import JsonObject, Pattern
from plumbline.data.records import user
from plumbline.errors import ConfigError
from plumbline.runs.calls import resolve
from plumbline.world.checks import ShopFormat
from plumbline.world.clerks import Style, answer
from plumbline.world.data import prompts
from plumbline.world.shop import Shop

_WORDS = [
    "the", "a", "an", "saws", "cost", "$7", "and,", "nails;", "are", "in", "aisle", "4.",
    "Delivered!", "No", "yes", "it's", "x-ray",
]  # fmt: skip


def rows_of(texts, wanted=None, **more):
    """Answers as rows; ``wanted`` are references."""
    return [
        {
            "prompt": [user("?")],
            "response": text,
            "finished": True,
            "tokens": len(text.split()) + 1,
            **({} if wanted is None else {"references": wanted[number]}),
            **{name: values[number] for name, values in more.items()},
        }
        for number, text in enumerate(texts)
    ]


def measured(measure, rows):
    """Return a measure's figures; it must apply."""
    assert add_columns(measure, Responses(rows)) is None
    return measure_metrics(measure, rows)


def made_up(count, seed=0, at_most=12, at_least=0):
    """Sentences of few words, so that they share n-grams; some are empty."""
    draw = random.Random(seed)
    return [
        " ".join(draw.choice(_WORDS) for _ in range(draw.randint(at_least, at_most)))
        for _ in range(count)
    ]


@pytest.fixture
def several():
    """Answers with one to three references each, one of them the answer itself."""
    texts = made_up(60, 1)
    draw = random.Random(2)
    wanted = [made_up(draw.randint(1, 3), 100 + n, at_least=1) for n in range(60)]
    wanted[5] = [texts[5], "no"]
    return texts, wanted


def test_exact_match_and_f1_are_those_of_the_squad_script(several):
    from torchmetrics.functional.text import squad

    texts, wanted = several
    expected = squad(
        [{"prediction_text": t, "id": str(n)} for n, t in enumerate(texts)],
        [
            {"answers": {"text": w, "answer_start": [0] * len(w)}, "id": str(n)}
            for n, w in enumerate(wanted)
        ],
    )
    rows = rows_of(texts, wanted)
    assert measured(references.exact_match(), rows)["exact_match"] * 100 == pytest.approx(
        expected["exact_match"].item(), abs=1e-4
    )
    ours = measured(references.f1(), rows)["f1"]
    # Where one of two texts has no word, version 2 of the script counts them as equal or not; the
    # first version, which torchmetrics follows, divides by nothing and gives 0.
    empty = sum(
        max(references.f1_of(t, w) for w in ws) for t, ws in zip(texts, wanted, strict=True)
        if not references.normalized(t)
    ) / len(texts)  # fmt: skip
    assert (ours - empty) * 100 == pytest.approx(expected["f1"].item(), abs=1e-4)
    assert 0.1 < ours < 0.9


def test_an_empty_answer_agrees_with_an_empty_reference_alone():
    assert references.f1_of("The.", "a") == 1.0
    assert references.f1_of("", "saws") == 0.0
    assert references.exact_match_of("The Saws!", "saws") == 1.0


def test_bleu_is_that_of_sacrebleu(several):
    from sacrebleu.metrics import BLEU

    texts, wanted = several
    streams = [[w[n] if n < len(w) else None for w in wanted] for n in range(3)]
    expected = BLEU().corpus_score(texts, streams)
    rows = rows_of(texts, wanted)
    assert measured(references.bleu(), rows)["bleu"] == expected.score > 0
    # A row without a reference is as if it were not there.
    more = [*rows, rows_of(["saws " * 30], [[]])[0]]
    assert measured(references.bleu(), more)["bleu"] == expected.score


def test_bleu_says_nothing_of_full_stops_that_are_tokens_of_their_own(caplog):
    measured(references.bleu(), rows_of(["Yes, it is ."] * 120, [["It is ."]] * 120))
    assert caplog.text == ""


@pytest.mark.parametrize(("kind", "name"), [("rouge1", "rouge_1"), ("rougeL", "rouge_l")])
def test_rouge_is_that_of_rouge_score(several, kind, name):
    from rouge_score.rouge_scorer import RougeScorer

    texts, wanted = several
    scorer = RougeScorer([kind], use_stemmer=True)
    expected = [
        max(scorer.score(w, t)[kind].fmeasure for w in ws)
        for t, ws in zip(texts, wanted, strict=True)
    ]
    rows = rows_of(texts, wanted)
    figures = measured(references.rouge(kind, stemmer=True), rows)
    assert [row[name] for row in rows] == expected
    assert figures[name] == pytest.approx(sum(expected) / 60)


@pytest.mark.parametrize("seed", [3, 4])
def test_self_bleu_is_sacrebleu_s_sentence_bleu_against_all_others(seed):
    import sacrebleu

    texts = [*made_up(25, seed), "saws cost $7", "saws cost $7", ""]
    expected = [
        sacrebleu.sentence_bleu(text, texts[:n] + texts[n + 1 :]).score
        for n, text in enumerate(texts)
    ]
    assert diversity.self_bleu_scores(texts) == pytest.approx(expected, abs=1e-9)
    assert diversity.self_bleu_scores(["alone"]) == [None]


def test_distinct_and_repetition_by_hand():
    rows = rows_of(["a b a b a b", "a b c", ""])
    # 9 words, 3 different; bigrams ab ba ab ba ab, ab bc: 7, of which ab, ba, bc are different.
    assert measured(diversity.distinct(1), rows) == {"distinct_1": 3 / 9}
    assert measured(diversity.distinct(2), rows) == {"distinct_2": 3 / 7}
    figures = measured(diversity.repetition(2), rows)
    assert [row["repetition"] for row in rows] == [1 - 2 / 5, 0.0, None]
    assert figures["repetition"] == pytest.approx(0.3)
    assert figures["repetition_se"] == pytest.approx(0.3)
    assert measured(diversity.characters(), rows)["characters"] == pytest.approx((11 + 5) / 3)


def test_errors_of_form_are_told_apart():
    texts = ["Fine.", " ", "so<|user|>what", "cut", "Bad"]
    rows = rows_of(texts, finished=[True, True, True, False, None])
    figures = measured(format_errors.format_errors(Pattern(r"[a-z.]$")), rows)
    assert [row["format_errors"] for row in rows] == [0, 1, 1, 1, 0]
    assert {name.partition(".")[2]: value for name, value in figures.items() if "." in name} == {
        "empty": 0.2, "cut_off": 0.2, "marks": 0.2, "checker": 0.2,
    }  # fmt: skip
    assert figures["format_errors"] == pytest.approx(0.6)


def test_checkers_say_what_is_wrong():
    with pytest.raises(ConfigError, match="regular expression"):
        Pattern("(")
    check = JsonObject(["a"])
    assert check.problem([], '```json\n{"a": 1}\n```') is None
    assert "has no a" in check.problem([], "{}")
    assert "list" in check.problem([], "[]") and "JSON" in check.problem([], "a")
    shop, form = Shop.from_seed(0), ShopFormat(0)
    for prompt in prompts(0, 9, "heldout"):
        assert form.problem(prompt, answer(shop, prompt, Style())) is None
        assert form.problem(prompt, "no") is not None


def test_a_measure_is_taken_only_of_what_it_needs():
    rows = rows_of(["a"])
    for name in ("exact_match", "bleu", "rouge_l", "numeric_accuracy"):
        assert "references" in add_columns(registry.MEASURES[name].load(), Responses(rows))
        assert measure_metrics(registry.MEASURES[name].load(), rows) == {}
    assert "reference model" in add_columns(
        registry.MEASURES["reference_perplexity"].load(), Responses(rows)
    )
    with_reference = rows_of(["a"], [["b"]])
    problem = add_columns(registry.MEASURES["perplexity"].load(), Responses(with_reference))
    assert "policy" in problem


def test_every_measure_has_its_own_name_and_is_explained():
    for name in registry.MEASURES:
        one = registry.MEASURES[name].load()
        assert one.name == name and one.title and one.unit
        assert one.by_row is not None or one.of_set is not None
    assert {one["name"] for one in registry.describe_measures()} == set(registry.MEASURES)
    with pytest.raises(ValueError, match="there is no measure 'blue'"):
        registry.MeasuresConfig(names=("blue",))


def test_a_user_s_files_make_measures(tmp_path):
    words, refusals = tmp_path / "words.txt", tmp_path / "refusals.txt"
    words.write_text("[insults]\nfool\n")
    refusals.write_text("no way\n")
    config = registry.MeasuresConfig(names=("refusal",), words=words, refusals=refusals)
    refusal, flagged = resolve(registry.select_measures(config))
    rows = rows_of(["No way, fool!", "Foolish? Gladly."])
    assert measured(refusal, rows)["refusal"] == 0.5
    assert measured(flagged, rows) == {
        "listed_words": 0.5, "listed_words_se": 0.5, "listed_words.insults": 0.5,
    }  # fmt: skip


def test_no_measure_bears_the_name_of_what_stands_in_every_row(tmp_path):
    from evaluation.tasks.sampling import response_columns
    from plumbline.lm.generation import Generation

    file = tmp_path / "words.txt"
    file.write_text("fool\n")
    config = registry.MeasuresConfig(names=tuple(registry.MEASURES), words=file)
    taken = {one.name for one in resolve(registry.select_measures(config))}
    assert len(taken) == len(registry.MEASURES) + 1
    fixed = {"prompt_id", "prompt", "subset", "references", "reference_logprob"}
    assert not taken & (fixed | set(response_columns("a", Generation([1], [0.0], True))))
    assert not taken & set(registry.BUILT_IN)
