"""Measures of texts, against the libraries that define them, against loops, and by hand."""

from __future__ import annotations

import json
import random
from decimal import Decimal

import pytest

from evaluation.measures import behavior, diversity, reasoning, references, registry
from evaluation.measures.measure import Answers, add_columns, figures_of
from evaluation.measures.numbers import calculations, result_of
from evaluation.tasks.checkers import JsonObject, Pattern
from plumbline.data.records import user
from plumbline.errors import ConfigError, DataError
from plumbline.runs.calls import SourceFile, resolve
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
    assert add_columns(measure, Answers(rows)) is None
    return figures_of(measure, rows)


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
    assert figures["repetition_error"] == pytest.approx(0.3)
    assert measured(diversity.characters(), rows)["characters"] == pytest.approx((11 + 5) / 3)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("7 + 5 = 12\n#### 1,234", "1234"),
        (r"so \boxed{-3.50} it is, of 9", "-3.5"),
        ("Answer: $41. Thank you, 7 times!", "41"),
        ("The answer is 8 of 10.", "8"),
        ("first 3, then 4-5", "5"),
        ("It is -2", "-2"),
        ("x2 is no number, 0.75 is", "0.75"),
        ("none", None),
    ],
)
def test_the_number_that_an_answer_comes_to(text, result):
    assert result_of(text) == (None if result is None else Decimal(result))


def test_numeric_accuracy_counts_rows_with_a_number_to_come_to():
    rows = rows_of(
        ["Answer: 4.0", "Answer: 5", "nothing", "7"], [["#### 4"], ["4", "5"], ["3"], ["no number"]]
    )
    figures = measured(reasoning.numeric_accuracy(), rows)
    assert [row["numeric_accuracy"] for row in rows] == [1.0, 1.0, 0.0, None]
    assert figures["numeric_accuracy"] == pytest.approx(2 / 3)
    problem = add_columns(reasoning.numeric_accuracy(), Answers(rows_of(["4"], [["no number"]])))
    assert "number" in problem


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("3 saws cost 3 x 12 = 36. Delivered: 36 + 5 = 41. Answer: $41.", [True, True]),
        ("2 + 2 = 5 and 1+1=2", [False, True]),
        ("10/3 = 3.33 but 10/3 = 3", [True, False]),
        ("2 * 3 = 6 = 5 + 1 = 7", [True, True, False]),
        ("(2+3)*4 = 20 apples, 1,200 + 300 = $1,500.", [True, True]),
        ("50% * 200 = 100; 45 + 21 = 66%", [True, True]),
        ("-3 + 5 = 2, 6 ÷ 4 = 1 1/2, .5 × 4 = 2", [True, True, True]),
        ("5 - 5/0 = 5", [False]),
        ("x = 5; 3 boxes x 4 = 12; 4x-13 = 2; a - 4 = 9", []),
        ("48/2 = <<48/2=24>>24 clips, twice: <<24*2=49>>", [True, False]),
    ],
)
def test_each_calculation_of_a_worked_answer_is_checked(text, holds):
    assert [one.holds for one in calculations(text)] == holds


def test_step_accuracy_says_nothing_of_answers_without_a_calculation():
    rows = rows_of(["1 + 1 = 2, 2 + 2 = 5", "Gladly."])
    figures = measured(reasoning.step_accuracy(), rows)
    assert [row["step_accuracy"] for row in rows] == [0.5, None]
    assert figures == {
        "step_accuracy": 0.5, "step_accuracy_error": 0.0, "step_accuracy.calculations": 1.0,
    }  # fmt: skip


def test_people_s_own_working_is_read_and_nearly_always_right(real_file):
    lines = real_file("gsm8k/test.jsonl").read_text().splitlines()
    answers = [json.loads(line)["answer"] for line in lines]
    steps = [calculations(text) for text in answers]
    found = [step for one in steps for step in one]
    assert len(answers) == 1319
    assert sum(bool(one) for one in steps) > 0.98 * len(answers)
    assert sum(step.holds for step in found) > 0.99 * len(found) > 4000
    assert all(str(result_of(text)) == text.split("#### ")[1].replace(",", "") for text in answers)


def test_refusals_are_known_by_how_answers_open(tmp_path):
    texts = [
        "I’m sorry, but I can't help with that.", "Certainly. I cannot fault them.",
        "Gladly! " * 20 + "I cannot.", "Unfortunately, I cannot say.", "Wi cannot",
    ]  # fmt: skip
    assert [behavior.refuses(text) for text in texts] == [True, True, False, True, False]
    file = tmp_path / "phrases.txt"
    file.write_text("Gladly\n\n")
    rows = rows_of(texts)
    figures = measured(behavior.refusal(SourceFile(file)), rows)
    assert figures["refusal"] == pytest.approx(1 / 5)
    file.write_text("\n")
    with pytest.raises(DataError, match="no phrase"):
        behavior.refusal(SourceFile(file))


def test_errors_of_form_are_told_apart():
    texts = ["Fine.", " ", "so<|user|>what", "cut", "Bad"]
    rows = rows_of(texts, finished=[True, True, True, False, None])
    figures = measured(behavior.format_errors(Pattern(r"[a-z.]$")), rows)
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
        assert "references" in add_columns(registry.measure_named(name), Answers(rows))
        assert figures_of(registry.measure_named(name), rows) == {}
    assert "reference model" in add_columns(
        registry.measure_named("reference_perplexity"), Answers(rows)
    )
    with_reference = rows_of(["a"], [["b"]])
    problem = add_columns(registry.measure_named("perplexity"), Answers(with_reference))
    assert "policy" in problem


def test_every_measure_has_its_own_name_and_is_explained():
    for name in registry.REGISTRY:
        one = registry.measure_named(name)
        assert one.name == name and one.title and one.unit
        assert one.by_row is not None or one.of_set is not None
    assert {one["name"] for one in registry.explained()} == set(registry.REGISTRY)
    with pytest.raises(ValueError, match="no measure 'blue'"):
        registry.MeasuresConfig(names=("blue",))
    with pytest.raises(ConfigError, match="no measure 'blue'"):
        registry.measure_named("blue")


def test_a_user_s_files_make_measures(tmp_path):
    words, refusals = tmp_path / "words.txt", tmp_path / "refusals.txt"
    words.write_text("[insults]\nfool\n")
    refusals.write_text("no way\n")
    config = registry.MeasuresConfig(names=("refusal",), words=words, refusals=refusals)
    refusal, flagged = resolve(registry.chosen(config))
    rows = rows_of(["No way, fool!", "Foolish? Gladly."])
    assert measured(refusal, rows)["refusal"] == 0.5
    assert measured(flagged, rows) == {
        "listed_words": 0.5, "listed_words_error": 0.5, "listed_words.insults": 0.5,
    }  # fmt: skip


def test_no_measure_bears_the_name_of_what_stands_in_every_row(tmp_path):
    from evaluation.tasks.sampling import _row
    from plumbline.lm.generation import Generation

    file = tmp_path / "words.txt"
    file.write_text("fool\n")
    config = registry.MeasuresConfig(names=tuple(registry.REGISTRY), words=file)
    taken = {one.name for one in resolve(registry.chosen(config))}
    assert len(taken) == len(registry.REGISTRY) + 1
    fixed = {"prompt_id", "prompt", "subset", "references", "reference_logprob"}
    assert not taken & (fixed | set(_row("a", Generation([1], [0.0], True))))
    assert not taken & set(registry.BUILT_IN)
