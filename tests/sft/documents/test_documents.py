"""Documents: what is read of each kind of file, and where slices and sentences stand."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline.errors import DataError
from sft.documents.document import Document, Heading, sentences
from sft.documents.readers import read_document
from sft.documents.slices import SlicesConfig, slices_of

MARKDOWN = """\
# Tea

Tea is a drink. It is made of leaves, e.g. of Assam.

```python
# not a heading
```

## Green *tea*

> ### How it is made
> Steam stops the leaves from turning brown! 绿茶是不发酵的茶。它很香。
"""


def test_markdown_has_headings_code_and_offsets_of_the_file(tmp_path):
    file = tmp_path / "tea.md"
    file.write_text(MARKDOWN, encoding="utf-8")
    document = read_document(file)
    assert document.text == MARKDOWN
    assert [(h.level, h.title) for h in document.headings] == [
        (1, "Tea"), (2, "Green *tea*"), (3, "How it is made"),
    ]  # fmt: skip
    (code,) = document.blocked
    assert MARKDOWN[slice(*code)] == "```python\n# not a heading\n```\n"
    place = MARKDOWN.index("Steam")
    assert document.path_of(place) == ("Tea", "Green *tea*", "How it is made")
    assert document.path_of(MARKDOWN.index("drink")) == ("Tea",)


def test_html_shows_what_a_reader_sees(tmp_path):
    file = tmp_path / "a.html"
    file.write_text(
        "<html><head><title>x</title></head><body><nav>menu</nav><h1>Tea &amp; more</h1>"
        "<p>Tea is <b>a drink</b>.</p><script>var x;</script><h2>Black</h2><ul><li>One</li>"
        "<li>Two</li></ul><pre>a  = b</pre></body></html>"
    )
    document = read_document(file)
    assert document.text == ("Tea & more\n\nTea is a drink.\n\nBlack\n\nOne\n\nTwo\n\na  = b\n\n")
    assert [(h.level, document.text[h.start : h.end]) for h in document.headings] == [
        (1, "Tea & more"), (2, "Black"),
    ]  # fmt: skip
    assert [document.text[a:b] for a, b in document.blocked] == ["a  = b"]


def test_word_has_headings_by_style_tables_and_code(tmp_path):
    docx = pytest.importorskip("docx")
    made = docx.Document()
    made.add_heading("Tea", 1)
    made.add_paragraph("Tea is a drink.")
    made.add_heading("Green", 2)
    table = made.add_table(1, 2)
    table.cell(0, 0).text, table.cell(0, 1).text = "sort", "price"
    made.save(tmp_path / "tea.docx")
    document = read_document(tmp_path / "tea.docx")
    assert document.text == "Tea\n\nTea is a drink.\n\nGreen\n\nsort | price\n\n"
    assert document.path_of(document.text.index("sort")) == ("Tea", "Green")
    assert [document.text[a:b] for a, b in document.blocked] == ["sort | price"]


def test_a_pdf_has_pages(tmp_path):
    pytest.importorskip("pypdfium2")
    file = tmp_path / "two.pdf"
    file.write_bytes(_pdf("Tea is a drink.", "Coffee is another."))
    document = read_document(file)
    assert document.page_of(document.text.index("Tea")) == 1
    assert document.page_of(document.text.index("Coffee")) == 2


def _pdf(*texts):
    """A PDF with a line of text on each page, written by hand."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", ""]
    kids = []
    for text in texts:
        content = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET"
        objects.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream")
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {len(objects)} 0 R "
            "/Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> "
            ">> >> >>"
        )
        kids.append(f"{len(objects)} 0 R")
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(texts)} >>"
    parts, places = ["%PDF-1.4\n"], []
    for number, body in enumerate(objects, 1):
        places.append(sum(map(len, parts)))
        parts.append(f"{number} 0 obj\n{body}\nendobj\n")
    start = sum(map(len, parts))
    parts.append(f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n")
    parts += [f"{place:010d} 00000 n \n" for place in places]
    parts.append(f"trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n")
    return "".join(parts).encode()


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.xls", b"x", "cannot be read as a document"),
        ("a.md", b"\xff\xfe", "not UTF-8"),
        ("a.md", b" \n", "holds no text"),
        ("a.docx", b"PK no zip", "as a Word document"),
        ("a.pdf", b"%PDF no", "as a PDF"),
    ],
)
def test_a_document_that_cannot_be_read_is_refused(tmp_path, name, content, problem):
    pytest.importorskip("docx")
    pytest.importorskip("pypdfium2")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=problem):
        read_document(tmp_path / name)


def test_sentences_end_where_people_end_them():
    text = "Dr. Lee came, e.g. on foot. “Why?” she asked! 他来了。她走了！ version 2.5 is out"
    assert [text[a:b] for a, b in sentences(text)] == [
        "Dr. Lee came, e.g. on foot.", "“Why?” she asked!", "他来了。", "她走了！",
        "version 2.5 is out",
    ]  # fmt: skip


PARTS = st.sampled_from(
    ["Tea is a drink. ", "绿茶很香。", "A longer sentence of some words! ", "\n\n", "x" * 90 + " "]
)


@given(st.lists(PARTS, max_size=40), st.integers(0, 3), st.integers(0, 60))
@settings(max_examples=150, deadline=None)
def test_slices_cover_their_section_within_limits(parts, headings, overlap):
    text = "".join(parts)
    step = len(text) // (headings + 1)
    marks = tuple(Heading(n * step, n * step, 1, f"h{n}") for n in range(1, headings + 1))
    config = SlicesConfig(max_characters=120, overlap=overlap, min_characters=0)
    made = slices_of(Document("d", text, marks), config)
    covered = set()
    for part in made:
        assert 0 < part.end - part.start <= 120
        assert not any(part.start < mark.start < part.end for mark in marks)
        covered.update(range(part.start, part.end))
    assert all(text[place].isspace() for place in set(range(len(text))) - covered)
    for one, two in pairwise(made):
        assert two.start > one.start
        assert one.end - two.start <= overlap


def test_a_slice_starts_with_the_last_sentences_of_the_one_before():
    text = " ".join(f"This is sentence number {n}." for n in range(20))
    made = slices_of(Document("d", text), SlicesConfig(max_characters=140, overlap=60))
    shared = [text[two.start : one.end] for one, two in pairwise(made)]
    assert shared
    assert all(part.count("sentence") == 2 for part in shared)
