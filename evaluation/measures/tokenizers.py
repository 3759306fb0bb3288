"""Tokenizers of BLEU and ROUGE for any script.

For ASCII texts they equal those of sacrebleu and rouge-score, which drop letters of other scripts
(rouge-score) or treat a whole sentence without spaces as one token (both).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from evaluation.words import words_of

#: Letters, digits and the marks on them; the underscore separates, as in rouge-score.
_MARKS = (
    "\u0300-\u036f\u0483-\u0487\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed"
    "\u0900-\u0dff\u0e31-\u0e4e\u0eb1-\u0ece\u0f71-\u0fbc\u102b-\u109d\u17b4-\u17dd\u3099\u309a"
)
_ALPHANUMERIC = re.compile(rf"[^\W_](?:[^\W_]|[{_MARKS}])*")


def bleu_tokens(texts: Sequence[str]) -> list[list[str]]:
    """Return the tokens of each text by sacrebleu's 13a; in scripts without spaces, characters."""
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    tokenize: Any = Tokenizer13a()  # type: ignore[no-untyped-call]
    return [words_of(str(tokenize(text.rstrip()))) for text in texts]


class RougeTokenizer:
    """The tokenizer of rouge-score for ASCII texts; for others, words of their own script."""

    def __init__(self, stemmer: bool) -> None:
        from rouge_score.tokenizers import DefaultTokenizer

        self._default = DefaultTokenizer(stemmer)

    def tokenize(self, text: str) -> list[str]:
        """Return the tokens of a text in order, in lower case."""
        if text.isascii():
            return self._tokens_of_ascii(text)
        runs = _ALPHANUMERIC.findall(unicodedata.normalize("NFKC", text).lower())
        words = [word for run in runs for word in words_of(run)]
        return [self._tokens_of_ascii(word)[0] if word.isascii() else word for word in words]

    def _tokens_of_ascii(self, text: str) -> list[str]:
        tokens: list[str] = self._default.tokenize(text)
        return tokens
