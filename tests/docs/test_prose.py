"""Plain English: no word of the stop-list in pages, docstrings, help, messages and comments.

A reader whose first language is not English must understand a sentence when reading it once. The
list holds words that failed this, each with what to write instead. It grows whenever one more is
found. `EXCEPTIONS` names where such a word is right.
"""

import ast
import io
import re
import tokenize

import pytest

from site_builder.links import lines
from site_builder.pages import ROOT

PER = (
    r"(answers|bits?|columns?|figures?|functions?|labels?|lines?|nats?|numbers?|objects?|points?"
    r"|products?|prompts|responses|rows?|samples|seconds?|seeds?|steps|tokens|trials|values?|votes?"
    r"|words) an? "
    r"(answer|byte|column|day|hour|item|line|method|minute|pair|person|prompt|question|response"
    r"|round|row|second|seed|side|step|table|token|trial|turn|word)"
)

#: What is refused, as a regular expression, and what to write instead.
STOP = {
    PER: "per: 'nats per response'",
    r"nought": "zero",
    r"(goes|go|going|went|gone) on": "resumes, continues, runs",
    r"told apart|tell (\w+ ){1,3}apart": "significantly different; distinguish",
    r"(?<!standard )(?<!Standard )deviations?": "standard deviation",
    r"whoever|whosoever": "anyone who, or the noun: the labeller, the user",
    r"whatever": "any, everything that",
    r"knobs?": "setting",
    r"one's": "your",
    r"quarter of an hour": "15 minutes",
    r"press(es|ing)? (up)?on": "optimises hard against",
    r"bears? (it |them |this )?out": "supports, shows",
    r"(each|every|all|last|first|two|few) looks?": "evaluation of a checkpoint",
    r"for want of": "because there is no",
    r"to be had": "available",
    r"at hand": "available",
    r"unseen": "hidden",
    r"shut(s)? (\w+ )?out": "locked",
    r"mend(s|ed|ing)?": "fix",
    r"lest|albeit|thereof|hereby|wherein|therein|whence|thence": "a plain word",
    r"hitherto|whilst|amongst": "a plain word",
    r"heeds?|heeded": "respects",
    r"ought to": "should",
    r"tells? (how|what|which|whether|when|where|of|about)": "says, shows",
    r"presently|anew": "again",
    r"in a hundred|of a hundred|in ten\b": "per cent",
    r"beyond doubt": "certain",
    r"makes? do": "uses",
    r"lies? about": "are found",
    r"comes? about": "arises, is made",
    r"rewarder": "reward model",
    r"(?<!there )is no (?!longer|more|such|need|reason|better|worse|doubt)\w+": "is not a",
    r"(lies?|lay|lying) (beside|below|in|on|there|outside|near|where|at|under)": "is, are",
    r"(speaks?|says?) of": "applies to, says about",
    r"(told|tell) from": "distinguished from",
    r"what came of": "the results of",
    r"first polic(y|ies)": "SFT policy",
}

#: Where a word of the list is right: file, and the words around it.
EXCEPTIONS: set[tuple[str, str]] = {
    # A judge's prompt has a version: other words would be another judge.
    ("annotation/llm_judge/prompt.py", "Whatever stands between them"),
    # What a rude clerk says.
    ("plumbline/world/gold.py", "as i said|whatever"),
}

PAGES = sorted(
    file.relative_to(ROOT).as_posix()
    for file in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    if "example-report" not in file.parts
)
CODE = sorted(
    file.relative_to(ROOT).as_posix()
    for folder in (
        "annotation", "benchmarks", "docs", "evaluation", "plumbline", "preference", "recipes",
        "reward", "rl", "sft",
    )
    for ending in ("*.py", "*.yaml")
    for file in (ROOT / folder).rglob(ending)
)  # fmt: skip


def prose_of_page(text):
    """Yield the prose of a Markdown page with its line; code and targets of links left out."""
    kept = [line if not is_code else "\n" for line, is_code in lines(text)]
    yield 1, re.sub(r"`[^`]*`|\]\([^)]*\)", " ", "".join(kept))


def prose_of_code(text):
    """Yield docstrings, messages and comments of Python: every text of several words."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, re.sub(r"``[^`]*``|`[^`]*`", "`", node.value)


def prose_of_yaml(text):
    """Yield the comments of a config."""
    for number, line in enumerate(text.split("\n"), 1):
        if "#" in line:
            yield number, line.partition("#")[2]


def violations(name, text):
    """Return a sentence for each word of the list in a file."""
    prose = {".md": prose_of_page, ".py": prose_of_code, ".yaml": prose_of_yaml}
    found = []
    for start, block in prose[name[name.rindex(".") :]](text):
        block = re.sub(r"[ \t]*\n[ \t]*", "\n", block)  # a phrase may be broken over two lines
        for pattern, instead in STOP.items():
            spaced = pattern.replace(" ", r"\s")
            for match in re.finditer(rf"\b(?:{spaced})\b", block, re.IGNORECASE):
                around = " ".join(block[max(0, match.start() - 60) : match.end() + 60].split())
                if not any(name == file and words in around for file, words in EXCEPTIONS):
                    line, word = (
                        start + block[: match.start()].count("\n"),
                        " ".join(match[0].split()),
                    )
                    found.append(f"{name}:{line}: {word!r}; write {instead}: … {around} …")
    return found


@pytest.mark.parametrize("name", PAGES + CODE)
def test_every_sentence_is_plain(name):
    assert violations(name, (ROOT / name).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("It is 1.2 nats a response.", "nats a response"),
        ("A stage goes on where it stopped.", "goes on"),
        ("The deviation of scores.", "deviation"),
        ("Whoever runs it.", "Whoever"),
    ],
)
def test_a_word_of_the_list_is_found_in_every_kind_of_file(line, word):
    broken = line.replace(" ", "\n    ")
    files = {
        "a.md": f"# A\n\n{line}\n",
        "b.py": f'def f():\n    """Do.\n\n    {broken}\n    """\n',
        "c.py": f'raise ValueError(f"{{1}} {line}")\n',
        "d.py": f"x = 1  # {line}\n",
        "e.yaml": f"a: 1  # {line}\n",
    }
    for name, text in files.items():
        (found,) = violations(name, text)
        assert f"{word!r}" in found


def test_code_and_names_are_no_prose():
    assert violations("a.md", "Use `goes on`.\n\n    goes on\n\n[a](whoever.md)\n") == []
    assert violations("a.py", '"""See ``goes on`` and `whoever`."""\nwhoever = "whoever"\n') == []
    assert violations("a.md", "The standard deviation of a response.") == []


def test_every_exception_is_needed():
    texts = {file: (ROOT / file).read_text(encoding="utf-8") for file, _ in EXCEPTIONS}
    assert [(f, around) for f, around in EXCEPTIONS if around not in texts[f]] == []
