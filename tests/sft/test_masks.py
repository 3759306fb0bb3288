"""What is learnt under the chat templates of six families, against strings marked by hand.

Templates of Llama 3, Llama 3.1, Qwen2.5, Qwen3 and Gemma are those that TRL brings in its package
(``trl/chat_templates``), which it takes from the models' published ``tokenizer_config.json``
(its README names each). The other three stand below, from

- Mistral: mistralai/Mistral-7B-Instruct-v0.1, ``tokenizer_config.json``;
- Zephyr: HuggingFaceH4/zephyr-7b-beta, ``tokenizer_config.json``;
- ChatML: the default of transformers before 4.44, as many fine-tuned models have it.

Tokenizers are made here, with each family's special tokens. Between ⟦ and ⟧ is what is learnt.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import trl
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from plumbline.data.records import assistant, user
from plumbline.lm.chat import ConversationRefusedError, encode_demonstration

#: How Llama 3's and Qwen's tokenizers split a text: line breaks in a row are one piece.
PIECES = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TRL = Path(trl.__file__).parent / "chat_templates"
MISTRAL = (
    "{%- if messages[0]['role'] == 'system' %}\n    {%- set system_message = messages[0]['content']"
    " %}\n    {%- set loop_messages = messages[1:] %}\n{%- else %}\n    {%- set loop_messages = "
    "messages %}\n{%- endif %}\n\n{{- bos_token }}\n{%- for message in loop_messages %}\n    "
    "{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\n        {{- raise_exception("
    "'After the optional system message, conversation roles must alternate user/assistant/user/"
    "assistant/...') }}\n    {%- endif %}\n    {%- if message['role'] == 'user' %}\n        "
    "{%- if loop.first and system_message is defined %}\n            {{- ' [INST] ' + "
    "system_message + '\\n\\n' + message['content'] + ' [/INST]' }}\n        {%- else %}\n"
    "            {{- ' [INST] ' + message['content'] + ' [/INST]' }}\n        {%- endif %}\n    "
    "{%- elif message['role'] == 'assistant' %}\n        {{- ' ' + message['content'] + eos_token}}"
    "\n    {%- else %}\n        {{- raise_exception('Only user and assistant roles are supported, "
    "with the exception of an initial optional system message!') }}\n    {%- endif %}\n"
    "{%- endfor %}\n"
)
ZEPHYR = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + "
    "message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' "
    "+ message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n"
    "{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n{% if loop.last and "
    "add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% endif %}"
)


def template(name):
    return (TRL / f"{name}.jinja").read_text(encoding="utf-8")


#: Template, then special tokens: the first begins a text, the second ends it.
FAMILIES = {
    "llama3": (lambda: template("llama3"), "<|begin_of_text|> <|eot_id|> <|start_header_id|> "
               "<|end_header_id|>"),
    "llama3_1": (lambda: template("llama3_1"), "<|begin_of_text|> <|eot_id|> <|start_header_id|> "
                 "<|end_header_id|> <|eom_id|> <|python_tag|>"),
    "qwen2_5": (lambda: template("qwen2_5"), "<|endoftext|> <|im_end|> <|im_start|>"),
    "qwen3": (lambda: template("qwen3"), "<|endoftext|> <|im_end|> <|im_start|>"),
    "mistral": (lambda: MISTRAL, "<s> </s>"),
    "gemma": (lambda: template("gemma"), "<bos> <end_of_turn> <start_of_turn>"),
    "chatml": (lambda: CHATML, "<s> <|im_end|> <|im_start|>"),
    "zephyr": (lambda: ZEPHYR, "<s> </s>"),
}  # fmt: skip


@pytest.fixture(scope="module")
def family():
    """A tokenizer of a family, made once."""
    made = {}

    def make(name):
        if name not in made:
            source, special = FAMILIES[name]
            tokens = special.split()
            tokenizer = Tokenizer(models.BPE())
            tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
                [
                    pre_tokenizers.Split(Regex(PIECES), "isolated"),
                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
                ]
            )
            tokenizer.decoder = decoders.ByteLevel()
            trainer = trainers.BpeTrainer(
                vocab_size=340,
                special_tokens=[*tokens, "<unk>"],
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                show_progress=False,
            )
            tokenizer.train_from_iterator(["What is two and two? It is four.\n\n"] * 20, trainer)
            fast = PreTrainedTokenizerFast(
                tokenizer_object=tokenizer, bos_token=tokens[0], eos_token=tokens[1],
                extra_special_tokens=tokens[2:], clean_up_tokenization_spaces=False,
            )  # fmt: skip
            fast.chat_template = source()
            made[name] = fast
        return made[name]

    return make


def marked(tokenizer, messages, **options):
    """The sequences of a dialogue as text, with what is learnt between ⟦ and ⟧."""
    texts = []
    for ids, mask, _ in encode_demonstration(tokenizer, messages, **options):
        text, start = "", 0
        for place in range(1, len(ids) + 1):
            if place == len(ids) or mask[place] != mask[start]:
                piece = tokenizer.decode(ids[start:place], skip_special_tokens=False)
                text += f"⟦{piece}⟧" if mask[start] else piece
                start = place
        texts.append(text)
    return texts


TALK = [user("One?"), assistant("Two."), user("Three?"), assistant("Four.")]
SYSTEM = {"role": "system", "content": "Be short."}

LLAMA = "<|start_header_id|>{}<|end_header_id|>\n\n"
DATE = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
QWEN = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."


@pytest.mark.parametrize(
    ("name", "messages", "expected"),
    [
        ("llama3", [SYSTEM, *TALK], [
            "<|begin_of_text|>" + LLAMA.format("system") + "Be short.<|eot_id|>"
            + LLAMA.format("user") + "One?<|eot_id|>"
            + LLAMA.format("assistant") + "⟦Two.<|eot_id|>⟧"
            + LLAMA.format("user") + "Three?<|eot_id|>"
            + LLAMA.format("assistant") + "⟦Four.<|eot_id|>⟧"
        ]),
        ("llama3_1", TALK[:2], [
            "<|begin_of_text|>" + LLAMA.format("system") + DATE + "<|eot_id|>"
            + LLAMA.format("user") + "One?<|eot_id|>"
            + LLAMA.format("assistant") + "⟦Two.<|eot_id|>⟧"
        ]),
        ("qwen2_5", TALK, [
            QWEN + "<|im_end|>\n<|im_start|>user\nOne?<|im_end|>\n"
            "<|im_start|>assistant\n⟦Two.<|im_end|>⟧\n<|im_start|>user\nThree?<|im_end|>\n"
            "<|im_start|>assistant\n⟦Four.<|im_end|>⟧"
        ]),
        # Only the last turn has a block of thinking, so each turn is learnt by itself.
        ("qwen3", TALK, [
            "<|im_start|>user\nOne?<|im_end|>\n"
            "<|im_start|>assistant\n⟦<think>\n\n</think>\n\nTwo.<|im_end|>⟧",
            "<|im_start|>user\nOne?<|im_end|>\n<|im_start|>assistant\nTwo.<|im_end|>\n"
            "<|im_start|>user\nThree?<|im_end|>\n"
            "<|im_start|>assistant\n⟦<think>\n\n</think>\n\nFour.<|im_end|>⟧",
        ]),
        ("mistral", [SYSTEM, *TALK], [
            "<s> [INST] Be short.\n\nOne? [/INST]⟦ Two.</s>⟧ [INST] Three? [/INST]⟦ Four.</s>⟧"
        ]),
        ("gemma", TALK, [
            "<bos><start_of_turn>user\nOne?<end_of_turn>\n<start_of_turn>model\n"
            "⟦Two.<end_of_turn>⟧\n<start_of_turn>user\nThree?<end_of_turn>\n"
            "<start_of_turn>model\n⟦Four.<end_of_turn>⟧"
        ]),
        ("chatml", [SYSTEM, *TALK], [
            "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\nOne?<|im_end|>\n"
            "<|im_start|>assistant\n⟦Two.<|im_end|>⟧\n<|im_start|>user\nThree?<|im_end|>\n"
            "<|im_start|>assistant\n⟦Four.<|im_end|>⟧"
        ]),
        # The line breaks of the template's own lines are written: behind </s>, and behind the role
        # that begins a response.
        ("zephyr", [SYSTEM, *TALK], [
            "<|system|>\nBe short.</s>\n<|user|>\nOne?</s>\n<|assistant|>\n⟦Two.</s>⟧\n"
            "<|user|>\nThree?</s>\n<|assistant|>\n⟦Four.</s>⟧"
        ]),
    ],
)  # fmt: skip
def test_masks_equal_strings_marked_by_hand(family, name, messages, expected):
    assert marked(family(name), messages) == expected


def test_a_turn_of_weight_zero_is_shown_and_not_learnt(family):
    talk = [TALK[0], TALK[1] | {"weight": 0}, *TALK[2:]]
    assert marked(family("chatml"), talk) == [
        "<|im_start|>user\nOne?<|im_end|>\n<|im_start|>assistant\nTwo.<|im_end|>\n"
        "<|im_start|>user\nThree?<|im_end|>\n<|im_start|>assistant\n⟦Four.<|im_end|>⟧"
    ]
    last = [*TALK[:3], TALK[3] | {"weight": 0}]
    assert marked(family("chatml"), last) == [
        "<|im_start|>user\nOne?<|im_end|>\n<|im_start|>assistant\n⟦Two.<|im_end|>⟧"
    ]
    assert marked(family("chatml"), last, last_turn_only=True) == marked(family("chatml"), last)


def test_reasoning_is_learnt_where_it_was_thought_and_dropped_later_as_the_template_does(family):
    talk = [
        user("One?"),
        assistant("Two.") | {"reasoning_content": "One and one."},
        user("Three?"),
        assistant("Four.") | {"reasoning_content": "Two and two."},
    ]
    assert marked(family("qwen3"), talk) == [
        "<|im_start|>user\nOne?<|im_end|>\n"
        "<|im_start|>assistant\n⟦<think>\nOne and one.\n</think>\n\nTwo.<|im_end|>⟧",
        "<|im_start|>user\nOne?<|im_end|>\n<|im_start|>assistant\nTwo.<|im_end|>\n"
        "<|im_start|>user\nThree?<|im_end|>\n"
        "<|im_start|>assistant\n⟦<think>\nTwo and two.\n</think>\n\nFour.<|im_end|>⟧",
    ]


CALL = {"type": "function", "function": {"name": "weather", "arguments": '{"city": "Köln"}'}}
TOOL = {"type": "function", "function": {"name": "weather", "description": "It knows."}}
CALLING = [
    user("Rain?"),
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": '{"rain": "no"}', "name": "weather"},
    assistant("No."),
]
QWEN_TOOLS = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are "
    "provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
    '{"type": "function", "function": {"name": "weather", "description": "It knows."}}\n</tools>'
    "\n\nFor each function call, return a json object with function name and arguments within "
    '<tool_call></tool_call> XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": '
    "<args-json-object>}\n</tool_call><|im_end|>\n"
)


def test_calls_of_tools_are_learnt_and_their_results_are_not(family):
    assert marked(family("qwen2_5"), CALLING, tools=[TOOL]) == [
        f"{QWEN}\n\n{QWEN_TOOLS}<|im_start|>user\nRain?<|im_end|>\n<|im_start|>assistant\n"
        '⟦<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call><|im_end|>⟧'
        '\n<|im_start|>user\n<tool_response>\n{"rain": "no"}\n</tool_response><|im_end|>\n'
        "<|im_start|>assistant\n⟦No.<|im_end|>⟧"
    ]


def test_tools_with_thinking_are_learnt_turn_by_turn(family):
    thinking = [CALLING[0], CALLING[1] | {"reasoning_content": "I must ask."}, CALLING[2],
                CALLING[3] | {"reasoning_content": "It says no."}]  # fmt: skip
    head = f"<|im_start|>system\n{QWEN_TOOLS}<|im_start|>user\nRain?<|im_end|>\n"
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call><|im_end|>'
    assert marked(family("qwen3"), thinking, tools=[TOOL]) == [
        f"{head}<|im_start|>assistant\n⟦<think>\nI must ask.\n</think>\n\n{call}⟧\n"
        '<|im_start|>user\n<tool_response>\n{"rain": "no"}\n</tool_response><|im_end|>\n'
        "<|im_start|>assistant\n⟦<think>\nIt says no.\n</think>\n\nNo.<|im_end|>⟧"
    ]


def test_llama_writes_calls_as_json_and_results_of_tools_for_ipython(family):
    (text,) = marked(family("llama3_1"), CALLING, tools=[TOOL])
    assert (
        LLAMA.format("assistant")
        + ('⟦{"name": "weather", "parameters": {"city": "Köln"}}<|eot_id|>⟧')
        in text
    )
    assert LLAMA.format("ipython") + '"{\\"rain\\": \\"no\\"}"<|eot_id|>' in text
    assert text.endswith(LLAMA.format("assistant") + "⟦No.<|eot_id|>⟧")
    assert text.count("⟦") == 2


@pytest.mark.parametrize(
    ("name", "messages", "tools", "reason"),
    [
        ("chatml", CALLING, [TOOL], "does not write the tools that may be called (weather)"),
        ("chatml", CALLING, [], "does not write calls of tools"),
        ("gemma", CALLING, [], "does not write calls of tools"),
        ("gemma", [SYSTEM, *TALK], [], "System role not supported"),
        ("mistral", [TALK[0], *TALK], [], "must alternate"),
        ("zephyr", CALLING, [], "does not write calls of tools"),
        ("qwen2_5", [TALK[0], TALK[1] | {"reasoning_content": "Hm."}], [],
         "does not write the reasoning of a turn"),
        ("llama3_1", [CALLING[0], CALLING[1] | {"content": "Let me see."}, *CALLING[2:]], [TOOL],
         "does not write what a turn says beside its calls"),
        ("llama3_1", [CALLING[0], CALLING[1] | {"tool_calls": [CALL, CALL]}, *CALLING[2:]], [TOOL],
         "only supports single tool-calls"),
    ],
)  # fmt: skip
def test_what_a_template_would_lose_is_refused_with_the_reason(
    family, name, messages, tools, reason
):
    with pytest.raises(ConversationRefusedError) as error:
        encode_demonstration(family(name), messages, tools=tools)
    assert reason in str(error.value)
