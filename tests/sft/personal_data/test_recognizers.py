"""What is found as personal data, on texts that were marked by others than the recognizers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

pytest.importorskip("phonenumbers")

from marked import by_hand, precision_and_recall

from plumbline.errors import ConfigError
from sft.personal_data.config import PersonalDataConfig
from sft.personal_data.mask import Masker
from sft.personal_data.names import NameList
from sft.personal_data.numbers import chinese_id_holds, iban_holds, luhn_holds


def found(text, **settings):
    masker = Masker.of(PersonalDataConfig(**settings))
    return [(text[start:end], kind) for start, end, kind in masker.find(text)]


def test_two_hundred_lines_written_by_hand():
    lines = by_hand()
    assert len(lines) == 200
    precision, recall, wrong = precision_and_recall(Masker.of(PersonalDataConfig()), lines)
    assert min(precision, recall) >= 0.98, wrong


@pytest.mark.parametrize("seed", [0, 1])
def test_five_hundred_marked_values_that_faker_made(seed):
    pytest.importorskip("faker")
    from made_by_faker import lines

    made, names = lines(500, seed)
    masker = Masker.of(PersonalDataConfig())
    masker.names = NameList(names)
    precision, recall, wrong = precision_and_recall(masker, made)
    assert min(precision, recall) >= 0.95, wrong
    for kind in ("email", "phone", "card", "iban", "ip", "us_ssn", "cn_id", "name"):
        of_kind = [line for line in made if any(k == kind for _, _, k in line[1])]
        assert precision_and_recall(masker, of_kind)[1] >= 0.9, kind


def test_rows_full_of_numbers_are_left_alone():
    pytest.importorskip("faker")
    from made_by_faker import clean_rows

    masker = Masker.of(PersonalDataConfig())
    masked = [row for row in clean_rows(1000, 0) if masker.find(row)]
    assert len(masked) <= 10, masked


@pytest.mark.parametrize(
    "text",
    [
        "4600 - 1286 + 4983 + 1010 - 3622 + 6644",
        "472547338\n+960397912423686\n-------",
        "The Edo period (1603-1868) was long.",
        "355909190063-746 is the exercise",
        "see 255.255.255.0, 127.0.0.1 and ::1",
        "a = b[1:20:3]; std::dead::beef(x)",
        "order number 4012888888881881",
        "2 ** 31 = 2147483648, 2 ** 63 = 9223372036854775808",
    ],
)
def test_arithmetic_years_code_and_order_numbers_are_not_personal(text):
    assert found(text) == []


def test_check_digits_of_published_examples():
    # ISO/IEC 7812-1's example, the IBAN registry's for Germany, GB 11643-1999's own example.
    assert luhn_holds("79927398713")
    assert not luhn_holds("79927398710")
    assert iban_holds("DE89370400440532013000")
    assert not iban_holds("DE88370400440532013000")
    assert chinese_id_holds("11010519491231002X")
    assert not chinese_id_holds("110105194912310021")


def test_where_two_kinds_overlap_one_counts():
    # An identity number has a card's length; a card has a telephone number's digits.
    assert found("身份证110101199003071233") == [("110101199003071233", "cn_id")]
    assert found("电话 4111 1111 1111 1111") == [("4111 1111 1111 1111", "card")]


def test_only_the_kinds_that_are_asked_for():
    text = "a@b.org, 4111 1111 1111 1111"
    assert found(text, kinds=("card",)) == [("4111 1111 1111 1111", "card")]


def test_regions_decide_which_local_numbers_count():
    german = "Tel. im Büro: 030 901820"
    assert found(german, regions=("DE",)) == [("030 901820", "phone")]
    with pytest.raises(ValueError, match="two capital letters"):
        PersonalDataConfig(regions=("Germany",))


def test_a_function_of_ones_own_is_one_more_kind(tmp_path, monkeypatch):
    (tmp_path / "my_kinds.py").write_text(
        "import re\ndef staff_number(text, regions):\n"
        "    return (m.span() for m in re.finditer(r'MA-\\d{5}', text))\n"
    )
    monkeypatch.chdir(tmp_path)
    assert found("Ask MA-12345.", kinds=("my_kinds.staff_number",)) == [
        ("MA-12345", "staff_number")
    ]


def test_names_are_whole_words_and_the_longest_counts(tmp_path):
    file = tmp_path / "names.txt"
    file.write_text("# staff\nAnn\nAnn Lee\nJ. Smith\nO'Brien\n王小明\n王小\n", encoding="utf-8")
    text = "Anna met Ann Lee, J. Smith and O'Brien. Ann wrote to 王小明。ann?"
    kinds = found(text, names=file, kinds=("email",))
    assert kinds == [(name, "name") for name in ("Ann Lee", "J. Smith", "O'Brien", "Ann", "王小明")]


@pytest.mark.parametrize(("content", "problem"), [("", "has no names"), ("A\n王\n", "single")])
def test_a_list_without_names_is_refused(tmp_path, content, problem):
    file = tmp_path / "names.txt"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=problem):
        NameList.read(file)
