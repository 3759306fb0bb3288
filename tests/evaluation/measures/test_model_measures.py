"""Measures that ask models: perplexities, safety terms, and that the batch does not matter."""

from __future__ import annotations

import math
import random

import pytest
import torch

from evaluation.measures.measure import Responses, add_columns, measure_metrics
from evaluation.measures.moderation import ClassifierModerator, WordList, moderation
from evaluation.measures.perplexity import perplexity, reference_perplexity, response_nats
from evaluation.measures.text_perplexity import perplexities, text_likelihoods
from plumbline.data.records import user
from plumbline.errors import DataError, ModelError
from plumbline.lm.chat import encode_response
from plumbline.runs.calls import SourceFile

ANSWERS = ["Certainly.", "The saws cost $7. Thank you!", "No.", "In aisle 3, " * 9 + "I think."]


def nats_of(policy, before, after):
    """Negative log-probability of ids, by the model itself and a plain softmax."""
    with torch.no_grad():
        logits = policy.model(torch.tensor([[*before, *after]])).logits[0]
    said = torch.log_softmax(logits.double(), -1)
    start = len(before)
    return -sum(said[start + n - 1, token].item() for n, token in enumerate(after))


def test_perplexity_of_references_is_that_of_a_plain_loop(policy, prompts):
    references = [[text] for text in ANSWERS]
    references[1] = ["Gladly.", "Yes."]
    rows = [
        {"prompt": prompt, "response": "", "references": wanted}
        for prompt, wanted in zip(prompts, [*references, []], strict=False)
    ]
    assert add_columns(perplexity(), Responses(rows, policy)) is None
    encoded = [
        encode_response(policy.tokenizer, row["prompt"], text)
        for row in rows
        for text in row["references"]
    ]
    nats = sum(nats_of(policy, *one) for one in encoded)
    tokens = sum(len(one.response_ids) for one in encoded)
    figures = measure_metrics(perplexity(), rows)
    assert figures["perplexity"] == pytest.approx(math.exp(nats / tokens), rel=1e-5)
    assert all(one.response_ids[-1] == policy.tokenizer.eos_token_id for one in encoded)


def test_perplexity_of_answers_to_the_reference_weighs_tokens_alike():
    rows = [
        {"response": "a", "reference_logprob": -2.0, "tokens": 1},
        {"response": "b", "reference_logprob": -3.0, "tokens": 9},
    ]
    assert add_columns(reference_perplexity(), Responses(rows)) is None
    found = measure_metrics(reference_perplexity(), rows)
    assert found["reference_perplexity"] == pytest.approx(math.exp(0.5))


def test_what_a_model_says_does_not_depend_on_the_batch(policy, prompts):
    """What is said of a row, alone and among others, differs by rounding: below 1e-4 nats."""
    texts = (ANSWERS * 3)[: len(prompts)]
    alone = response_nats(policy, prompts, texts, batch_size=1)
    for size in (2, 5, 64):
        together = response_nats(policy, prompts, texts, batch_size=size)
        assert [tokens for _, tokens in together] == [tokens for _, tokens in alone]
        assert [n for n, _ in together] == pytest.approx([n for n, _ in alone], abs=1e-4)


def documents(count=7):
    """Texts of different lengths, the longest of several windows, with odd white space."""
    draw = random.Random(0)
    words = [
        "the",
        "saws",
        "cost",
        "seven",
        "dollars",
        "in",
        "aisle",
        "",
        "four\n",
        "and",
        "café",
        "nails",
    ]
    return [
        " ".join(draw.choice(words) for _ in range(length)) + "."
        for length in (1, 5, 12, 60, 200, 400, 30)[:count]
    ]


def test_perplexity_of_texts_is_that_of_lm_evaluation_harness(policy):
    lm_eval = pytest.importorskip("lm_eval.models.huggingface")
    from lm_eval.api.instance import Instance
    from lm_eval.api.metrics import weighted_perplexity

    texts = documents()
    model = lm_eval.HFLM(pretrained=policy.model, tokenizer=policy.tokenizer, batch_size=2)
    theirs = model.loglikelihood_rolling(
        [Instance("loglikelihood_rolling", {}, (text,), n) for n, text in enumerate(texts)],
        disable_tqdm=True,
    )
    ours = text_likelihoods(policy, texts)
    assert len(policy.tokenizer(texts[5])["input_ids"]) > 2 * model.max_length
    assert [-one.nats for one in ours] == pytest.approx(theirs, rel=1e-5, abs=1e-3)

    import re

    words = [
        (total, len(re.split(r"\s+", text))) for total, text in zip(theirs, texts, strict=True)
    ]
    size = [(total, len(text.encode())) for total, text in zip(theirs, texts, strict=True)]
    found = perplexities(ours)
    assert found["word_perplexity"] == pytest.approx(weighted_perplexity(words), rel=1e-5)
    assert found["byte_perplexity"] == pytest.approx(weighted_perplexity(size), rel=1e-5)
    assert found["bits_per_byte"] == pytest.approx(math.log2(found["byte_perplexity"]))


def test_windows_of_texts_continue_each_other(policy):
    """Each token is predicted once, after what fits into the window with it."""
    (text,) = documents()[3:4]
    ids = policy.tokenizer(text, add_special_tokens=False)["input_ids"]
    opening = policy.tokenizer.bos_token_id
    (found,) = text_likelihoods(policy, [text], window=16)
    last = len(ids) // 16 * 16
    assert 0 < len(ids) - last < 16 < last
    expected = nats_of(policy, [opening], ids[:16]) + sum(
        nats_of(policy, ids[start - 1 : start], ids[start : start + 16])
        for start in range(16, last, 16)
    )
    expected += nats_of(policy, ids[len(ids) - 17 : last], ids[last:])
    assert found.tokens == len(ids)
    assert found.nats == pytest.approx(expected, rel=1e-6)
    batched = [text_likelihoods(policy, [text], window=16, batch_size=n)[0].nats for n in (1, 3)]
    assert batched == pytest.approx([found.nats] * 2, abs=1e-3)


def test_word_lists_flag_whole_words_by_term(tmp_path):
    file = tmp_path / "words.txt"
    file.write_text("# mine\nnitwit\n[insults]\nfool\nbird brain\n\n[brands]\nC++\n")
    moderator = WordList(SourceFile(file))
    found = moderator.moderate([[]] * 4, ["A FOOL!", "foolish bird  brain", "c++ nitwit", "fine"])
    assert found[0] == {"listed": 0.0, "insults": 1.0, "brands": 0.0}
    assert found[1] == {"listed": 0.0, "insults": 0.0, "brands": 0.0}
    assert found[2] == {"listed": 1.0, "insults": 0.0, "brands": 1.0}
    rows = [{"prompt": [user("?")], "response": text} for text in ("fool", "fine")]
    add_columns(moderation(moderator), Responses(rows))
    assert measure_metrics(moderation(moderator), rows)["listed_words"] == 0.5
    file.write_text("[insults\nfool\n")
    with pytest.raises(DataError, match="line 1"):
        WordList(SourceFile(file))
    file.write_text("# nothing\n")
    with pytest.raises(DataError, match="no word"):
        WordList(SourceFile(file))


@pytest.fixture
def classifier(tmp_path, tokenizer):
    """A text classifier of transformers with weights at random, saved in a folder."""
    from transformers import BertConfig, BertForSequenceClassification

    def make(labels, **more):
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=16, max_position_embeddings=64, initializer_range=0.5,
            id2label=dict(enumerate(labels)), label2id={name: n for n, name in enumerate(labels)},
            pad_token_id=tokenizer.pad_token_id, **more,
        )  # fmt: skip
        folder = tmp_path / "-".join(labels)
        BertForSequenceClassification(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make


def test_a_text_classifier_moderates(classifier, tokenizer):
    from transformers import AutoModelForSequenceClassification

    folder = classifier(["safe", "toxic", "spam"])
    moderator = ClassifierModerator(folder, batch_size=2, max_length=60)
    found = moderator.moderate([[]] * 4, ANSWERS)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    for text, terms in zip(ANSWERS, found, strict=True):
        with torch.no_grad():
            ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=60)
            shares = model(**ids).logits[0].softmax(-1)
        assert terms == pytest.approx(
            {"toxic": shares[1].item(), "spam": shares[2].item()}, abs=1e-6
        )
    measure = moderation(moderator, threshold=0.4)
    rows = [{"prompt": [user("?")], "response": text} for text in ANSWERS]
    add_columns(measure, Responses(rows))
    assert [row["classifier"] for row in rows] == [
        float(max(terms.values()) >= 0.4) for terms in found
    ]


def test_labels_that_do_not_exclude_each_other_are_read_one_by_one(classifier):
    folder = classifier(["hate", "threat"], problem_type="multi_label_classification")
    (found,) = ClassifierModerator(folder).moderate([[]], ["No."])
    assert set(found) == {"hate", "threat"}
    assert sum(found.values()) != pytest.approx(1, abs=1e-3)


def test_a_classifier_without_a_harmless_label_must_be_explained(classifier, tmp_path):
    folder = classifier(["LABEL_0", "LABEL_1"])
    with pytest.raises(ModelError, match="every response would be flagged"):
        ClassifierModerator(folder)
    (found,) = ClassifierModerator(folder, categories=["LABEL_1"]).moderate([[]], ["No."])
    assert set(found) == {"LABEL_1"}
    with pytest.raises(ModelError, match="no label 'bad'"):
        ClassifierModerator(folder, categories=["bad"])
    with pytest.raises(ModelError, match="holds no model"):
        ClassifierModerator(tmp_path)
