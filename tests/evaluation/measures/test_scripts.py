"""Measures on other scripts than Latin: equal texts agree, different ones do less."""

from __future__ import annotations

import pytest
import sacrebleu

from evaluation.measures import diversity, references
from evaluation.measures.measure import Responses, add_columns, measure_metrics
from evaluation.measures.tokenizers import RougeTokenizer, bleu_tokens

TEXTS = {
    "English": "The red item costs ten crowns today.",
    "Chinese": "红色的东西今天卖十克朗。",
    "Japanese": "赤いものは今日十クローネです。",
    "Thai": "สวัสดีครับ วันนี้อากาศดี",
    "Khmer": "សួស្តីពិភពលោកទាំងមូល",
    "Russian": "Красный предмет стоит сегодня десять крон.",
    "Greek": "Το κόκκινο αντικείμενο κοστίζει δέκα κορώνες.",
    "Arabic": "الشيء الأحمر يكلف عشرة كرونات اليوم.",
    "Hindi": "लाल चीज़ की कीमत आज दस क्राउन है।",
    "Korean": "빨간 물건은 오늘 십 크로네입니다.",
    "German": "Der rote Würfel kostet für Ärzte zehn Kronen.",
}


def metrics_of(response, reference):
    rows = [{"prompt": [], "response": response, "references": [reference]}]
    metrics = {}
    for measure in (
        references.rouge("rouge1"), references.rouge("rouge2"), references.rouge("rougeL"),
        references.bleu(), references.exact_match(), references.f1(),
    ):  # fmt: skip
        assert add_columns(measure, Responses(rows)) is None
        metrics |= measure_metrics(measure, rows)
    return metrics


@pytest.mark.parametrize("language", TEXTS)
def test_equal_texts_agree_in_every_script(language):
    text = TEXTS[language]
    metrics = metrics_of(text, text)
    for name in ("rouge_1", "rouge_2", "rouge_l", "exact_match", "f1"):
        assert metrics[name] == 1.0, name
    assert metrics["bleu"] == pytest.approx(100)


@pytest.mark.parametrize("language", ["Chinese", "Thai", "Russian", "Greek"])
def test_half_of_a_text_agrees_by_half(language):
    text = TEXTS[language]
    tokens = RougeTokenizer(False).tokenize(text)
    half = text[: len(text) // 2]
    metrics = metrics_of(half, text)
    shared = len(RougeTokenizer(False).tokenize(half))
    # Precision is 1 but for a cut word; recall is the share of the tokens.
    recall = shared / len(tokens)
    assert metrics["rouge_1"] == pytest.approx(2 * recall / (1 + recall), abs=0.2)
    assert 0.3 < metrics["rouge_1"] < 0.95 and metrics["exact_match"] == 0


def test_two_texts_of_one_script_that_share_nothing_do_not_agree():
    metrics = metrics_of("今天好", TEXTS["Russian"])
    assert metrics["rouge_1"] == metrics["f1"] == 0


@pytest.mark.parametrize("seed", range(3))
def test_chinese_bleu_is_that_of_sacrebleu_s_chinese_tokenizer(seed):
    import random

    rng = random.Random(seed)
    texts = ["".join(rng.choices("红色的东西今天卖十克朗和蓝", k=12)) + "。" for _ in range(10)]
    wanted = ["".join(rng.choices("红色的东西今天卖十克朗和蓝", k=12)) + "。" for _ in range(10)]
    rows = [
        {"prompt": [], "response": text, "references": [other]}
        for text, other in zip(texts, wanted, strict=True)
    ]
    expected = sacrebleu.corpus_bleu(texts, [wanted], tokenize="zh").score
    assert measure_metrics(references.bleu(), rows)["bleu"] == pytest.approx(expected)


def test_tokens_by_hand():
    assert bleu_tokens(["GPT-4说：好，10元。"]) == [
        ["GPT-4", "说", "：", "好", "，", "10", "元", "。"]
    ]
    assert RougeTokenizer(False).tokenize("Café_Über 红色 x") == ["café", "über", "红", "色", "x"]
    assert RougeTokenizer(True).tokenize("running Ärzte") == ["run", "ärzte"]


def test_length_and_repetition_count_characters_where_there_are_no_spaces():
    rows = [{"prompt": [], "response": "好好好好好好"}, {"prompt": [], "response": "一二三四五六"}]
    assert add_columns(diversity.repetition(2), Responses(rows)) is None
    assert [row["repetition"] for row in rows] == [1 - 1 / 5, 0.0]
    assert measure_metrics(diversity.distinct(1), rows) == {"distinct_1": 7 / 12}
    assert diversity.self_bleu_scores(["今天天气很好", "今天天气很好"]) == pytest.approx([100, 100])
