"""Doubtful questions go to people, are corrected on the page, and come back into a build."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from annotation.argilla.api import Answer
from annotation.corrections import corrections
from annotation.corrections.corrections import (
    corrections_folder,
    fetch,
    fetched_before,
    outcome,
    send,
)  # fmt: skip
from annotation.corrections.form import corrected, item_of, read_doubtful, shown
from plumbline.data.records import assistant, user
from plumbline.errors import ConfigError, DataError

PASSAGE = "The ferry stays in the harbor when the lake is frozen. Guests are told at the desk."


def row(question, answer="The ferry stays in the harbor when the lake is frozen.", **more):
    return {
        "messages": [user(question), assistant(answer)],
        "origin": "ferry.md",
        "row": 3,
        "answer_start": 0,
        "reason": "hardly leads to its answer",
        "slice": PASSAGE,
        **more,
    }


ROWS = [row("When does the harbor?", row=1), row("What is ferry the?", row=2), row("When?", row=3)]


def answer(of, status="submitted", at="2026-11-28T08:00:00+00:00", by="ann", **values):
    return Answer(f"{by}-{item_of(of)}", item_of(of), by, status, values, at, at)


def test_a_row_comes_back_as_a_person_left_it():
    given = {"question": " When does the ferry stay? ", "answer": ROWS[0]["messages"][1]["content"]}
    back = corrected(ROWS[0], given)
    assert [turn["content"] for turn in back["messages"]] == [
        "When does the ferry stay?", given["answer"],
    ]  # fmt: skip
    assert (back["review"], back["origin"], back["row"]) == ("corrected", "ferry.md", 1)
    assert not {"reason", "slice"} & set(back)
    same = {"question": ROWS[0]["messages"][0]["content"], "answer": given["answer"]}
    assert corrected(ROWS[0], same)["review"] == "confirmed"


def test_the_latest_answer_counts_and_what_is_discarded_or_open_does_not_come_back():
    rows = {item_of(each): each for each in ROWS}
    edited = {"question": "When does the ferry stay?", "answer": "In winter."}
    answers = [
        answer(ROWS[1], by="bob", **edited),
        answer(ROWS[0], "discarded", by="bob"),
        answer(ROWS[0], at="2026-11-28T09:00:00+00:00", **edited),
        answer(ROWS[1], "discarded", at="2026-11-28T10:00:00+00:00"),
        answer(ROWS[2], "draft", question="half"),
        answer(row("not of these"), **edited),
    ]
    fetched = outcome(rows, answers)
    assert [entry["row"] for entry in fetched.rows] == [1]
    assert fetched.counts == {"corrected": 1, "discarded": 1, "open": 1}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "is not JSON"),
        ("[1]", "no 'messages'"),
        (json.dumps({"messages": [user("Hi")]}), "no 'messages'"),
        (json.dumps({"messages": ["a", "b"]}), "no 'messages'"),
        (json.dumps(row(" ")), "the question is empty"),
        (json.dumps(row("Why \ud83d?")), r"half of a character \('\\ud83d'"),
        (json.dumps(row("Why?", origin="\udc00")), "half of a character"),
        (json.dumps(row("x" * 20_001)), "20,000 characters"),
        (json.dumps(row("Why?", slice={"a": 1})), "the slice is not a text"),
    ],
)
def test_a_file_that_cannot_be_shown_is_refused_by_its_line(tmp_path, line, problem):
    file = tmp_path / "doubtful.jsonl"
    file.write_text(json.dumps(ROWS[0]) + "\n\n" + line + "\n")
    with pytest.raises(DataError, match=problem) as refused:
        read_doubtful(file)
    assert "line 3" in str(refused.value)
    file.write_text("\n")
    with pytest.raises(DataError, match="no rows"):
        read_doubtful(file)


def test_nothing_is_sent_or_taken_twice(ground):
    folder = corrections_folder(ground.folder, ground.name)
    name = ground.person()
    with pytest.raises(ConfigError, match="no user 'nobody'"):
        send(folder, ground.site, ROWS[:1], members=["nobody"])
    assert send(folder, ground.site, ROWS[:2], members=[name]) == (2, 2)
    assert send(folder, ground.site, ROWS[1:]) == (1, 3)
    client = ground.client(name)
    (dataset,) = client.datasets()
    records, _ = client.queue(dataset.id)
    assert sorted((dict(r.fields) for r in records), key=str) == sorted(map(shown, ROWS), key=str)
    by_question = {record.fields["asked"]: record for record in records}
    client.submit(by_question["When?"].id, {"question": "When does it stay?", "answer": "Soon."})
    for _ in range(2):
        fetched = fetch(folder, ground.site)
        assert [entry["messages"][0]["content"] for entry in fetched.rows] == ["When does it stay?"]
        assert fetched.counts == {"corrected": 1, "open": 2}
    assert len((folder / "answers.jsonl").read_text().splitlines()) == 1
    for take in (fetched_before, lambda place: fetch(place, ground.site)):
        with pytest.raises(DataError, match=f"There are: {ground.name}"):
            take(folder.with_name("other"))
    ground.server.request("DELETE", f"/datasets/{dataset.id}")
    with pytest.raises(DataError, match="'--offline' gives it"):
        fetch(folder, ground.site)
    assert fetched_before(folder) == fetched
    (folder / "answers.jsonl").write_text("")
    with pytest.raises(DataError, match="answers are missing"):
        fetched_before(folder)


def test_two_who_send_at_once_lose_no_row(ground, monkeypatch):
    folder, read = corrections_folder(ground.folder, ground.name), corrections._rows
    both = threading.Barrier(2)

    def after_both(place):
        found = read(place)
        with suppress(threading.BrokenBarrierError):
            both.wait(0.5)  # in vain, where they take turns
        return found

    monkeypatch.setattr(corrections, "_rows", after_both)
    with ThreadPoolExecutor() as pool:
        sent = list(pool.map(lambda each: send(folder, ground.site, [each]), ROWS[:2]))
    assert sorted(sent) == [(1, 1), (1, 2)]
    assert sorted(read(folder)) == sorted(map(item_of, ROWS[:2]))


@pytest.mark.slow
def test_a_person_corrects_a_question_on_the_page_and_the_build_holds_it(
    fresh_chromium, ground, run_cli, tmp_path, monkeypatch
):
    pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    monkeypatch.chdir(tmp_path)
    (tmp_path / "doubtful.jsonl").write_text("".join(json.dumps(each) + "\n" for each in ROWS[:2]))
    name, home = ground.person(), ground.server.home
    site = ["--home", home, "--name", ground.name]
    run_cli("annotate", "correct", "doubtful.jsonl", "--member", name, *site)

    driver = fresh_chromium

    def one(selector):
        return driver.find_element(By.CSS_SELECTOR, selector)

    def wait(condition):
        WebDriverWait(driver, 20, poll_frequency=0.05).until(lambda _: condition())

    driver.get(f"{ground.server.url}/")
    wait(lambda: one("[name=username]").is_displayed())
    one("[name=username]").send_keys(name)
    one("[name=password]").send_keys(f"password-of-{name}", Keys.ENTER)
    wait(lambda: one("#desk").is_displayed() and PASSAGE in one("#conversation").text)
    assert not one("#responses").is_displayed()
    question, written = (one(f"#question-{part} textarea") for part in ("question", "answer"))
    for left in (1, 0):
        wait(lambda left=left: one("#count").text == f"{1 - left} of 2")
        assert "hardly leads to its answer" in one("#conversation .doubt").text
        assert written.get_attribute("value") == ROWS[0]["messages"][1]["content"]
        if question.get_attribute("value") == "What is ferry the?":
            one("#conversation").click()
            ActionChains(driver).send_keys("x").perform()  # nobody can mend it
            continue
        assert question.get_attribute("value") == "When does the harbor?"
        question.send_keys(
            Keys.CONTROL, "a", Keys.NULL, Keys.DELETE, Keys.ENTER
        )  # an empty question is no question
        wait(lambda: "Answer first: Question" in one("#notice").text)
        question.send_keys("When does the ferry stay in the harbor?", Keys.ENTER)
    wait(lambda: one("#done").is_displayed())

    wait(lambda: not fetch(corrections_folder(home, ground.name), ground.site).counts.get("open"))
    run_cli("annotate", "corrected", *site, "--out", "corrected.jsonl")
    (tmp_path / "held_out.jsonl").write_text(
        json.dumps({"messages": [user("Who rows?"), assistant("Nobody rows today.")]}) + "\n"
    )
    (tmp_path / "build.yaml").write_text(
        "name: ferry\nsources:\n"
        "  - {path: corrected.jsonl, keep: [review]}\n  - {path: held_out.jsonl, split: test}\n"
    )
    run_cli("data", "build", "build.yaml", "--home", tmp_path / "home")
    run_cli("data", "export", "ferry", "out", "--format", "jsonl", "--home", tmp_path / "home")
    built = [json.loads(line) for line in (tmp_path / "out" / "train.jsonl").open()]
    assert [[turn["content"] for turn in entry["messages"]] for entry in built] == [
        ["When does the ferry stay in the harbor?", ROWS[0]["messages"][1]["content"]]
    ]
    assert built[0]["review"] == "corrected"
