"""What labels tell about people, the most disputed pairs, and the page that shows it all."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace

import pytest

from annotation.agreement import person_statistics
from annotation.agreement.disputes import disagreement, most_disputed
from annotation.agreement.intervals import Bootstrap, wilson
from annotation.agreement.label_agreement import measure_labels, names_of, strength_table
from annotation.agreement.page import (
    kappa_matrix,
    leaning,
    render,
    report_agreement,
    shown_choice,
    verdict,
)
from annotation.gold_answers import write_gold
from plumbline.data.labels import Label, write_labels
from plumbline.data.records import assistant, user, write_dataset
from plumbline.errors import DataError
from plumbline.runs.artifacts import Artifact, Manifest, Store

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
FEW = Bootstrap(resamples=50)
HOSTILE = "<img src=http://example.org/x.png onerror=alert(1)> ![x](http://example.org) | `a`"


def label(pair: str, who: str, choice: str, minute: int = 0, **more) -> Label:
    return Label(
        pair_id=pair, annotator=who, choice=choice,
        created_at=f"2026-01-05T{9 + minute // 60:02}:{minute % 60:02}:00+00:00",
        **({"source": "argilla", "shown_first": "a"} | more),
    )  # fmt: skip


def row(pair: str, prompt: str = "Which?", a: str = "one", b: str = "two"):
    return {"pair_id": pair, "prompt": [user(prompt)], "a": [assistant(a)], "b": [assistant(b)]}


def panel(count: int = 30) -> list[Label]:
    """Ana and Ben always agree, Cy takes what is shown first; every tenth pair is a tie."""
    made = []
    for n in range(count):
        truth = "tie" if n % 10 == 9 else "ab"[n % 2]
        shown = "ab"[n // 2 % 2]
        for who in ("ana", "ben"):
            made.append(label(f"p{n}", who, truth, n, shown_first=shown))
        made.append(label(f"p{n}", "cy", shown, n, shown_first=shown))
    return made


# Habits.


def test_repeats_are_compared_with_the_first_label_of_the_same_person():
    labels = [
        label("x", "ana", "b", 5, purpose="repeat"),
        label("x", "ana", "b", 2),  # a later vote in place of the first
        label("x", "ana", "a", 1),
        label("y", "ana", "tie", 3),
        label("y", "ana", "tie", 8, purpose="repeat"),
        label("g", "ana", "a", 4, purpose="gold"),
        label("g", "ana", "a", 9, purpose="repeat"),
        label("z", "ana", "a", 9, purpose="repeat"),  # had no first label
        label("z", "ben", "b", 1),
    ]
    found = person_statistics.self_consistency(labels)
    assert (found.value, found.n) == (2 / 3, 3)
    assert found == wilson(2, 3, nothing="")
    assert person_statistics.self_consistency(labels[-1:]).reason == "no repeats"
    assert (
        person_statistics.self_consistency(labels[-2:]).reason
        == "none of 1 repeats has a first label"
    )


def test_gold_items_count_once_and_only_with_a_known_answer():
    labels = [
        label("g", "ana", "b", 2, purpose="gold"),
        label("g", "ana", "a", 1, purpose="gold"),
        label("h", "ana", "b", 3, purpose="gold"),
        label("k", "ana", "b", 4, purpose="gold"),
        label("x", "ana", "b", 5),
    ]
    found = person_statistics.gold_accuracy(labels, {"g": "a", "h": "a", "x": "b"})
    assert (found.value, found.n) == (0.5, 2)
    assert (
        person_statistics.gold_accuracy(labels, {}).reason
        == "the answers to all 3 gold items are unknown"
    )
    assert person_statistics.gold_accuracy(labels[-1:], {}).reason == "no gold items"


def test_position_bias_counts_decided_choices_whose_order_varies():
    labels = [
        label("x", "ana", "a", shown_first="a"),
        label("y", "ana", "b", shown_first="b"),
        label("z", "ana", "b", shown_first="a"),
        label("w", "ana", "tie", shown_first="a"),
        label("v", "ana", "both_bad", shown_first="b"),
        label("u", "ana", "a", shown_first="a", purpose="adjudication"),
        *(label(f"f{n}", "file", "a", source="file") for n in range(9)),
    ]
    found = person_statistics.position_bias(labels)
    assert (found.value, found.n) == (2 / 3, 3)
    assert (
        person_statistics.position_bias(labels[6:]).reason
        == "the same response was always shown first"
    )
    assert person_statistics.position_bias(labels[3:5]).reason == "no label chose A or B"


def test_seconds_between_labels():
    labels = [label("x", "ana", "a", minute) for minute in (0, 1, 3, 50)]
    assert person_statistics.median_seconds(labels[::-1]).value == 120
    assert person_statistics.median_seconds(labels[:1]).reason == "fewer than two labels"
    assert "same time" in person_statistics.median_seconds(labels[:1] * 3).reason
    mixed = [replace(labels[0], created_at="2026-01-05T10:00:00+01:00"), labels[1]]
    assert person_statistics.median_seconds(mixed).value == 60
    naive = [replace(labels[0], created_at="2026-01-05T09:00:00"), labels[1]]
    assert person_statistics.median_seconds(naive).value == 60


# Labels as a whole.


def test_labels_by_what_they_are_for():
    labels = [
        *panel(),
        label("p0", "ana", "b", 80),  # in place of her first vote
        label("p1", "ben", "b", 90, purpose="repeat"),
        label("g", "cy", "a", 91, purpose="gold"),
        label("h", "cy", "b", 92, purpose="gold"),
        label("p9", "eva", "a", 93, purpose="adjudication", flags=("unsafe",)),
    ]
    found = measure_labels(labels, {"g": "a"}, bootstrap=FEW)
    assert (found.choice.votes, found.superseded, found.gold_unknown) == (90, 1, 1)
    people = {person.name: person for person in found.people}
    assert people["eva"].agreement is None
    assert people["ana"].agreement.votes == 30
    # Superseded votes are no votes: on p0 Ana now differs from Ben.
    pair = found.choice.pairs[0]
    assert (pair.people, pair.agreement.value) == (("ana", "ben"), pytest.approx(29 / 30))
    assert people["ben"].self_consistency.value == 1.0
    assert people["cy"].gold_accuracy.value == 1.0
    # Cy's thirty votes and one of two gold items.
    assert people["cy"].shown_first.value == pytest.approx(31 / 32)
    assert found.everybody.median_seconds.value is None
    json.dumps(found.as_dict(), allow_nan=False)


def test_strength_and_aspects_have_agreements_of_their_own():
    labels = [
        label("x", "ana", "a", strength=3, aspects={"honest": "a", "kind": "b"}),
        label("x", "ben", "a", strength=1, aspects={"honest": "b"}),
        label("y", "ana", "tie", aspects={"honest": "tie"}),
        label("y", "ben", "b", strength=1, aspects={"honest": "tie"}),
        label("z", "ana", "both_bad", strength=2),
        label("z", "ben", "b"),
    ]
    names = names_of(labels)
    scale = strength_table(labels, names)
    assert scale.categories == ("a by 3", "a by 2", "a by 1", "tie", "b by 1", "b by 2", "b by 3")
    assert scale.code_of.tolist() == [0, 2, 3, 4]
    found = measure_labels(labels, bootstrap=Bootstrap(0))
    assert found.strength.order == scale.categories
    assert found.strength.alpha_ordinal.value > found.strength.alpha.value
    assert list(found.aspects) == ["honest", "kind"]
    assert found.aspects["honest"].agreement.value == 0.5
    assert found.aspects["kind"].agreement.reason == "no item has two votes"
    plain = measure_labels([replace(one, strength=None) for one in labels], bootstrap=FEW)
    assert plain.strength is None


def test_the_same_name_in_two_sources_is_two_people():
    labels = [label("x", "ana", "a"), label("x", "ana", "b", source="llm"), label("x", "ben", "a")]
    assert set(names_of(labels).values()) == {"ana (argilla)", "ana (llm)", "ben"}
    assert measure_labels(labels, bootstrap=FEW).choice.agreement.value == pytest.approx(1 / 3)


# The most disputed pairs.


def test_disagreement_by_hand():
    def of(*choices):
        return disagreement([label("x", f"p{n}", choice) for n, choice in enumerate(choices)])

    assert of("a", "b", "tie") == 1
    assert of("a", "b", "a") == pytest.approx(2 / 3)
    assert (of("a", "a"), of("a"), of()) == (0, 0, 0)


def test_the_most_disputed_come_first():
    def votes(pair, *choices, strength=None):
        return [label(pair, f"p{n}", c, strength=strength) for n, c in enumerate(choices)]

    labels = [
        *votes("mild", "a", "b", strength=1),
        *votes("strong", "a", "b", strength=3),
        *votes("three", "a", "b", "tie"),
        *votes("two of three", "a", "b", "a"),
        *votes("agreed", "a", "a"),
        label("strong", "eva", "a", purpose="adjudication", flags=("unsafe",)),
    ]
    rows = [row(pair) for pair in ("agreed", "mild", "strong", "three", "two of three")]
    found = most_disputed(labels, rows, names_of(labels), 9)
    assert [one.pair_id for one in found] == ["three", "strong", "mild", "two of three"]
    assert [name for name, _ in found[1].decisions] == ["eva"]
    assert (found[1].flags, found[0].flags) == (["unsafe"], [])
    assert (found[0].a, found[0].b) == ("one", "two")
    assert len(most_disputed(labels, rows, names_of(labels), 2)) == 2
    with pytest.raises(DataError, match="1 of 5 voted pairs are not among the 4"):
        most_disputed(labels, rows[1:], names_of(labels), 9)


# What is said and shown.


def test_the_verdict_says_what_the_intervals_bear_out():
    good = [label(f"p{n}", who, "ab"[n % 2], n) for n in range(40) for who in ("ana", "ben", "cy")]
    good[0] = replace(good[0], choice="b")
    text = " ".join(verdict(measure_labels(good, bootstrap=Bootstrap(200))))
    assert "above 0.8, which Krippendorff requires of reliable data" in text
    assert "prefer" not in text
    assert "less than people do" not in text  # Ana does, but by no more than chance would bring

    found = measure_labels(panel(120), {}, bootstrap=Bootstrap(200))
    text = " ".join(verdict(found))
    assert "below 0.667, which Krippendorff requires even for tentative" in text
    assert "People prefer the response shown first" in text
    assert "cy agrees with the others less than people do on average." in text
    assert [leaning(person) for person in found.people] == ["", "", "first"]
    contrary = [replace(one, shown_first="b" if one.choice == "a" else "a") for one in panel()]
    assert leaning(measure_labels(contrary, bootstrap=FEW).everybody) == "second"

    alone = measure_labels([label("x", "ana", "a"), label("y", "ana", "b")], bootstrap=FEW)
    assert "Agreement is unknown: no item has two votes." in verdict(alone)
    same = measure_labels([label("x", "ana", "a"), label("x", "ben", "a")], bootstrap=FEW)
    assert "alpha is undefined: every vote on an item with two is 'a'" in " ".join(verdict(same))


def test_the_matrix_is_symmetrical_and_marks_what_is_below_chance():
    labels = [
        *(label(f"p{n}", "ana", "ab"[n % 2]) for n in range(8)),
        *(label(f"p{n}", "ben", "ba"[n % 2]) for n in range(8)),
        label("q", "cy", "a"),
    ]
    matrix = kappa_matrix(measure_labels(labels, bootstrap=FEW).choice)
    cell = matrix["ana"]["ben"]
    assert cell == matrix["ben"]["ana"]
    assert (cell.text, cell.strength, cell.below_chance) == ("-1.00", 1.0, True)
    assert "ana" not in matrix["ana"]
    assert matrix["cy"] == {}  # cy meets nobody


def test_choices_as_people_read_them():
    shown = [shown_choice(choice) for choice in ("a", "b by 2", "both_bad", "tie", "needs_work")]
    assert shown == ["A", "B by 2", "both bad", "tie", "needs work"]


def published(folder, store, kind) -> Artifact:
    manifest = Manifest(
        kind=kind, id=f"{kind}-1", schema_version=1, stage="test", arguments={}, inputs={},
        seed=None, data_seed=0, metrics={}, versions={}, machine={}, seconds=0.0,
        peak_memory_bytes=0, files={},
    )  # fmt: skip
    store.mkdir(exist_ok=True)
    return Store(store).publish(folder, manifest)


@pytest.fixture
def made(tmp_path, stage):
    """The stage's folder and figures, on labels in which everything occurs."""
    labels = [
        *(replace(one, strength=2, aspects={"honest": one.choice}) for one in panel()),
        label("g", "cy", "b", 91, purpose="gold"),
        label("p1", "ben", "b", 92, purpose="repeat"),
    ]
    labels[2] = replace(labels[2], choice="b", rationale=HOSTILE)
    labels[5] = replace(labels[5], choice="both_bad", rationale="unkind", flags=("unsafe",))
    folders = {name: tmp_path / name for name in ("labels", "pairs")}
    folders["labels"].mkdir()
    write_labels(folders["labels"], labels)
    write_gold(folders["labels"], {"g": "a"})
    rows = [row(f"p{n}", HOSTILE if n == 0 else "Which?", b=HOSTILE) for n in range(30)]
    write_dataset(folders["pairs"], {"train": rows}, kind="prompts", title="Pairs", description="")
    given = {name: published(folder, tmp_path / "store", name) for name, folder in folders.items()}
    return stage.folder, report_agreement(stage, **given, seed=0, resamples=100)


def test_the_stage_writes_page_markdown_and_figures(made):
    folder, figures = made
    assert sorted(file.name for file in folder.iterdir()) == [
        "agreement.html", "agreement.json", "agreement.md", "summary.json",
    ]  # fmt: skip
    assert json.loads((folder / "summary.json").read_text()) == figures
    found = json.loads((folder / "agreement.json").read_text())
    assert found["choice"]["alpha"]["value"] == figures["alpha"]
    assert (found["labels"], found["pairs"]) == ("labels-1", "pairs-1")
    assert figures["gold_accuracy"] == 0.0
    assert figures["self_consistency"] == 1.0
    assert (figures["votes"], figures["people"]) == (90, 3)
    assert len(found["most_disputed"]) == 12
    for name in ("agreement.html", "agreement.md"):
        text = (folder / name).read_text()
        for wanted in (f"{figures['alpha']:.3f}", "cy", "honest", "how much better", "shown first"):
            assert wanted in text
        assert "nan" not in text.lower().replace("annotat", "").replace("ana", "")
        assert "None" not in text


def test_the_page_is_whole_in_itself_and_runs_nothing(made):
    text = (made[0] / "agreement.html").read_text()
    assert "default-src 'none'" in text
    for unwanted in ("<script", "<link", "@import", "<img", "url("):
        assert unwanted not in text
    assert "&lt;img src=http://example.org/x.png" in text


def test_what_is_flagged_is_folded_away(made):
    text = (made[0] / "agreement.html").read_text()
    folded = text[text.index("Flagged unsafe: open to read") :]
    assert "unkind" in folded[: folded.index("</details>")]
    markdown = (made[0] / "agreement.md").read_text()
    assert "unkind" not in markdown
    assert "flagged unsafe; see the page" in markdown


def test_markdown_shows_text_as_it_is(made):
    text = (made[0] / "agreement.md").read_text()
    assert r"\<img src=http://example.org/x.png onerror=alert(1)\> !\[x\]" in text
    assert "<img" not in text.replace("\\<", "")
    for line in text.splitlines():
        if line.startswith("| B |"):
            assert line.replace("\\|", "").count("|") == 3


def test_a_page_of_one_person_renders():
    labels = [label("x", "ana", "a"), label("y", "ana", "b")]
    page, markdown = render(measure_labels(labels, bootstrap=FEW), [], {})
    for text in (page, markdown):
        assert "No two people share a pair." in text
        assert "No two votes differ on any pair." in text


@pytest.mark.slow
@pytest.mark.parametrize("width", [1200, 390])
def test_the_page_fits_its_window(made, tmp_path, width):
    if BROWSER is None:
        pytest.skip("there is no chromium here")
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<iframe id="f" src="{(made[0] / "agreement.html").as_uri()}" '
        f'style="width:{width}px;height:900px;border:0" onload="document.title = '
        'f.contentDocument.documentElement.scrollWidth"></iframe>'
    )
    result = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--host-resolver-rules=MAP * ~NOTFOUND", "--allow-file-access-from-files",
            "--hide-scrollbars", "--window-size=1400,1000", "--virtual-time-budget=5000",
            "--dump-dom", frame.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert f"<title>{width}</title>" in result.stdout
