"""The number of a text and the calculations in it: worked by hand, by properties, on GSM8K."""

from __future__ import annotations

import json
import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.measures import reasoning
from evaluation.measures.calculations import calculations
from evaluation.measures.measure import Responses, add_columns, measure_metrics
from plumbline.data.numbers import numbers_in, result_of
from plumbline.data.records import user


def rows_of(texts, references=None):
    """Responses as rows, with a list of references each."""
    return [
        {"prompt": [user("?")], "response": text}
        | ({} if references is None else {"references": references[place]})
        for place, text in enumerate(texts)
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # Where the number of a text stands.
        ("7 + 5 = 12\n#### 1,234", "1234"),
        (r"so \boxed{-3.50} it is, of 9", "-7/2"),
        ("Answer: $41. Thank you, 7 times!", "41"),
        ("The answer is 8 of 10.", "8"),
        ("Answer: 3 + 4 = 7", "7"),
        ("The final answer is $x = \\frac{1}{2}$", "1/2"),
        ("Answer: **42**", "42"),
        ("Answer: \\(42\\)", "42"),
        ("x2 is no number, 0.75 is", "3/4"),
        ("I have 3 apples, covid-19", "3"),
        # Signs.
        ("It is -2", "-2"), ("The answer is −5.", "-5"), ("The result = - 5", "-5"),
        ("- 5 apples", "5"), ("+7", "7"), ("5-3=2", "2"), ("-0.5%", "-1/200"),
        # Decimal points and commas, groups.
        ("Das macht 12,50 Euro", "25/2"), ("0,125", "1/8"), ("costs .5", "1/2"),
        ("1 234", "1234"), ("1 234 567", "1234567"), ("5\u202f000", "5000"),
        ("1.234,56 Euro", "123456/100"), ("It costs $1,234.56.", "123456/100"),
        ("1'234.50", "12345/10"), ("12,345,678", "12345678"), ("3.14.", "314/100"),
        ("５０", "50"), ("٣", "3"),
        # Fractions.
        ("5/4", "5/4"), ("#### 1/4", "1/4"), (r"So \boxed{\frac{7}{3}}", "7/3"),
        (r"\boxed{-\frac12}", "-1/2"), (r"\boxed{1\frac{1}{2}}", "3/2"), ("1½", "3/2"),
        ("⅔ cup", "2/3"), ("Total: 1/2", "1/2"),
        # Per cent, exponents, words of scale, currencies, units.
        ("5%", "1/20"), ("20 percent", "1/5"), (r"\boxed{12\%}", "3/25"),
        ("1e3", "1000"), ("1.5E-4", "3/20000"), ("6.02 × 10^23", "602" + "0" * 21),
        ("3 million", "3000000"), ("10k people", "10000"), ("$10K", "10000"),
        (r"\boxed{\$1{,}234}", "1234"), (r"\boxed{5\text{ cm}}", "5"), ("5 km.", "5"),
        # No single number.
        ("none", None), ("at 3:30", None), ("10:30", None), ("first 3, then 4-5", None),
        ("3–4 apples", None), ("3/4/2024", None), ("2024-05-01", None), ("1.2.3", None),
        ("2^5", None), ("The answer is 2*3", None), (r"\boxed{3\sqrt{2}}", None),
        (r"\boxed{5x}", None), (r"\boxed{(1,2)}", None), ("7/0", None), ("1,23,456", None),
    ],
)  # fmt: skip
def test_a_text_has_its_own_number_or_none(text, value):
    assert result_of(text) == (None if value is None else Fraction(value))


@pytest.mark.parametrize(
    ("response", "reference", "right"),
    [
        (r"So \boxed{\frac{7}{3}}", r"\boxed{\frac{2}{3}}", False),
        ("at 3:30", "10:30", None),
        ("5/4", "#### 1/4", False),
        ("The answer is −5.", "#### -5", True),
        ("Das macht 12,50 Euro", "12.50", True),
        ("5%", "0.05", True),
        ("1 234", "1234", True),
        ("1e3", "1000", True),
    ],
)
def test_case_14_numbers_that_are_not_whole(response, reference, right):
    rows = rows_of([response], [[reference]])
    problem = add_columns(reasoning.numeric_accuracy(), Responses(rows))
    if right is None:  # the reference is a time
        assert "number" in problem
    else:
        assert rows[0]["numeric_accuracy"] == float(right)


_FRACTIONS = st.fractions(min_value=-(10**9), max_value=10**9, max_denominator=10**6)


@given(_FRACTIONS, st.sampled_from(["{}", "#### {}", "\\boxed{{{}}}", "So the answer is {}."]))
def test_every_fraction_is_read_as_itself(value, frame):
    assert result_of(frame.format(value)) == value


@given(st.integers(-(10**12), 10**12), st.integers(0, 6))
def test_a_decimal_is_the_same_number_with_point_comma_and_groups(whole, decimals):
    value = Fraction(whole, 10**decimals)
    text = f"{abs(whole) // 10**decimals}"
    tail = f"{abs(whole) % 10**decimals:0{decimals}d}" if decimals else ""
    sign = "-" if whole < 0 else ""
    assert result_of(f"It is {sign}{text}{'.' * bool(tail)}{tail}") == value
    grouped = f"{abs(whole) // 10**decimals:,}"
    assert result_of(f"It is {sign}{grouped}{'.' * bool(tail)}{tail}") == value
    if tail and len(tail) != 3:  # 1,234 is read as in English
        assert result_of(f"It is {sign}{text},{tail} Euro") == value


@given(st.text(alphabet="0123456789.,:/-−+*^%$e½x \\boxed{}frac#=()", max_size=60))
def test_no_text_breaks_the_reader(text):
    value = result_of(text)
    assert value is None or isinstance(value, Fraction)
    assert all(0 <= number.start < number.end <= len(text) for number in numbers_in(text))


@pytest.mark.parametrize(
    "text",
    ["9" * 5000, "1," * 20000, "3-4 " * 20000, "\\frac{" * 2000 + "1}{2}" * 2000,
     "answer " * 20000, "\\boxed{" * 20000, "1 " * 30000 + "9" * 5000 + "/2", "1/" * 20000],
    ids=["digits", "commas", "ranges", "nested", "answers", "boxes", "mixed", "slashes"],
)  # fmt: skip
def test_hostile_texts_take_no_long_time(text):
    started = time.monotonic()
    result_of(text)
    assert time.monotonic() - started < 20  # quadratic searches took minutes


def test_numeric_accuracy_counts_responses_without_a_number_as_wrong():
    rows = rows_of(
        ["Answer: 4.0", "Answer: 5", "nothing", "7", "at 3:30"],
        [["#### 4"], ["4", "5"], ["3"], ["no number"], ["3"]],
    )
    measure = reasoning.numeric_accuracy()
    assert add_columns(measure, Responses(rows)) is None
    metrics = measure_metrics(measure, rows)
    assert [row["numeric_accuracy"] for row in rows] == [1.0, 1.0, 0.0, None, 0.0]
    assert metrics["numeric_accuracy"] == pytest.approx(2 / 4)
    assert metrics["numeric_accuracy.unreadable"] == pytest.approx(2 / 4)
    problem = add_columns(measure, Responses(rows_of(["4"], [["no number"]])))
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
def test_each_calculation_of_a_worked_solution_is_checked(text, holds):
    assert [calculation.holds for calculation in calculations(text)] == holds


def test_step_accuracy_has_no_value_for_responses_without_a_calculation():
    rows = rows_of(["1 + 1 = 2, 2 + 2 = 5", "Gladly."])
    measure = reasoning.step_accuracy()
    assert add_columns(measure, Responses(rows)) is None
    assert [row["step_accuracy"] for row in rows] == [0.5, None]
    assert measure_metrics(measure, rows) == {
        "step_accuracy": 0.5, "step_accuracy_se": 0.0, "step_accuracy.calculations": 1.0,
    }  # fmt: skip


def test_people_s_own_solutions_are_read_and_nearly_always_right(real_file):
    lines = real_file("gsm8k/test.jsonl").read_text().splitlines()
    solutions = [json.loads(line)["answer"] for line in lines]
    steps = [calculations(text) for text in solutions]
    found = [step for some in steps for step in some]
    assert len(solutions) == 1319
    assert sum(bool(some) for some in steps) > 0.98 * len(solutions)
    assert sum(step.holds for step in found) > 0.99 * len(found) > 4000
    references = [text.split("#### ")[1].replace(",", "") for text in solutions]
    assert [result_of(text) for text in solutions] == [Fraction(text) for text in references]
