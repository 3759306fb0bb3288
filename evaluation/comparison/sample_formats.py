"""Output files of other evaluation tools, as samples: one row of a table for each format.

A format turns a line of a file into records with the keys of `sample_records`. Adding a format is
adding a row to `SAMPLE_FORMATS`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from plumbline.data.files import read_records
from plumbline.errors import DataError
from plumbline.tables import Table

Record = Mapping[str, Any]

#: Keys of a line of lm-evaluation-harness that are no metrics.
_LM_EVAL_KEYS = frozenset(
    {"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics",
     "doc_hash", "prompt_hash", "target_hash"}
)  # fmt: skip


@dataclass
class Conversion:
    """What a format may use beside the lines of its file, and what there is to say."""

    path: Path
    model: str | None = None
    """The model's name, where the file does not have it."""
    questions_file: Path | None = None
    """MT-Bench's questions."""
    judgments_file: Path | None = None
    """MT-Bench's judgments of single responses."""
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Say something once."""
        if text not in self.notes:
            self.notes.append(text)

    @cached_property
    def questions(self) -> Mapping[str, Record]:
        """MT-Bench's questions by id, from the file that is given or from where MT-Bench has it."""
        path = self.questions_file
        if path is None:
            folders = (self.path.parent, self.path.parent.parent)
            path = next((f / _QUESTIONS for f in folders if (f / _QUESTIONS).is_file()), None)
        if path is None:
            raise DataError(
                f"{self.path} has MT-Bench's answers without the questions. Put {_QUESTIONS} "
                "beside it, or give it: plumbline convert-samples "
                f"{self.path} --questions {_QUESTIONS} --out samples.jsonl"
            )
        questions = {}
        for number, line in read_records(path):
            if not isinstance(line.get("turns"), list) or "question_id" not in line:
                raise DataError(f"{path}, line {number} is not a question of MT-Bench.")
            questions[str(line["question_id"])] = line
        return questions

    @cached_property
    def mt_bench_scores(self) -> Mapping[tuple[str, str, int], Mapping[str, float]]:
        """The scores of MT-Bench's judges by question, model and turn."""
        scores: dict[tuple[str, str, int], dict[str, float]] = defaultdict(dict)
        path = self.judgments_file
        for number, line in read_records(path) if path is not None else ():
            if not {"question_id", "score", "model"} <= line.keys():
                raise DataError(
                    f"{path}, line {number} is not a judgment of a single response: it has "
                    f"{', '.join(map(str, line))}. Give MT-Bench's file of single scores "
                    "(model_judgment/JUDGE_single.jsonl)."
                )
            if line["score"] == -1:  # the judge's text had no score in it
                self.note(f"{path}, line {number}: the judge gave no score.")
                continue
            judge = line.get("judge") or ["judge"]
            key = (str(line["question_id"]), str(line["model"]), int(line.get("turn") or 1))
            scores[key][str(judge[0] if isinstance(judge, list) else judge)] = line["score"]
        return scores


_QUESTIONS = "question.jsonl"


@dataclass(frozen=True)
class SampleFormat:
    """A format of files with responses."""

    name: str
    about: str
    marks: tuple[str, ...]
    """Keys that every line of the format has."""
    read: Callable[[Record, Conversion], list[Record]]
    """From a line to its samples."""
    merges: bool = False
    """Whether several lines of one response are one sample with several scores."""

    def is_of(self, record: Record) -> bool:
        """Return whether a line is of this format."""
        return all(mark in record for mark in self.marks)


def format_of(record: Record) -> SampleFormat | None:
    """Return the format that a line is of; None where it is of none."""
    return next((form for form in SAMPLE_FORMATS.values() if form.is_of(record)), None)


def _as_it_is(line: Record, conversion: Conversion) -> list[Record]:
    return [line]


def _alpaca_outputs(line: Record, conversion: Conversion) -> list[Record]:
    return [
        {
            "prompt": _alpaca_prompt(line),
            "response": line["output"],
            "model": line["generator"],
            "subset": line.get("dataset"),
        }
    ]


def _alpaca_annotations(line: Record, conversion: Conversion) -> list[Record]:
    """Return both responses of an annotation.

    ``preference`` is 1 where output 1 is better and 2 where output 2 is, or a value between. The
    score of output 2 is ``preference - 1``, and that of output 1, the reference, is 0.5, so that
    the higher score wins.
    """
    preference = line["preference"]
    if preference is not None and not 1 <= preference <= 2:
        raise ValueError(f"the preference is {preference!r}, not from 1 to 2")
    conversion.note(
        f"{conversion.path.name}: preferences became scores, 0.5 for the reference "
        f"{line['generator_1']!r} and preference - 1 for the other model. Make the reference the "
        "baseline (--baseline)."
    )
    common = {"prompt": _alpaca_prompt(line), "subset": line.get("dataset")}
    judge = str(line.get("annotator") or "preference")
    scores = {"1": 0.5, "2": None if preference is None else preference - 1}
    return [
        common
        | {
            "response": line[f"output_{number}"],
            "model": line[f"generator_{number}"],
            "scores": {judge: score},
        }
        for number, score in scores.items()
    ]


def _alpaca_prompt(line: Record) -> str:
    """Return the instruction, with its input below where there is one."""
    input_text = line.get("input")
    return f"{line['instruction']}\n\n{input_text}" if input_text else str(line["instruction"])


def _mt_bench(line: Record, conversion: Conversion) -> list[Record]:
    """Return one sample per turn; a later turn's prompt is everything that the user said so far.

    The assistant's earlier responses are not in the prompt, since a paired comparison needs the
    same prompts for all models.
    """
    question_id, model = str(line["question_id"]), str(line["model_id"])
    question = conversion.questions.get(question_id)
    if question is None:
        raise ValueError(f"question {question_id} is not in the file of questions")
    conversion.note(
        f"{conversion.path.name}: the prompt of turn 2 is both of the user's turns, without the "
        "response to turn 1, which differs between models."
    )
    return [
        {
            "prompt": [{"role": "user", "content": t} for t in question["turns"][:turn]],
            "response": response,
            "model": model,
            "subset": f"{question.get('category') or 'question'}, turn {turn}",
            "scores": conversion.mt_bench_scores.get((question_id, model, turn), {}),
        }
        for turn, response in enumerate(line["choices"][0]["turns"], 1)
    ]


def _lm_eval(line: Record, conversion: Conversion) -> list[Record]:
    """Return the sample of a document; each filter of it is a line with scores of its own."""
    model = conversion.model or conversion.path.resolve().parent.name
    if conversion.model is None:
        conversion.note(
            f"{conversion.path.name}: the model is named {model!r}, after the file's folder; "
            "plumbline convert-samples --model names it otherwise."
        )
    filter_name = str(line.get("filter") or "none")
    scores = {
        name if filter_name == "none" else f"{name} ({filter_name})": float(value)
        for name, value in line.items()
        if name not in _LM_EVAL_KEYS and isinstance(value, bool | int | float)
    }
    prompt, response = _lm_eval_texts(line)
    task = conversion.path.name.split(".")[0].removeprefix("samples_")
    return [
        {
            "prompt": prompt,
            "response": response,
            "model": model,
            "subset": task.rpartition("_")[0] or task,  # behind it comes the date
            "scores": scores,
        }
    ]


def _lm_eval_texts(line: Record) -> tuple[Any, str]:
    """Return the prompt and the response; of several continuations the most probable one."""
    arguments = line["arguments"]
    requests = list(arguments.values()) if isinstance(arguments, Mapping) else list(arguments)
    texts = [list(r.values()) if isinstance(r, Mapping) else list(r) for r in requests]
    prompt = texts[0][0]
    if isinstance(prompt, list):  # a chat template's messages, as JSON
        prompt = prompt[0]
    if isinstance(prompt, str) and prompt.startswith('[{"role"'):
        prompt = json.loads(prompt)
    responses = [r[0] if isinstance(r, list) else r for r in line["resps"]]
    if all(isinstance(response, str) for response in responses):
        return prompt, responses[0]
    logprobs = [float(r[0] if isinstance(r, list) else r) for r in responses]
    return prompt, str(texts[logprobs.index(max(logprobs))][1])


SAMPLE_FORMATS = Table(
    "format of samples",
    (
        SampleFormat(
            "plumbline", "one response per line; docs/comparison.md lists the keys",
            ("prompt", "response", "model"), _as_it_is,
        ),
        SampleFormat(
            "alpaca_eval_annotations", "AlpacaEval's annotations.json: two responses, a preference",
            ("instruction", "output_1", "output_2", "generator_1", "generator_2", "preference"),
            _alpaca_annotations,
        ),
        SampleFormat(
            "alpaca_eval", "AlpacaEval's model_outputs.json",
            ("instruction", "output", "generator"), _alpaca_outputs,
        ),
        SampleFormat(
            "mt_bench", "MT-Bench's model_answer/MODEL.jsonl, with its question.jsonl",
            ("question_id", "model_id", "choices"), _mt_bench,
        ),
        SampleFormat(
            "lm_eval", "lm-evaluation-harness's samples_TASK_DATE.jsonl (--log_samples)",
            ("doc_id", "arguments", "resps"), _lm_eval, merges=True,
        ),
    ),
)  # fmt: skip
