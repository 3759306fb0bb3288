"""Words in any script: those of str.split where there are spaces, else characters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.words import words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("  two words \n", ["two", "words"]),
        ("Это Ελληνικά café", ["Это", "Ελληνικά", "café"]),
        ("红色的东西", list("红色的东西")),
        ("用 GPT-4 写", ["用", "GPT-4", "写"]),
        ("今天10元。", ["今", "天", "10", "元", "。"]),
        ("ありがとう カタカナ", list("ありがとうカタカナ")),
        ("สวัสดี", ["ส", "วั", "ส", "ดี"]),  # a vowel above its consonant belongs to it
        ("한국어 문장", ["한국어", "문장"]),
    ],
)
def test_words_by_hand(text, words):
    assert words_of(text) == words


@given(st.text(st.characters(max_codepoint=0x05FF)))
def test_scripts_with_spaces_are_split_as_python_does(text):
    assert words_of(text) == text.split()


@given(st.text())
def test_no_character_is_lost(text):
    assert "".join(words_of(text)) == "".join(text.split())
