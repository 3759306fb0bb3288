"""Agreement with references: exact match and F1 of SQuAD, BLEU and ROUGE, in any script.

In scripts that are written without spaces each character is a word (`evaluation.words`). For other
texts in Latin letters the values equal those of the SQuAD script, sacrebleu and rouge-score.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal

from evaluation.measures.measure import Columns, Measure, Metrics, Responses
from evaluation.measures.tokenizers import RougeTokenizer, bleu_tokens
from evaluation.words import words_of

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
Rouge = Literal["rouge1", "rouge2", "rougeL"]


def normalized(text: str) -> str:
    """Return a text normalized as in SQuAD: lower case, no punctuation, no English articles."""
    stripped = _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION))
    return " ".join(stripped.split())


def exact_match_of(text: str, reference: str) -> float:
    """Return 1 where both are equal after normalization, else 0."""
    return float(normalized(text) == normalized(reference))


def f1_of(text: str, reference: str) -> float:
    """Return the F1 of the words that both texts share, counted as often as they occur.

    Rajpurkar et al. (2016), with the rule of version 2 that an empty text agrees with an empty
    text only. In scripts without spaces each character counts as a word.
    """
    words, reference_words = words_of(normalized(text)), words_of(normalized(reference))
    if not words or not reference_words:
        return float(words == reference_words)
    common = sum((Counter(words) & Counter(reference_words)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(words), common / len(reference_words)
    return 2 * precision * recall / (precision + recall)


def exact_match() -> Measure:
    """Share of responses that equal one of the references after SQuAD's normalization."""
    return Measure(
        "exact_match", "exact match", "share of responses", True,
        _best_of("exact_match", exact_match_of), needs=("references",),
    )  # fmt: skip


def f1() -> Measure:
    """Mean F1 of words with the best reference, as in SQuAD."""
    return Measure(
        "f1", "F1 of words", "0 to 1", True, _best_of("f1", f1_of), needs=("references",)
    )


def bleu() -> Measure:
    """Corpus BLEU by sacrebleu (Papineni et al., 2002; Post, 2018), with its own defaults.

    Tokenizer 13a, and in scripts without spaces each character a token; exponential smoothing, case
    kept; all references of a row count. Rows without a reference are left out. BLEU is defined on
    the whole set and is not a mean over rows.
    """

    def of_set(responses: Responses, _: Columns) -> Metrics:
        import sacrebleu

        pairs = [
            (text, references)
            for text, references in zip(responses.texts(), responses.references(), strict=True)
            if references
        ]
        max_references = max(len(references) for _, references in pairs)
        # sacrebleu wants one list per reference number, with None where a row has fewer.
        columns = [
            [references[place] if place < len(references) else None for _, references in pairs]
            for place in range(max_references)
        ]
        tokens = _tokenized([text for text, _ in pairs])
        score = sacrebleu.corpus_bleu(  # it takes None, though it does not declare it
            tokens,  # type: ignore[arg-type]
            [_tokenized(column) for column in columns],  # type: ignore[misc]
            tokenize="none",
            force=True,  # it takes texts with full stops of their own for a mistake
        )
        return {"bleu": score.score}

    return Measure("bleu", "BLEU", "0 to 100", True, of_set=of_set, needs=("references",))


def _tokenized(texts: Sequence[str | None]) -> list[str | None]:
    """Return each text as its tokens, joined by spaces; None stays."""
    tokens = bleu_tokens([text or "" for text in texts])
    return [None if text is None else " ".join(t) for text, t in zip(texts, tokens, strict=True)]


def rouge(kind: Rouge, stemmer: bool = False) -> Measure:
    """Mean ROUGE F-measure by rouge-score (Lin, 2004), with the best reference.

    Words are those of the script of the text (`RougeTokenizer`); rouge-score alone sees Latin
    letters only. ``stemmer``: compare stems (Porter) instead of words.
    """
    name = {"rouge1": "rouge_1", "rouge2": "rouge_2", "rougeL": "rouge_l"}[kind]

    def by_row(responses: Responses) -> Columns:
        from rouge_score.rouge_scorer import RougeScorer

        scorer: Any = RougeScorer([kind], tokenizer=RougeTokenizer(stemmer))
        return {
            name: [
                float(scorer.score_multi(references, text)[kind].fmeasure) if references else None
                for text, references in zip(responses.texts(), responses.references(), strict=True)
            ]
        }

    title = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}[kind]
    return Measure(name, title, "F, 0 to 1", True, by_row, needs=("references",))


def _best_of(name: str, compare: Callable[[str, str], float]) -> Callable[[Responses], Columns]:
    def best(text: str, references: Sequence[str]) -> float | None:
        return max((compare(text, reference) for reference in references), default=None)

    return lambda responses: {
        name: [
            best(text, references)
            for text, references in zip(responses.texts(), responses.references(), strict=True)
        ]
    }
