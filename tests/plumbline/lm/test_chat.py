"""Ids, masks and templates: what goes wrong when every stage does this by itself."""

from __future__ import annotations

import copy
import shutil

import pytest

from plumbline.data.records import assistant, user
from plumbline.errors import ModelError
from plumbline.lm.chat import (
    ConversationRefusedError,
    decode_response,
    encode_demonstration,
    encode_prompt,
    encode_response,
    encode_turns,
    end_token_ids,
    turn_end,
)
from plumbline.lm.tokenizer import load_tokenizer

TALK = [user("One?"), assistant("First."), user("Two?"), assistant("Second.")]
KINDS = (
    "chatml", "base-chatml", "unmarked-end", "strict", "think", "plain", "no-end", "short-context",
)  # fmt: skip
RESPONSES = ["Blue.", " Blue.", "\nBlue.", "\n\nBlue.", "\n", "", "Blue.\n", "Blue. <|im_end|> Red"]


@pytest.fixture(params=KINDS)
def kind(request, model_of_kind):
    """A tokenizer of each kind, with the kind's name."""
    return request.param, load_tokenizer(model_of_kind(request.param))


def template(tokenizer, text):
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = text
    return changed


def test_there_is_one_beginning_and_one_end_for_every_turn(tokenizer):
    (turns,) = encode_demonstration(tokenizer, TALK)
    assert turns.ids.count(tokenizer.bos_token_id) == 1
    assert turns.ids.count(tokenizer.eos_token_id) == len(TALK)
    assert tokenizer.pad_token_id not in turns.ids


def test_padding_is_no_other_token(tokenizer):
    assert tokenizer.pad_token_id not in (tokenizer.eos_token_id, tokenizer.bos_token_id)


def test_the_mask_covers_what_the_assistant_says_and_its_end(tokenizer):
    ((ids, mask, _),) = encode_demonstration(tokenizer, TALK)
    said = [token for token, spoken in zip(ids, mask, strict=True) if spoken]
    end = tokenizer.eos_token
    assert tokenizer.decode(said) == f"First.{end}Second.{end}"


def test_the_ids_and_the_mask_are_transformers_own(tokenizer):
    """Where turns can be told apart by special tokens, all agree; here with its markers."""
    encoded = tokenizer.apply_chat_template(
        TALK, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    ((ids, mask, _),) = encode_demonstration(tokenizer, TALK)
    assert ids == encoded["input_ids"]
    assert mask == encoded["assistant_masks"]


def test_prompt_and_response_are_the_conversation(tokenizer):
    prompt, response = encode_response(tokenizer, TALK[:-1], "Second.")
    assert prompt == encode_prompt(tokenizer, TALK[:-1])
    assert [*prompt, *response] == encode_demonstration(tokenizer, TALK)[0].ids
    assert response[-1] == tokenizer.eos_token_id


# One response of any form, under any template.


@pytest.mark.parametrize("response", RESPONSES)
def test_a_response_is_prompt_ids_and_response_ids_whatever_it_begins_with(kind, response):
    name, tokenizer = kind
    prompt = [user("What colour is it?")]
    prompt_ids, response_ids = encode_response(tokenizer, prompt, response)
    assert prompt_ids == encode_prompt(tokenizer, prompt)
    # What a policy gives as these ids reads as the text, and is encoded as the same ids again.
    text = decode_response(tokenizer, response_ids, end_token_ids(tokenizer))
    again = encode_response(tokenizer, prompt, text)
    assert again == (prompt_ids, response_ids)
    if name not in ("strict", "think"):  # which trim it, and write a block before it
        assert text == response
    assert response_ids[-1] == turn_end(tokenizer).id


@pytest.mark.parametrize("response", RESPONSES)
def test_training_and_scoring_see_the_same_ids(kind, response):
    _, tokenizer = kind
    prompt = [user("What colour is it?")]
    prompt_ids, response_ids = encode_response(tokenizer, prompt, response)
    ((ids, mask, _),) = encode_demonstration(tokenizer, [*prompt, assistant(response)])
    assert ids == [*prompt_ids, *response_ids]
    assert mask == [0] * len(prompt_ids) + [1] * len(response_ids)


def test_a_line_break_behind_the_prompt_s_stays_a_token_of_its_own(model_of_kind):
    """Written and tokenised at once the two would merge, into a prompt that no policy is given."""
    tokenizer = load_tokenizer(model_of_kind("chatml"))
    prompt = [user("What?")]
    prompt_ids, response_ids = encode_response(tokenizer, prompt, "\nBlue.")
    assert tokenizer.decode(response_ids[:1]) == "\n"
    whole = tokenizer.apply_chat_template([*prompt, assistant("\nBlue.")], tokenize=False)
    at_once = tokenizer(whole, add_special_tokens=False)["input_ids"]
    assert at_once[: len(prompt_ids)] != prompt_ids


def test_half_a_character_is_a_row_s_error(tokenizer):
    with pytest.raises(ConversationRefusedError, match="half a character"):
        encode_response(tokenizer, [user("Smile")], "\ud83d")


# The end of a turn.


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("chatml", "<|im_end|>"),
        ("base-chatml", "<|im_end|>"),
        ("unmarked-end", "<|im_end|>"),
        ("think", "<|im_end|>"),
        ("no-end", "<|im_end|>"),
    ],
)
def test_the_template_s_end_of_turn_is_learnt_and_ends_responses(model_of_kind, name, end):
    tokenizer = load_tokenizer(model_of_kind(name))
    ((ids, mask, _),) = encode_demonstration(tokenizer, [user("a"), assistant("b")])
    learnt = [token for token, speaks in zip(ids, mask, strict=True) if speaks]
    assert tokenizer.decode(learnt[-1:]) == end
    assert learnt[-1] in end_token_ids(tokenizer)
    assert tokenizer.eos_token_id in end_token_ids(tokenizer)
    assert turn_end(tokenizer).written == (name != "no-end")


def test_what_follows_the_end_token_is_no_response(tokenizer):
    trailing = template(
        tokenizer,
        tokenizer.chat_template.replace("{% endgeneration %}", "{% endgeneration %}{{ '\n' }}"),
    )
    _, response = encode_response(trailing, TALK[:1], "First.")
    assert response == encode_response(tokenizer, TALK[:1], "First.").response_ids


def test_a_template_that_does_not_write_the_assistant_is_refused(tokenizer):
    silent = template(tokenizer, "{% for m in messages if m.role == 'user' %}{{ m.content }}"
                                 "{% endfor %}")  # fmt: skip
    with pytest.raises(ModelError, match="does not write what the assistant says"):
        encode_response(silent, TALK[:1], "First.")


# Templates that write a prompt another way once it is answered.


def test_a_template_that_does_not_continue_its_prompt_has_defined_ids(tokenizer):
    odd = template(
        tokenizer,
        "{{ messages | length }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}"
        "{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
    )
    prompt, response = encode_response(odd, TALK[:1], "First.")
    assert odd.decode(prompt) == "1<|user|>One?<|eos|><|assistant|>"
    assert odd.decode(response) == "First.<|eos|>"
    # Each turn is learnt behind what the policy is given there: "1…" and "3…".
    sequences = encode_demonstration(odd, TALK)
    assert [odd.decode(sequence.ids)[0] for sequence in sequences] == ["1", "3"]


def test_reasoning_that_later_turns_drop_is_learnt_turn_by_turn(model_of_kind):
    tokenizer = load_tokenizer(model_of_kind("think"))
    first, second = encode_demonstration(tokenizer, TALK)
    assert first.ids == [*encode_prompt(tokenizer, TALK[:1]),
                         *encode_response(tokenizer, TALK[:1], "First.").response_ids]  # fmt: skip
    assert tokenizer.decode(second.ids[-second.assistant_mask.count(1) :]) == (
        "<think>\n\n</think>\n\nSecond.<|im_end|>"
    )
    # Of the first turn, the second sees no block; it is not learnt there again.
    seen = second.ids[: second.assistant_mask.index(1)]
    assert seen == encode_prompt(tokenizer, TALK[:3])
    assert "<think>" not in tokenizer.decode(seen)


def test_a_block_that_the_policy_wrote_itself_is_not_written_twice(model_of_kind):
    tokenizer = load_tokenizer(model_of_kind("think"))
    _, plain = encode_response(tokenizer, TALK[:1], "Blue.")
    _, own = encode_response(tokenizer, TALK[:1], "<think>\n\n</think>\n\nBlue.")
    assert own == plain
    assert tokenizer.decode(own).count("<think>") == 1


def test_turns_share_a_sequence_where_they_continue_one_another(model_of_kind):
    tokenizer = load_tokenizer(model_of_kind("chatml"))
    assert len(encode_demonstration(tokenizer, TALK)) == 1
    # In the second prompt this first response merges with the line break before it.
    talk = [user("One?"), assistant("\nFirst."), user("Two?"), assistant("Second.")]
    sequences = encode_demonstration(tokenizer, talk)
    assert len(sequences) == 2
    for turn, sequence in zip((1, 3), sequences, strict=True):
        prompt_ids, response_ids = encode_response(tokenizer, talk[:turn], talk[turn]["content"])
        assert sequence.ids == [*prompt_ids, *response_ids]
        assert sum(sequence.assistant_mask) == len(response_ids)


def test_the_last_turn_alone(tokenizer):
    (last,) = encode_demonstration(tokenizer, TALK, last_turn_only=True)
    (whole,) = encode_demonstration(tokenizer, TALK)
    assert last.ids == whole.ids
    assert sum(last.assistant_mask) == len(encode_response(tokenizer, TALK[:3], "Second.")[1])


@pytest.mark.parametrize("name", ["chatml", "think", "no-end", "plain"])
def test_a_dialogue_goes_on_behind_the_ids_that_a_policy_sampled(model_of_kind, name):
    tokenizer = load_tokenizer(model_of_kind(name))
    between = tokenizer.decode(encode_turns(tokenizer, TALK[:2], TALK[2:3]))
    assert (
        between
        == {
            "chatml": "\n<|im_start|>user\nTwo?<|im_end|>\n<|im_start|>assistant\n",
            "think": "\n<|im_start|>user\nTwo?<|im_end|>\n<|im_start|>assistant\n",
            "no-end": "\nuser: Two?\nassistant: ",
            "plain": "<|im_start|>user:Two?<|im_end|><|im_start|>assistant:",
        }[name]
    )


# What a template refuses.


def test_a_template_s_refusal_is_a_row_s_error_with_its_own_words(model_of_kind):
    tokenizer = load_tokenizer(model_of_kind("strict"))
    with pytest.raises(ConversationRefusedError, match="Roles must alternate"):
        encode_demonstration(tokenizer, [user("a"), user("b"), assistant("c")])
    with pytest.raises(ConversationRefusedError, match="Roles must alternate"):
        encode_prompt(tokenizer, [{"role": "system", "content": "Be short."}, user("a")])


def test_a_turn_that_a_template_leaves_out_is_a_row_s_error(tokenizer):
    deaf = template(
        tokenizer,
        "{% for m in messages if m.role != 'system' %}<|{{ m.role }}|>{{ m.content }}"
        "{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
    )
    with pytest.raises(ConversationRefusedError, match=r"leaves out message 1.*'system'"):
        encode_prompt(deaf, [{"role": "system", "content": "Be short."}, user("a")])


# Back to text, and tokenizers as they come.


def test_special_tokens_inside_a_response_stay_visible(tokenizer):
    ids = tokenizer("Well <|user|> then", add_special_tokens=False)["input_ids"]
    ends = frozenset([tokenizer.eos_token_id])
    text = decode_response(tokenizer, [*ids, tokenizer.eos_token_id], ends)
    assert text == "Well <|user|> then"


def test_a_tokenizer_whose_padding_is_its_end_gets_another(tokenizer, base_folder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(base_folder, folder)
    changed = copy.deepcopy(tokenizer)
    changed.pad_token = changed.eos_token
    changed.save_pretrained(folder)
    loaded = load_tokenizer(folder)
    assert loaded.pad_token_id != loaded.eos_token_id


def test_a_tokenizer_without_template_gets_the_default(tokenizer, base_folder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(base_folder, folder)
    (folder / "chat_template.jinja").unlink()
    assert encode_prompt(load_tokenizer(folder), TALK[:1]) == encode_prompt(tokenizer, TALK[:1])


def test_line_breaks_and_other_scripts_survive(tokenizer):
    text = "Zwei Zeilen\n\nund 漢字, naïve 🙂"
    _, response = encode_response(tokenizer, TALK[:1], text)
    assert decode_response(tokenizer, response, frozenset([tokenizer.eos_token_id])) == text


def test_a_tokenizer_that_puts_a_space_before_a_text_does_so_only_at_the_beginning():
    """SentencePiece's way: the response stands in the middle of a sequence."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["▁Blue", "Blue", "▁", "[", "INST", "]", "a", ".", "<s>", "</s>"]
    model = models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="▁")
    raw = Tokenizer(model)
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(prepend_scheme="first"), pre_tokenizers.Punctuation()]
    )
    raw.decoder = decoders.Metaspace(prepend_scheme="first")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ '<s>[INST]' + m.content + '[INST]' }}"
        "{% else %}{{ m.content + '</s>' }}{% endif %}{% endfor %}"
    )
    _, response = encode_response(tokenizer, [user("a")], "Blue.")
    assert tokenizer.convert_ids_to_tokens(response) == ["Blue", ".", "</s>"]
