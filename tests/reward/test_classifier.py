"""Sequence classifiers of other tools as rewards: decoders and encoders, one label and several."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    GPT2Config,
    PreTrainedTokenizerFast,
)

from plumbline.data.records import assistant, user
from plumbline.errors import ModelError
from plumbline.lm.model_folder import Reference
from reward.classifier import load_scorer_tokenizer
from reward.scorer import RewardModelScorer

WORDS = ["what", "is", "this", "it", "red", "blue", "a", "thing"]
PROMPTS = [[user("what is this")], [user("is it red"), assistant("it is"), user("what is it")]]
RESPONSES = ["it is red", "a blue thing"]


def save(folder, config, special, labels, pair_form=None):
    """Save a classifier with random weights and a tokenizer of its own, as another tool would."""
    vocabulary = {token: n for n, token in enumerate([*special.values(), *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=special["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if pair_form is not None:
        single, pair = pair_form
        marks = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
        tokenizer.post_processor = TemplateProcessing(
            single=single, pair=pair, special_tokens=marks
        )
    torch.manual_seed(0)
    config.update(
        {
            "vocab_size": len(vocabulary),
            "pad_token_id": vocabulary[special["pad_token"]],
            "id2label": dict(enumerate(labels)),
            "label2id": {label: n for n, label in enumerate(labels)},
        }
    )
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    return folder


@pytest.fixture
def decoder(tmp_path):
    """Return what saves a GPT-2 with labels."""
    special = {"unk_token": "<unk>", "eos_token": "<end>", "pad_token": "<pad>"}
    config = GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=64)
    return lambda *labels: save(tmp_path / "decoder", config, special, labels)


@pytest.fixture
def encoder(tmp_path):
    """Return what saves a BERT with labels; its tokenizer has no template and no end token."""
    special = {
        "unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]",
    }  # fmt: skip
    config = BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=24,
    )  # fmt: skip
    forms = ("[CLS]:0 $A:0 [SEP]:0", "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1")
    return lambda *labels: save(tmp_path / "encoder", config, special, labels, forms)


def pair_logits(folder):
    """Return the logits of prompts and responses as pairs, by transformers alone, one at a time."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    firsts = ["what is this", "is it red\nit is\nwhat is it"]
    with torch.no_grad():
        return torch.cat(
            [
                model(**tokenizer(first, second, return_tensors="pt")).logits
                for first, second in zip(firsts, RESPONSES, strict=True)
            ]
        )


def decoder_logits(folder):
    """Return the logits of conversations as the scorer's template writes them."""
    tokenizer = load_scorer_tokenizer(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    model.config.pad_token_id = tokenizer.pad_token_id
    texts = [
        tokenizer.apply_chat_template([*prompt, assistant(response)], tokenize=False)
        for prompt, response in zip(PROMPTS, RESPONSES, strict=True)
    ]
    with torch.no_grad():
        return torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in texts])


def test_a_decoder_with_one_label_gives_its_output(decoder):
    folder = decoder("reward")
    expected = decoder_logits(folder)[:, 0].tolist()
    assert RewardModelScorer(folder).score(PROMPTS, RESPONSES) == pytest.approx(expected, abs=1e-5)


def test_a_decoder_with_two_labels_is_asked_for_the_second_or_for_the_named_one(decoder):
    folder = decoder("NEGATIVE", "POSITIVE")
    logits = decoder_logits(folder)
    shares = logits.softmax(1)
    expected = (shares[:, 1] / shares[:, 0]).log().tolist()
    scores = RewardModelScorer(folder).score(PROMPTS, RESPONSES)
    assert scores == pytest.approx(expected, abs=1e-5) and abs(expected[0] - expected[1]) > 1e-3
    negative = RewardModelScorer(folder, label="negative").score(PROMPTS, RESPONSES)
    assert negative == pytest.approx([-value for value in expected], abs=1e-5)


@pytest.mark.parametrize("labels", [("score",), ("bad", "good")])
def test_an_encoder_reads_prompt_and_response_as_a_pair(encoder, labels, tmp_path):
    folder = encoder(*labels)
    logits = pair_logits(folder)
    expected = (logits[:, 0] if len(labels) == 1 else logits[:, 1] - logits[:, 0]).tolist()
    scorer = RewardModelScorer(folder)
    assert scorer.score(PROMPTS, RESPONSES) == pytest.approx(expected, abs=1e-5)
    assert scorer.problem_with(PROMPTS[0]) is None
    # Longer than its 24 positions: cut, and not an error.
    assert len(scorer.score([[user("what is this " * 20)]], ["it is red"])) == 1
    linked = tmp_path / "linked"
    linked.mkdir()
    Reference(str(folder)).write(linked)
    again = RewardModelScorer(linked).score(PROMPTS, RESPONSES)
    assert again == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("labels", "label", "said"),
    [
        (("a", "b", "c"), "c", r"has 3: 0 \(a\), 1 \(b\), 2 \(c\)"),
        (("a", "b"), "good", r"no label 'good'; it has 0 \(a\), 1 \(b\)"),
        (("a",), "good", "one output only"),
    ],
)
def test_a_label_that_is_not_clear_is_refused_with_those_there_are(decoder, labels, label, said):
    with pytest.raises(ModelError, match=said):
        RewardModelScorer(decoder(*labels), label=label)
