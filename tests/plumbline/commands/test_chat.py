"""Chat: tokens as they are drawn, one dialogue for each model, and commands."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from plumbline.commands.app import app
from plumbline.commands.chat_session import ChatSession, Speaker
from plumbline.errors import ModelError
from plumbline.lm.generation import SamplingConfig, stream

SAMPLING = SamplingConfig(max_new_tokens=12)


def session_of(policy, models: int = 1, sampling: SamplingConfig = SAMPLING, **how) -> ChatSession:
    return ChatSession([Speaker(f"m{n}", policy) for n in range(models)], sampling, seed=0, **how)


@pytest.mark.parametrize("snapshot", [True, False])
def test_a_stream_draws_what_sampling_draws(policy, prompts, snapshot):
    sampling = SamplingConfig(max_new_tokens=16, snapshot=snapshot)
    ids = [policy.encode(prompt) for prompt in prompts[:4]]
    whole = policy.sample(ids, [3, 4, 5, 6], sampling)
    for prompt, seed, expected in zip(ids, [3, 4, 5, 6], whole, strict=True):
        tokens = stream(
            policy.model, prompt, seed, sampling, end_ids=policy.end_ids, pad_id=policy.pad_id
        )
        assert list(tokens) == expected.ids


def test_a_response_grows_and_joins_the_dialogue(policy):
    session = session_of(policy)
    texts = [texts[0] for texts in session.ask("Who are you?")]
    assert len(texts) > 2 and len(texts[-1]) > len(texts[0])
    asked, said = session.speakers[0].dialogue
    assert (asked["role"], said["content"]) == ("user", texts[-1])
    *_, again = session_of(policy).ask("Who are you?")
    assert again == [texts[-1]]


def test_two_models_have_a_dialogue_each(policy):
    session = session_of(policy, models=2)
    *_, texts = session.ask("Who are you?")
    assert [s.dialogue[-1]["content"] for s in session.speakers] == texts


def test_what_was_said_is_taken_back(policy):
    session = session_of(policy)
    assert not session.undo()
    list(session.ask("One?"))
    list(session.ask("Two?"))
    assert session.undo()
    assert [m["content"] for m in session.speakers[0].dialogue if m["role"] == "user"] == ["One?"]
    session.system = "Be brief."
    session.reset()
    assert session.speakers[0].dialogue == [{"role": "system", "content": "Be brief."}]


def test_a_stopped_response_stays_as_far_as_it_came(policy):
    session = session_of(policy)
    growing = session.ask("Who are you?")
    next(growing)
    first = next(growing)
    growing.close()
    assert [m["content"] for m in session.speakers[0].dialogue] == ["Who are you?", first[0]]


def test_a_dialogue_without_room_is_said_and_nothing_is_added(policy):
    session = session_of(policy, sampling=SamplingConfig(max_new_tokens=5000))
    with pytest.raises(ModelError, match="/undo or /reset"):
        list(session.ask("Who are you?"))
    assert session.speakers[0].dialogue == []


def test_a_response_ends_where_the_context_does_unless_its_length_is_given(policy):
    room = policy.model.config.max_position_embeddings
    question = "Who are you?"
    while (left := room - len(policy.encode([{"role": "user", "content": question}]))) > 30:
        question += " word" * max(1, left // 20)
    session = session_of(policy, sampling=SamplingConfig(max_new_tokens=512), cut_by_context=True)
    drawn = len(list(session.ask(question))) - 1  # the last shows that the response has ended
    assert 1 <= drawn <= left <= 30
    with pytest.raises(ModelError, match=r"/undo or /reset\.$"):
        list(session.ask(question))


def test_questions_come_from_a_pipe_and_dialogues_are_saved(base_folder, tmp_path):
    file = tmp_path / "dialogues.jsonl"
    result = CliRunner().invoke(
        app,
        ["chat", str(base_folder), str(base_folder), "--max-new-tokens", "6", "--save", str(file),
         "--home", str(tmp_path / "home")],
        input="Who are you?\n/nonsense\n/undo\nWhat \\\nnow?\n/exit\nNever asked\n",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "There is no /nonsense" in result.output and "Taken back" in result.output
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(rows) == 2
    assert [m["content"] for m in rows[0]["messages"] if m["role"] == "user"] == ["What \nnow?"]
