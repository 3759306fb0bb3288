"""Ids, masks and templates: what goes wrong when every stage does this by itself."""

from __future__ import annotations

import copy

import pytest

from plumbline.data.records import assistant, user
from plumbline.errors import ModelError
from plumbline.lm.chat import decode_response, encode_conversation, encode_prompt, encode_response
from plumbline.lm.tokenizer import load_tokenizer

TALK = [user("One?"), assistant("First."), user("Two?"), assistant("Second.")]


def test_there_is_one_beginning_and_one_end_for_every_turn(tokenizer):
    ids = encode_conversation(tokenizer, TALK).ids
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids.count(tokenizer.eos_token_id) == len(TALK)
    assert tokenizer.pad_token_id not in ids


def test_padding_is_no_other_token(tokenizer):
    assert tokenizer.pad_token_id not in (tokenizer.eos_token_id, tokenizer.bos_token_id)


def test_the_mask_covers_what_the_assistant_says_and_its_end(tokenizer):
    ids, mask = encode_conversation(tokenizer, TALK)
    said = [token for token, spoken in zip(ids, mask, strict=True) if spoken]
    end = tokenizer.eos_token
    assert tokenizer.decode(said) == f"First.{end}Second.{end}"


def test_without_generation_markers_the_mask_is_the_same(tokenizer):
    marked = encode_conversation(tokenizer, TALK)
    plain = copy.deepcopy(tokenizer)
    plain.chat_template = tokenizer.chat_template.replace("{% generation %}", "").replace(
        "{% endgeneration %}", ""
    )
    assert encode_conversation(plain, TALK) == marked


def test_prompt_and_answer_are_the_conversation(tokenizer):
    prompt, answer = encode_response(tokenizer, TALK[:-1], "Second.")
    assert prompt == encode_prompt(tokenizer, TALK[:-1])
    assert [*prompt, *answer] == encode_conversation(tokenizer, TALK).ids
    assert answer[-1] == tokenizer.eos_token_id


def test_a_template_that_does_not_continue_its_prompt_is_refused(tokenizer):
    odd = copy.deepcopy(tokenizer)
    odd.chat_template = (
        "{{ messages | length }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}"
        "{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    with pytest.raises(ModelError, match="does not continue its own prompt"):
        encode_response(odd, TALK[:1], "First.")


def test_what_follows_the_end_token_is_no_answer(tokenizer):
    trailing = copy.deepcopy(tokenizer)
    trailing.chat_template = tokenizer.chat_template.replace(
        "{% endgeneration %}", "{% endgeneration %}{{ '\n' }}"
    )
    _, answer = encode_response(trailing, TALK[:1], "First.")
    assert answer[-1] == tokenizer.eos_token_id


def test_special_tokens_inside_an_answer_stay_visible(tokenizer):
    ids = tokenizer("Well <|user|> then", add_special_tokens=False)["input_ids"]
    ends = frozenset([tokenizer.eos_token_id])
    text = decode_response(tokenizer, [*ids, tokenizer.eos_token_id], ends)
    assert text == "Well <|user|> then"


def test_a_tokenizer_whose_padding_is_its_end_gets_another(tokenizer, base_folder, tmp_path):
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(base_folder, folder)
    changed = copy.deepcopy(tokenizer)
    changed.pad_token = changed.eos_token
    changed.save_pretrained(folder)
    loaded = load_tokenizer(folder)
    assert loaded.pad_token_id != loaded.eos_token_id


def test_a_tokenizer_without_template_gets_the_default(tokenizer, base_folder, tmp_path):
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(base_folder, folder)
    (folder / "chat_template.jinja").unlink()
    assert encode_prompt(load_tokenizer(folder), TALK[:1]) == encode_prompt(tokenizer, TALK[:1])


def test_line_breaks_and_other_scripts_survive(tokenizer):
    text = "Zwei Zeilen\n\nund 漢字, naïve 🙂"
    _, answer = encode_response(tokenizer, TALK[:1], text)
    assert decode_response(tokenizer, answer, frozenset([tokenizer.eos_token_id])) == text
