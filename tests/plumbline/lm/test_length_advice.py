"""What is said of rows that are too long: how many more fit at which length."""

from __future__ import annotations

from plumbline.lm.context import LengthLimit


def test_lengths_that_let_rows_in_are_named():
    lengths = [10, 90, 120, 130, 140, 700]  # five are too long
    said = LengthLimit(80, "", context=1024).advice(lengths)
    assert said == ("of 5 that are too long, max_length 192 lets in 4, max_length 704 lets in 5")


def test_rows_beyond_the_context_are_told_apart():
    said = LengthLimit(80, "", context=500).advice([90, 700, 900])
    assert said == (
        "of 3 that are too long, max_length 128 lets in 1; 2 are longer than the model's own "
        "context (500 tokens)"
    )


def test_a_length_is_never_beyond_the_context():
    assert "max_length 100 lets in 1" in LengthLimit(80, "", context=100).advice([99])


def test_nothing_is_advised_where_nothing_helps():
    assert LengthLimit(80, "").advice([10, 80]) is None
    assert LengthLimit(80, "", context=80).advice([90]) is None
