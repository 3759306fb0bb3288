"""Public data sets, a made row in the layout of each: what is read of it, and what is left out.

The rows are invented; their columns and shapes are those of the data sets. docs/formats.md has a
table of them, which a test below compares with this file.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from plumbline.data.records import assistant, user

DOCS = Path(__file__).parents[3] / "docs" / "formats.md"
Q, RED, NO = "Name a colour", "Red", "No"
TALK, BAD = [user(Q), assistant(RED)], [user(Q), assistant(NO)]
SHARED = [{"from": "human", "value": Q}, {"from": "gpt", "value": RED}]


class Public(NamedTuple):
    """A row in the layout of a public data set, and what is to be read of it."""

    name: str
    use: str
    format: str
    row: dict[str, Any]
    read: dict[str, Any]


def learnt(*messages):
    return {"messages": list(messages)}


def pair(prompt=None):
    asked = [user(Q)] if prompt is None else prompt
    return {"prompt": asked, "chosen": [assistant(RED)], "rejected": [assistant(NO)]}


CALL = {"type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
WEATHER = {"name": "weather", "arguments": {"city": "Oslo"}}

PUBLIC = [
    Public(
        "OpenAI fine-tuning",
        "demonstrations",
        "messages",
        {"messages": [user("a"), assistant("b") | {"weight": 0}, user("c"), assistant("d")]},
        learnt(user("a"), assistant("b") | {"weight": 0}, user("c"), assistant("d")),
    ),
    Public(
        "UltraChat 200k",
        "demonstrations",
        "messages",
        {"prompt": Q, "prompt_id": "f0e1", "messages": TALK},
        learnt(*TALK),
    ),
    Public(
        "UltraChat, raw files",
        "demonstrations",
        "alternating",
        {"id": "0", "data": [Q, RED]},
        learnt(*TALK),
    ),
    Public(
        "ShareGPT / Vicuna",
        "demonstrations",
        "sharegpt",
        {"id": "x_0", "conversations": SHARED},
        learnt(*TALK),
    ),
    Public(
        "OpenHermes 2.5",
        "demonstrations",
        "sharegpt",
        {
            "conversations": [{"from": "system", "value": "Be brief."}, *SHARED],
            "source": "airoboros",
            "system_prompt": None,
        },
        learnt({"role": "system", "content": "Be brief."}, *TALK),
    ),
    Public(
        "Glaive function calling (LLaMA-Factory)",
        "demonstrations",
        "sharegpt",
        {
            "conversations": [
                {"from": "human", "value": "Weather?"},
                {"from": "function_call", "value": json.dumps(WEATHER)},
                {"from": "observation", "value": "18"},
                {"from": "gpt", "value": "18 degrees"},
            ],
            "tools": json.dumps([{"name": "weather"}]),
        },
        learnt(
            user("Weather?"),
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "content": "18"},
            assistant("18 degrees"),
        )
        | {"tools": ({"name": "weather"},)},
    ),
    Public(
        "xLAM function calling",
        "demonstrations",
        "tool_use",
        {
            "id": 0,
            "query": "Weather?",
            "answers": json.dumps([WEATHER]),
            "tools": json.dumps([{"name": "weather"}]),
        },
        learnt(user("Weather?"), {"role": "assistant", "content": "", "tool_calls": [CALL]})
        | {"tools": ({"name": "weather"},)},
    ),
    Public(
        "LMSYS-Chat-1M / WildChat",
        "demonstrations",
        "messages",
        {
            "conversation_id": "1",
            "model": "m",
            "conversation": [user(Q) | {"redacted": False}, assistant(RED)],
            "turn": 1,
            "language": "English",
        },
        learnt(*TALK),
    ),
    Public(
        "Capybara",
        "demonstrations",
        "exchanges",
        {"source": "x", "conversation": [{"input": Q, "output": RED}]},
        learnt(*TALK),
    ),
    Public(
        "OpenAssistant Guanaco",
        "demonstrations",
        "marked_text",
        {"text": f"### Human: {Q}### Assistant: {RED}"},
        learnt(*TALK),
    ),
    Public(
        "OpenAssistant trees",
        "preferences",
        "oasst_tree",
        {
            "message_tree_id": "1",
            "tree_state": "ready_for_export",
            "prompt": {
                "text": Q,
                "role": "prompter",
                "replies": [
                    {"text": NO, "role": "assistant", "rank": 1, "replies": []},
                    {"text": RED, "role": "assistant", "rank": 0, "replies": []},
                ],
            },
        },
        pair(),
    ),
    Public(
        "Stanford Alpaca",
        "demonstrations",
        "alpaca",
        {"instruction": "Translate.", "input": "red", "output": "rouge"},
        learnt(user("Translate.\n\nred"), assistant("rouge")),
    ),
    Public(
        "Alpaca with history (LLaMA-Factory)",
        "demonstrations",
        "alpaca",
        {
            "instruction": Q,
            "input": "",
            "output": RED,
            "system": "Be brief.",
            "history": [["Hi", "Hello"]],
        },
        learnt({"role": "system", "content": "Be brief."}, user("Hi"), assistant("Hello"), *TALK),
    ),
    Public(
        "Dolly 15k",
        "demonstrations",
        "alpaca",
        {
            "instruction": "Which colour?",
            "context": "It is red.",
            "response": RED,
            "category": "closed_qa",
        },
        learnt(user("Which colour?\n\nIt is red."), assistant(RED)),
    ),
    Public(
        "OpenOrca",
        "demonstrations",
        "question_answer",
        {"id": "flan.1", "system_prompt": "Be brief.", "question": Q, "response": RED},
        learnt({"role": "system", "content": "Be brief."}, *TALK),
    ),
    Public(
        "MetaMathQA",
        "demonstrations",
        "input_output",
        {"type": "MATH_Rephrased", "query": Q, "original_question": "x", "response": RED},
        learnt(*TALK),
    ),
    Public(
        "FLAN collection",
        "demonstrations",
        "input_output",
        {"inputs": Q, "targets": RED, "task_source": "Flan2021", "task_name": "x"},
        learnt(*TALK),
    ),
    Public(
        "GSM8K",
        "prompts",
        "question_answer",
        {"question": Q, "answer": "so\n#### 6"},
        {"prompt": [user(Q)], "references": ("so\n#### 6",)},
    ),
    Public(
        "MATH",
        "prompts",
        "question_answer",
        {"problem": Q, "level": "Level 1", "type": "Algebra", "solution": "\\boxed{6}"},
        {"prompt": [user(Q)], "references": ("\\boxed{6}",), "subset": "Algebra"},
    ),
    Public(
        "SQuAD (flat)",
        "prompts",
        "question_answer",
        {
            "id": "1",
            "title": "x",
            "context": "It is red.",
            "question": Q,
            "answers": {"text": [RED], "answer_start": [6]},
        },
        {"prompt": [user(f"It is red.\n\n{Q}")], "references": (RED,)},
    ),
    Public(
        "AQuA-RAT",
        "prompts",
        "multiple_choice",
        {"question": "2 + 2?", "options": ["A)3", "B)4"], "rationale": "Four.", "correct": "B"},
        {"prompt": [user("2 + 2?\n\nA) 3\nB) 4")], "references": ("B", "4")},
    ),
    Public(
        "MMLU",
        "prompts",
        "multiple_choice",
        {"question": "2 + 2?", "subject": "algebra", "choices": ["3", "4"], "answer": 1},
        {"prompt": [user("2 + 2?\n\nA) 3\nB) 4")], "references": ("B", "4"), "subset": "algebra"},
    ),
    Public(
        "ARC / CommonsenseQA",
        "prompts",
        "multiple_choice",
        {
            "id": "1",
            "question": "2 + 2?",
            "choices": {"text": ["3", "4"], "label": ["A", "B"]},
            "answerKey": "B",
        },
        {"prompt": [user("2 + 2?\n\nA) 3\nB) 4")], "references": ("B", "4")},
    ),
    Public(
        "TruthfulQA (generation)",
        "prompts",
        "question_answer",
        {
            "type": "Adversarial",
            "category": "Law",
            "question": Q,
            "best_answer": RED,
            "correct_answers": [RED],
            "incorrect_answers": [NO],
            "source": "x",
        },
        {"prompt": [user(Q)], "references": (RED,), "subset": "Law"},
    ),
    Public(
        "MT-Bench",
        "prompts",
        "mt_bench",
        {
            "question_id": 101,
            "category": "math",
            "turns": ["2 + 2?", "And one more?"],
            "reference": ["4", "5"],
        },
        {"prompt": [user("2 + 2?")], "references": ("4",), "subset": "math"},
    ),
    Public(
        "AlignBench",
        "prompts",
        "question_answer",
        {
            "question_id": 1,
            "category": "数学计算",
            "subcategory": "初等数学",
            "question": Q,
            "reference": "0",
        },
        {"prompt": [user(Q)], "references": ("0",), "subset": "数学计算"},
    ),
    Public(
        "AlpacaEval",
        "prompts",
        "alpaca",
        {
            "dataset": "helpful_base",
            "instruction": Q,
            "output": RED,
            "generator": "text_davinci_003",
        },
        {"prompt": [user(Q)], "references": (RED,)},
    ),
    Public(
        "IFEval",
        "prompts",
        "prompt_completion",
        {"key": 1000, "prompt": Q, "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
        {"prompt": [user(Q)]},
    ),
    Public(
        "HumanEval",
        "prompts",
        "prompt_completion",
        {
            "task_id": "HumanEval/0",
            "prompt": "def f(x):\n",
            "canonical_solution": "    return x\n",
            "test": "def check(c): ...",
            "entry_point": "f",
        },
        {"prompt": [user("def f(x):\n")], "references": ("    return x\n",)},
    ),
    Public(
        "Schema-Guided Dialogue",
        "prompts",
        "schema_guided",
        {
            "dialogue_id": "1_00000",
            "services": ["Restaurants_1"],
            "turns": [
                {"frames": [], "speaker": "USER", "utterance": Q},
                {"frames": [], "speaker": "SYSTEM", "utterance": RED},
            ],
        },
        {"prompt": [user(Q)], "response": [assistant(RED)]},
    ),
    Public(
        "Anthropic HH-RLHF",
        "preferences",
        "preference",
        {
            "chosen": f"\n\nHuman: {Q}\n\nAssistant: {RED}",
            "rejected": f"\n\nHuman: {Q}\n\nAssistant: {NO}",
        },
        pair(),
    ),
    Public(
        "UltraFeedback binarized",
        "preferences",
        "preference",
        {
            "prompt": Q,
            "prompt_id": "1",
            "chosen": TALK,
            "rejected": BAD,
            "messages": TALK,
            "score_chosen": 8.0,
            "score_rejected": 2.0,
        },
        pair(),
    ),
    Public(
        "UltraFeedback, raw files",
        "preferences",
        "ranked_responses",
        {
            "source": "x",
            "instruction": Q,
            "models": ["a", "b", "c"],
            "completions": [
                {"model": "a", "response": NO, "overall_score": 2.0},
                {"model": "b", "response": RED, "overall_score": 8.0},
                {"model": "c", "response": "Hm", "overall_score": 5.0},
            ],
        },
        pair(),
    ),
    Public(
        "TRL implicit prompt",
        "preferences",
        "preference",
        {"chosen": TALK, "rejected": BAD},
        pair(),
    ),
    Public(
        "ShareGPT preferences (LLaMA-Factory)",
        "preferences",
        "preference",
        {
            "conversations": SHARED[:1],
            "chosen": {"from": "gpt", "value": RED},
            "rejected": {"from": "gpt", "value": NO},
        },
        pair(),
    ),
    Public(
        "Orca DPO pairs",
        "preferences",
        "preference",
        {"system": "Be brief.", "question": Q, "chosen": RED, "rejected": NO},
        pair([{"role": "system", "content": "Be brief."}, user(Q)]),
    ),
    Public(
        "RewardBench",
        "preferences",
        "preference",
        {
            "id": 30,
            "prompt": Q,
            "chosen": RED,
            "chosen_model": "a",
            "rejected": NO,
            "rejected_model": "b",
            "subset": "alpacaeval-easy",
        },
        pair(),
    ),
    Public(
        "RewardBench 2",
        "preferences",
        "preference",
        {
            "id": "1",
            "prompt": Q,
            "chosen": [RED],
            "rejected": [NO],
            "num_correct": 1,
            "num_incorrect": 1,
            "total_completions": 2,
            "models": ["a", "b"],
            "subset": "Factuality",
            "additional_metadata": None,
        },
        pair(),
    ),
    Public(
        "PKU-SafeRLHF",
        "preferences",
        "better_response",
        {
            "prompt": Q,
            "response_0": NO,
            "response_1": RED,
            "is_response_0_safe": True,
            "is_response_1_safe": True,
            "better_response_id": 1,
            "safer_response_id": 0,
        },
        pair(),
    ),
    Public(
        "HelpSteer2 preference",
        "preferences",
        "preference_strength",
        {
            "split": "train",
            "prompt": Q,
            "response_1": NO,
            "response_2": RED,
            "preference_strength": 2,
            "preference_statement": "x",
        },
        pair(),
    ),
    Public(
        "HelpSteer3 preference",
        "preferences",
        "overall_preference",
        {
            "domain": "general",
            "language": "english",
            "context": [user(Q)],
            "response1": RED,
            "response2": NO,
            "overall_preference": -1,
            "individual_preference": [],
        },
        pair(),
    ),
    Public(
        "Stanford Human Preferences (SHP)",
        "preferences",
        "shp",
        {
            "post_id": "1",
            "domain": "askculinary_train",
            "history": Q,
            "human_ref_A": RED,
            "human_ref_B": NO,
            "labels": 1,
            "score_A": 9,
            "score_B": 2,
        },
        pair(),
    ),
    Public(
        "WebGPT comparisons",
        "preferences",
        "scored_pair",
        {
            "question": {"dataset": "eli5", "id": "1", "full_text": Q},
            "answer_0": NO,
            "score_0": -1.0,
            "answer_1": RED,
            "score_1": 1.0,
        },
        pair(),
    ),
    Public(
        "Summarize from feedback",
        "preferences",
        "summaries",
        {
            "info": {"id": "1", "post": Q, "title": None, "subreddit": "x"},
            "summaries": [
                {"text": NO, "policy": "a", "note": None},
                {"text": RED, "policy": "b", "note": None},
            ],
            "choice": 1,
            "worker": "w",
        },
        pair(),
    ),
    Public(
        "Nectar",
        "preferences",
        "ranked_responses",
        {
            "prompt": f"\n\nHuman: {Q}\n\nAssistant: ",
            "answers": [
                {"answer": RED, "model": "a", "rank": 1.0},
                {"answer": NO, "model": "b", "rank": 7.0},
            ],
            "turns": 1,
            "num_responses": 7,
        },
        pair(),
    ),
    Public(
        "Chatbot Arena conversations",
        "preferences",
        "winner",
        {
            "question_id": "1",
            "model_a": "m",
            "model_b": "n",
            "winner": "model_a",
            "judge": "arena_user",
            "conversation_a": TALK,
            "conversation_b": BAD,
            "turn": 1,
        },
        pair(),
    ),
    Public(
        "Chatbot Arena 55k (competition)",
        "preferences",
        "arena_battle",
        {
            "id": 1,
            "model_a": "m",
            "model_b": "n",
            "prompt": json.dumps([Q]),
            "response_a": json.dumps([NO]),
            "response_b": json.dumps([RED]),
            "winner_model_a": "0",
            "winner_model_b": "1",
            "winner_tie": "0",
        },
        pair(),
    ),
    Public(
        "CValues comparison",
        "preferences",
        "preference",
        {"prompt": Q, "pos_resp": RED, "neg_resp": NO, "pos_type": "x", "neg_type": "y"},
        pair(),
    ),
    Public(
        "ms-swift rejected_response",
        "preferences",
        "rejected_response",
        {"messages": TALK, "rejected_response": NO},
        pair(),
    ),
    Public(
        "TRL KTO mix",
        "unpaired",
        "prompt_completion",
        {"prompt": [user(Q)], "completion": [assistant(NO)], "label": False},
        {"prompt": [user(Q)], "response": [assistant(NO)], "label": False},
    ),
    Public(
        "KTO (LLaMA-Factory)",
        "unpaired",
        "messages",
        {"messages": TALK, "label": True},
        {"prompt": [user(Q)], "response": [assistant(RED)], "label": True},
    ),
    Public(
        "PandaLM test set",
        "pairs",
        "pair",
        {
            "idx": 0,
            "motivation_app": "x",
            "cmp_key": "a_b",
            "instruction": "Which colour?",
            "input": "It is red.",
            "response1": RED,
            "response2": NO,
            "annotator1": 1,
            "annotator2": 1,
            "annotator3": 0,
        },
        {
            "prompt": [user("Which colour?\n\nIt is red.")],
            "a": [assistant(RED)],
            "b": [assistant(NO)],
        },
    ),
]

#: Rows that are left out, each with words of the reason.
REFUSED = [
    (
        "LLaVA",
        "demonstrations",
        {"id": "1", "image": "1.jpg", "conversations": SHARED},
        "has images",
    ),
    (
        "OpenAssistant, flat messages",
        "demonstrations",
        {"message_id": "1", "parent_id": None, "text": Q, "role": "prompter"},
        "of no format",
    ),
    ("C4 / Wikipedia", "demonstrations", {"text": "Saws cut.", "url": "x"}, "of no format"),
    (
        "Glaive v2, raw files",
        "demonstrations",
        {"system": "SYSTEM: x", "chat": f"USER: {Q} ASSISTANT: {RED}"},
        "of no format",
    ),
    ("HellaSwag", "prompts", {"ctx": "x", "endings": ["a", "b"], "label": "1"}, "of no format"),
    (
        "Chatbot Arena: a tie",
        "preferences",
        {"conversation_a": TALK, "conversation_b": BAD, "winner": "tie (bothbad)"},
        "is a tie",
    ),
    (
        "HelpSteer2: no difference",
        "preferences",
        {"prompt": Q, "response_1": "a", "response_2": "b", "preference_strength": 0},
        "is a tie",
    ),
]


@pytest.mark.parametrize("public", PUBLIC, ids=[public.name for public in PUBLIC])
def test_a_row_in_its_layout_is_read(read, public):
    examples, report = read([public.row], public.use)
    assert report.format == public.format, report.dropped.reasons()
    (example,) = examples
    for part, value in public.read.items():
        assert getattr(example, part) == value, part
    # Every column is used, or counted where it holds something.
    told = set(report.columns_used) | set(report.columns_unused)
    silent = {name for name, held in public.row.items() if held not in (None, "", [], {}, False)}
    assert silent <= told


@pytest.mark.parametrize("name, use, row, reason", REFUSED, ids=[name for name, *_ in REFUSED])
def test_a_row_that_cannot_be_used_is_left_out_by_name(read, name, use, row, reason):
    examples, report = read([row], use)
    assert not examples
    assert reason in report.dropped.rows[0]["reason"]


def test_the_table_in_the_documentation_names_them_all():
    text = DOCS.read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| `(\w+)` \| `(\w+)` \|", text, re.MULTILINE)
    assert rows == [(public.name, public.use, public.format) for public in PUBLIC]
    for name, *_ in REFUSED:
        assert f"| {name} |" in text
    assert len(PUBLIC) >= 30
