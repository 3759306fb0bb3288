"""Steps of cleaning, each against values worked by hand."""

from __future__ import annotations

import json

import pytest

from plumbline.config import load
from plumbline.data.records import assistant, user
from plumbline.errors import ConfigError
from sft.build.config import BuildConfig
from sft.cleaning.answers import repeated_lines, repeated_words
from sft.cleaning.language import detect
from sft.cleaning.step import Outcome, StepContext
from sft.cleaning.steps import STEPS, read_step
from sft.cleaning.text import repair_encoding, without_entities, without_invisible
from sft.cleaning.turns import problem_with_order


def do(step: str | dict, *messages, scorers=None, **columns) -> Outcome:
    """What a step makes of one row."""
    config = read_step(step, 1)
    prepare = STEPS[config.step].prepare
    row = {"messages": list(messages), "form": "single_turn", "origin": "x", "row": 1, "source": 0}
    (outcome,) = prepare(config, StepContext(0, scorers or {}))([row | columns])
    return outcome


@pytest.mark.parametrize(
    ("broken", "whole"),
    [
        ("cafÃ©", "café"),
        ("ä½\u00a0å¥½", "你好"),
        ("â€œyesâ€\x9d", "“yes”"),
        # ftfy's defaults would change all of these.
        ("你好，世界！１２", "你好，世界！１２"),
        ("“curled”", "“curled”"),
        ("ﬁne", "ﬁne"),
        ("a &amp; b é", "a &amp; b é"),
    ],
)
def test_wrong_encodings_are_repaired_and_nothing_else_is(broken, whole):
    assert repair_encoding(broken) == whole


def test_entities_are_replaced_outside_of_markup_alone():
    assert without_entities("a &lt; b &amp; c") == "a < b & c"
    assert without_entities("<p>a &amp; b</p>") == "<p>a &amp; b</p>"


def test_invisible_characters_go_and_joiners_stay():
    assert without_invisible("\ufeffa\u200bb\u00adc\u202ed") == "abcd"
    family = "👨\u200d👩\u200d👧"
    assert without_invisible(family) == family


def test_unicode_says_what_it_changed_of_reasoning_too():
    thought = assistant("a") | {"reasoning_content": "cafÃ©"}
    outcome = do("unicode", user("q"), thought)
    assert outcome.rows[0]["messages"][1]["reasoning_content"] == "café"
    assert outcome.changes == ("text in a wrong encoding was repaired",)
    same = do("unicode", user("q"), assistant("a"))
    assert same.changes == ()


CALL = {"type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("roles", "problem"),
    [
        ("system user assistant", None),
        ("user assistant user assistant", None),
        ("user calls tool tool assistant", None),
        ("user user assistant", "has the user's turn 2 behind the user"),
        ("user system assistant", "has the system's turn 2 behind the user"),
        ("assistant user assistant", "has the assistant's turn 1 behind the start"),
        ("user tool assistant", "has the tool's turn 2 behind the user"),
        ("user calls assistant", "has the assistant's turn 3 behind an assistant's turn that"),
        ("user calls", "ends with a call of a tool"),
    ],
)
def test_the_order_of_roles(roles, problem):
    turns = [
        {"role": "assistant", "content": "", "tool_calls": [CALL]}
        if role == "calls"
        else {"role": role, "content": "x"}
        for role in roles.split()
    ]
    found = problem_with_order(turns)
    assert found is None if problem is None else found.startswith(problem)
    outcome = do({"step": "roles", "order": "strict"}, *turns)
    assert (outcome.reason is None) == (problem is None)


def test_several_system_messages_are_kept_joined_or_left_out():
    turns = [{"role": "system", "content": "A"}, {"role": "system", "content": "B"}, user("q"),
             assistant("a")]  # fmt: skip
    assert do("roles", *turns).rows[0]["messages"] == turns
    joined = do({"step": "roles", "several_systems": "join"}, *turns)
    assert joined.rows[0]["messages"][0] == {"role": "system", "content": "A\n\nB"}
    assert [m["role"] for m in joined.rows[0]["messages"]] == ["system", "user", "assistant"]
    out = do({"step": "roles", "several_systems": "leave_out"}, *turns)
    assert out.reason == "has 2 system messages"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"max_characters": 5}, None),
        ({"max_characters": 4}, "is longer than max_characters (4)"),
        ({"min_characters": 3}, "ends with an answer shorter than min_characters (3)"),
        ({"max_turns": 1}, "has more turns than max_turns (1)"),
    ],
)
def test_lengths(settings, reason):
    assert do({"step": "length", **settings}, user("abc"), assistant("de")).reason == reason


def test_repeated_lines_and_words_are_shares():
    # "abcd" three times of four lines of four letters: two of four repeat.
    assert repeated_lines("abcd\nabcd\nefgh\nabcd") == 0.5
    assert repeated_lines("}\n}\n}\n") == 0.0
    # a b | c | a b | d: the second "a b" repeats, two of six words.
    assert repeated_words(["a", "b", "c", "a", "b", "d"], 2) == pytest.approx(2 / 6)
    assert repeated_words(["a", "a", "a", "a"], 2) == pytest.approx(3 / 4)
    assert repeated_words([], 2) == 0.0


def test_an_answer_that_repeats_itself_is_left_out_and_a_question_may():
    looped = "the same words come again and again " * 10
    assert do("repetition", user("q"), assistant(looped)).reason == "repeats its own words"
    assert do("repetition", user(looped), assistant("yes")).reason is None
    chinese = "我们今天去公园玩" * 10
    assert do("repetition", user("q"), assistant(chinese)).reason == "repeats its own words"
    lines = "\n".join(["a line of ten words that is there again and again"] * 3)
    assert do("repetition", user("q"), assistant(lines)).reason == "repeats its own lines"


@pytest.mark.parametrize(
    ("answer", "refuses"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I’m unable to assist with this request.", True),
        ("As an AI language model, I have no body.", True),
        ("很抱歉，我无法提供这些信息。", True),
        ("作为一个人工智能，我没有感情。", True),
        ("I'm sorry for your loss. Here is what to do.", False),
        ("You cannot help it; the train was late.", False),
        ("对不起这个词的英文是 sorry。", False),
        ("An AI winter is a period of little funding.", False),
    ],
)
def test_refusals(answer, refuses):
    assert (do("refusals", user("q"), assistant(answer)).reason is not None) == refuses


def test_languages():
    assert detect("The weather is nice today, let us go to the park.").code == "en"
    assert detect("今天天气很好，我们去公园玩吧。").code == "zh"
    german = user("Wie wird morgen das Wetter in Berlin?"), assistant("Es wird schön und warm.")
    step = {"step": "language", "keep": ["en", "zh"]}
    assert do(step, *german).reason == "is of the language de, which keep does not name"
    assert do(step, user("今天天气怎么样？"), assistant("今天天气很好。")).reason is None
    assert do(step, user("Ja?"), assistant("Nein.")).reason is None  # too short to be judged
    strict = step | {"unsure": "leave_out"}
    assert do(strict, user("Ja?"), assistant("Nein.")).reason == "is of no sure language"


def test_noisy_labels_below_the_threshold_are_left_out():
    turns = user("q"), assistant("a")
    assert do("confidence", *turns, confidence=0.9).reason is None
    assert do("confidence", *turns, confidence=0.89).reason == (
        "has a confidence below min_confidence (0.9)"
    )
    assert do("confidence", *turns).reason == "has no number under 'confidence'"
    assert (
        do("confidence", *turns, confidence=7).reason == "has a confidence that is not from 0 to 1"
    )
    named = {"step": "confidence", "column": "sure", "min_confidence": 0.5}
    assert do(named, *turns, sure="0.6").reason is None


class Lengths:
    name = "lengths"

    def score(self, prompts, responses):
        return [float(len(response)) for response in responses]


def test_a_reward_model_is_for_builds():
    with pytest.raises(ConfigError, match=r"'the/model'.*`plumbline data build`"):
        do({"step": "quality", "scorer": "the/model", "min_score": 3}, user("q"), assistant("abc"))


def test_any_scorer_decides_on_quality():
    step = {"step": "quality", "scorer": "the/model", "min_score": 3}
    good = do(step, user("q"), assistant("abc"), scorers={"the/model": Lengths()})
    assert good.rows[0]["quality"] == 3.0
    bad = do(step, user("q"), assistant("ab"), scorers={"the/model": Lengths()})
    assert bad.reason == "scores below min_score (3) by the/model"
    assert bad.detail == {"score": 2.0}


def test_a_step_of_one_s_own(tmp_path, monkeypatch):
    (tmp_path / "my_steps.py").write_text(
        "def shorten(row, most=3):\n"
        "    if row['messages'][-1]['content'] == 'bad':\n"
        "        raise ValueError('is bad')\n"
        "    if row['messages'][-1]['content'] == 'none':\n"
        "        return None\n"
        "    last = row['messages'][-1]\n"
        "    last = {**last, 'content': last['content'][:most]}\n"
        "    return {**row, 'messages': [*row['messages'][:-1], last]}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    step = {"step": "my_steps.shorten", "settings": {"most": 2}}
    outcome = do(step, user("q"), assistant("abcdef"))
    assert outcome.rows[0]["messages"][-1]["content"] == "ab"
    assert outcome.changes == ("changed by my_steps.shorten",)
    assert do(step, user("q"), assistant("bad")).reason == "is bad"
    assert do(step, user("q"), assistant("none")).reason == "my_steps.shorten leaves it out"
    assert len(read_step(step, 1).identity()["code"]) == 16


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ("[unicod]", "step 1: there is no step 'unicod'. Did you mean 'unicode'?"),
        ("[unicode, {step: length, max_chars: 3}]",
         "step 2 (length): there is no setting 'max_chars' (set to 3)"),
        ("[{step: length, max_characters: many}]",
         "step 1 (length): max_characters is 'many', but it should be a valid integer"),
        ("[{length: 3}]", "step 1 is"),
        ("[{step: language}]", "step 1 (language): 'keep' must be set"),
        ("[{step: language, keep: []}]", "step 1 (language): keep is"),
        ("[3]", "step 1 is 3; write a step's name"),
        ("unicode", "steps is 'unicode'"),
        ("[{step: refusals, patterns: ['(']}]", "is not a regular expression"),
        ("[{step: my_nowhere.function}]", "'my_nowhere' cannot be imported"),
        ("[{step: near_duplicates, threshold: 0.2}]", "step 1 (near_duplicates): threshold is 0.2"),
    ],
)  # fmt: skip
def test_a_wrong_step_is_refused_with_its_place(tmp_path, steps, message):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": "a", "completion": "b"}))
    file = tmp_path / "build.yaml"
    file.write_text(f"name: mine\nsources: [{{path: {rows}}}]\nsteps: {steps}\n")
    with pytest.raises(ConfigError) as error:
        load(BuildConfig, file)
    assert message in str(error.value)
    assert "build.yaml, line 3" in str(error.value)
