"""Agreement with references: SQuAD's two measures, BLEU by sacrebleu, ROUGE by rouge-score."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal

from evaluation.measures.measure import Answers, Columns, Figures, Measure

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
Rouge = Literal["rouge1", "rouge2", "rougeL"]


def normalized(text: str) -> str:
    """Return a text as SQuAD compares it: lower case, no punctuation, no English articles."""
    bare = _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION))
    return " ".join(bare.split())


def exact_match_of(text: str, reference: str) -> float:
    """Return 1 where both are the same once normalised, else 0."""
    return float(normalized(text) == normalized(reference))


def f1_of(text: str, reference: str) -> float:
    """Return the F1 of the words that both have in common, counted as often as they occur.

    Rajpurkar et al. (2016), with version 2's rule that an empty text agrees with an empty text
    alone.
    """
    ours, theirs = normalized(text).split(), normalized(reference).split()
    if not ours or not theirs:
        return float(ours == theirs)
    common = sum((Counter(ours) & Counter(theirs)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(ours), common / len(theirs)
    return 2 * precision * recall / (precision + recall)


def exact_match() -> Measure:
    """Share of answers that are, normalised as SQuAD does, one of the references."""
    return Measure(
        "exact_match", "exact match", "share of answers", True,
        _best_of("exact_match", exact_match_of), needs=("references",),
    )  # fmt: skip


def f1() -> Measure:
    """Mean F1 of words with the reference that fits best, as SQuAD counts it."""
    return Measure(
        "f1", "F1 of words", "0 to 1", True, _best_of("f1", f1_of), needs=("references",)
    )


def bleu() -> Measure:
    """Corpus BLEU by sacrebleu (Papineni et al., 2002; Post, 2018), with its own defaults.

    Tokenizer 13a, exponential smoothing, case kept; all references of a row count. Rows without
    a reference are left out. Of the whole set: BLEU is no mean over rows.
    """

    def of_set(answers: Answers, _: Columns) -> Figures:
        import sacrebleu

        pairs = [
            (text, references)
            for text, references in zip(answers.texts(), answers.references(), strict=True)
            if references
        ]
        most = max(len(references) for _, references in pairs)
        # sacrebleu wants one list for each place among the references, None where a row has fewer.
        columns = [
            [references[place] if place < len(references) else None for _, references in pairs]
            for place in range(most)
        ]
        score = sacrebleu.corpus_bleu([text for text, _ in pairs], columns)  # type: ignore[arg-type]
        return {"bleu": score.score}

    return Measure("bleu", "BLEU", "0 to 100", True, of_set=of_set, needs=("references",))


def rouge(kind: Rouge, stemmer: bool = False) -> Measure:
    """Mean ROUGE F-measure by rouge-score (Lin, 2004), with the reference that fits best.

    ``stemmer``: compare stems (Porter) in place of words.
    """
    name = {"rouge1": "rouge_1", "rouge2": "rouge_2", "rougeL": "rouge_l"}[kind]

    def by_row(answers: Answers) -> Columns:
        from rouge_score.rouge_scorer import RougeScorer

        scorer: Any = RougeScorer([kind], use_stemmer=stemmer)
        return {
            name: [
                float(scorer.score_multi(references, text)[kind].fmeasure) if references else None
                for text, references in zip(answers.texts(), answers.references(), strict=True)
            ]
        }

    title = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}[kind]
    return Measure(name, title, "F, 0 to 1", True, by_row, needs=("references",))


def _best_of(name: str, compare: Callable[[str, str], float]) -> Callable[[Answers], Columns]:
    def best(text: str, references: Sequence[str]) -> float | None:
        return max((compare(text, reference) for reference in references), default=None)

    return lambda answers: {
        name: [
            best(text, references)
            for text, references in zip(answers.texts(), answers.references(), strict=True)
        ]
    }
