"""Reading a file as each stage does, and what is worth knowing of it before a run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from plumbline.data.parts import nearest
from plumbline.data.reader import DataFormatConfig, ExampleReader, ReadReport
from plumbline.data.records import Conversation, Row
from plumbline.data.sources import Source, source_at
from plumbline.data.uses import USES
from plumbline.dropped import Dropped, DroppedFile, LeftOut
from plumbline.errors import ConfigError, DataError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MEASURED_ROWS = 2000
"""Rows whose tokens are counted: the first ones."""


class Learnt(NamedTuple):
    """What a model reads in one go, and what of it is learnt."""

    title: str
    messages: Conversation
    """Turns; the learnt ones are those of the assistant's that are not in the prompt."""
    prompt: int
    """Messages at the start that are before and not learnt."""
    tools: str | None = None


@dataclass
class Read:
    """What a stage's reader made of a file."""

    report: ReadReport
    kept: int
    rows: Sequence[Sequence[Learnt]] = ()
    """For each of the first rows, what a model reads of it."""
    warnings: Sequence[str] = ()


@dataclass
class Check:
    """What became of a file's rows."""

    file: str
    use: str
    format: str | None = None
    rows: int = 0
    kept: int = 0
    dropped: LeftOut = field(default_factory=Dropped)
    columns_used: dict[str, str] = field(default_factory=dict)
    columns_unused: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    example: Sequence[Learnt] = ()
    seen: list[list[tuple[str, bool]]] = field(default_factory=list)
    """The example as the model sees it: texts, and whether each is learnt."""
    tokens: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return {
            "file": self.file,
            "use": self.use,
            "format": self.format,
            "rows": self.rows,
            "kept": self.kept,
            "dropped": self.dropped.reasons(),
            "dropped_rows": self._numbers_of_dropped(),
            "columns_used": self.columns_used,
            "columns_unused": self.columns_unused,
            "warnings": self.warnings,
            "example": [
                {"title": part.title, "messages": part.messages, "given": part.prompt}
                for part in self.example
            ],
            "tokens": self.tokens,
        }

    def _numbers_of_dropped(self) -> dict[str, list[int]]:
        """Return for each reason the first rows that were left out."""
        numbers: dict[str, list[int]] = {reason: [] for reason in self.dropped.reasons()}
        for row in self.dropped.entries():
            of_reason = numbers.get(row["reason"], [])
            if len(of_reason) < 8:
                of_reason.append(row["row"])
        return numbers


def check(name: str, use: str, config: DataFormatConfig, model: Path | None) -> Check:
    """Read a file for a use; that it cannot be read is an answer, too."""
    if use not in READERS:
        raise ConfigError(
            f"--as is {use!r}; data are read as {', '.join(READERS)}.{nearest(use, READERS)}"
        )
    result = Check(name, use)
    try:
        read = READERS[use](source_at(name), config)
    except DataError as error:
        result.warnings.append(str(error))
        return result
    report = read.report
    result.format, result.rows, result.kept = report.format or None, report.rows, read.kept
    result.dropped = report.dropped
    result.columns_used = report.columns_used
    result.columns_unused = dict(report.columns_unused)
    result.warnings += [*read.warnings, *_warnings(report)]
    if read.rows:
        result.example = read.rows[0]
    if model is not None:
        _see(result, read, model)
    return result


def as_settings(
    columns: Sequence[str] | None, format_name: str | None, ignored: str | None
) -> dict[str, Any]:
    """Return the settings of reading that options give."""
    named = {}
    for part in ",".join(columns or ()).split(","):
        if part.strip():
            name, mark, column = part.partition("=")
            if not mark or not column.strip():
                raise ConfigError(f"--columns takes PART=COLUMN, such as prompt=question: {part!r}")
            named[name.strip()] = column.strip()
    passed_over = tuple(name.strip() for name in (ignored or "").split(",") if name.strip())
    return {"columns": named, "format": format_name, "ignored_columns": passed_over}


def _warnings(report: ReadReport) -> Iterator[str]:
    yield from report.warnings()
    if not report.rows:
        yield "there are no rows in it"
    elif not report.kept:
        yield "no row can be used"


# ----------------------------------------------------------------------------- reading by use


def _settings(schema: Any, config: DataFormatConfig) -> Any:
    """Return a stage's settings with the ways of reading that were asked for."""
    return schema(**{name: getattr(config, name) for name in DataFormatConfig.model_fields})


def _read(report: ReadReport, rows: Iterator[Sequence[Learnt]]) -> Read:
    """Count rows, and keep the first of them."""
    first = list(islice(rows, MEASURED_ROWS))
    return Read(report, len(first) + sum(1 for _ in rows), first)


def _demonstrations(source: Source, config: DataFormatConfig) -> Read:
    from sft.build.demonstrations import clean
    from sft.config import DemonstrationsConfig
    from sft.sources import from_file

    settings = _settings(DemonstrationsConfig, config)
    demonstrations = from_file(source, settings)
    cleaned = clean(demonstrations, settings, MEASURED_ROWS)
    report = demonstrations.report
    report.dropped = cleaned.dropped
    learnt = [[Learnt("learnt", row["messages"], 0, row.get("tools"))] for row in cleaned.first]
    return Read(report, cleaned.kept, learnt)


def _preferences(source: Source, config: DataFormatConfig) -> Read:
    from preference.pairs_config import PreferenceFileConfig
    from preference.sources import PreferenceReader

    settings = _settings(PreferenceFileConfig, config)
    reader = PreferenceReader(source, settings, DroppedFile())
    return _read(reader.report, (_sides(row, "chosen", "rejected") for row in reader))


def _unpaired(source: Source, config: DataFormatConfig) -> Read:
    from preference.label_sources import LabelReader
    from preference.pairs_config import LabelFileConfig

    reader = LabelReader(source, _settings(LabelFileConfig, config), DroppedFile())

    def learnt(row: Row) -> list[Learnt]:
        messages = [*row["prompt"], *row["completion"]]
        return [Learnt("good" if row["label"] else "bad", messages, len(row["prompt"]))]

    return _read(reader.report, map(learnt, reader))


def _steps(source: Source, config: DataFormatConfig) -> Read:
    from reward.process.data import step_rows

    reader = ExampleReader(source, USES["steps"], config, dropped=DroppedFile())

    def learnt(row: Row) -> list[Learnt]:
        steps, right = row["completions"], sum((label or 0.0) > 0.5 for label in row["labels"])
        messages = [*row["prompt"], _assistant("".join(steps))]
        return [Learnt(f"{right} of {len(steps)} steps are right", messages, len(row["prompt"]))]

    return _read(reader.report, map(learnt, step_rows(reader)))


def _prompts(source: Source, config: DataFormatConfig) -> Read:
    from evaluation.tasks.sources import TaskFileConfig, read_items

    settings = _settings(TaskFileConfig, config).model_copy(update={"leave_out_bad_rows": True})
    items, report = read_items(source, settings)
    warnings = []
    if len(report.dropped):
        warnings.append(
            "an evaluation refuses this file unless file.leave_out_bad_rows is set: a benchmark "
            "with rows left out is another benchmark"
        )
    without = sum(not item.references for item in items)
    if without:
        warnings.append(f"{without} of {len(items)} prompts have no reference")
    rows = [
        [Learnt("asked, and its references", item.prompt, len(item.prompt))]
        + [Learnt("reference", [_assistant(text)], 0) for text in item.references]
        for item in items
    ]
    return Read(report, len(items), rows, warnings)


def _pairs(source: Source, config: DataFormatConfig) -> Read:
    from annotation.campaign.config import CampaignConfig
    from annotation.campaign.pairs import leave_out, read_pairs

    pairs, report = read_pairs(source, config)
    kept, unfit = leave_out(pairs, CampaignConfig().near_identical, report.origin)
    for row in unfit.rows:
        report.dropped.add(row["origin"], row["row"], row["reason"], row["record"])
    rows = [
        [Learnt(side, [*pair.prompt, _assistant(text)], len(pair.prompt))
         for side, text in (("a", pair.a), ("b", pair.b))]
        for pair in kept
    ]  # fmt: skip
    return Read(report, len(kept), rows)


def _labels(source: Source, config: DataFormatConfig) -> Read:
    from annotation.sources.label_tables import Columns, read_votes

    named = config.columns
    others = sorted(set(named) - {"item", "person", "vote"})
    if others or config.format or config.ignored_columns:
        what = f"columns.{others[0]}" if others else "format" if config.format else "ignore"
        raise ConfigError(
            f"{what} has no effect on a table of labels: give --columns with item, person and vote "
            "alone."
        )
    item = named.get("item")
    table = read_votes(
        Path(source.place),
        Columns(item=(item,) if item else (), person=named.get("person"), label=named.get("vote")),
    )
    columns = table.columns
    used = dict.fromkeys(columns.people, "vote") | dict.fromkeys(columns.item, "item")
    used |= dict.fromkeys(filter(None, [columns.person]), "person")
    used |= dict.fromkeys(filter(None, [columns.label]), "vote")
    count = table.votes.votes
    report = ReadReport(source.name, f"{table.form} table of votes", rows=count, kept=count)
    report.columns_used = used
    missing = [f"{n} cells without a vote: {what}" for what, n in table.missing.items()]
    return Read(report, count, (), missing)


def _samples(source: Source, config: DataFormatConfig) -> Read:
    from evaluation.comparison.comparability import kl_flags
    from evaluation.comparison.external_samples import read_samples_file, samples_in

    if config.columns or config.format:
        raise ConfigError("Samples have columns of their own (docs/comparison.md), not --columns.")
    path = Path(source.place)
    samples, report = samples_in(path)
    warnings = []
    if len(report.dropped):
        warnings.append("plumbline compare takes a file whole, and refuses one with a wrong row")
    elif samples:
        runs = read_samples_file(path).training_runs()
        warnings += [flag.text for flag in kl_flags(runs)]
    learnt = [
        [Learnt("sampled", [*row["prompt"], _assistant(row["response"])], len(row["prompt"]))]
        for row in (sample.row for sample in samples[:1])
    ]
    return Read(report, len(samples), learnt, warnings)


#: How the stage of each use reads a source.
READERS: Mapping[str, Callable[[Source, DataFormatConfig], Read]] = {
    "demonstrations": _demonstrations,
    "preferences": _preferences,
    "unpaired": _unpaired,
    "steps": _steps,
    "prompts": _prompts,
    "pairs": _pairs,
    "labels": _labels,
    "samples": _samples,
}


def _assistant(text: str) -> Any:
    return {"role": "assistant", "content": text}


def _sides(row: Row, *names: str) -> list[Learnt]:
    return [Learnt(name, [*row["prompt"], *row[name]], len(row["prompt"])) for name in names]


# ---------------------------------------------------------------------------- as a model sees it


def _see(result: Check, read: Read, folder: Path) -> None:
    """Add the example as a model sees it, and how many tokens rows have."""
    from plumbline.lm.chat import ConversationRefusedError
    from plumbline.lm.context import context_length
    from plumbline.lm.load import load_config
    from plumbline.lm.tokenizer import load_tokenizer

    if not folder.is_dir():
        raise ModelError(f"There is no model's folder {folder} (looked for from {Path.cwd()}).")
    tokenizer = load_tokenizer(folder)
    window = context_length(load_config(folder)) or 0
    lengths: list[int] = []
    refused: Counter[str] = Counter()
    for parts in islice(read.rows, MEASURED_ROWS):
        try:
            sequences = [turns for part in parts for turns in encoded(tokenizer, part)]
        except ConversationRefusedError as error:
            refused[str(error)] += 1
            continue
        if not lengths:
            result.seen = [segments(tokenizer, ids, learnt) for ids, learnt in sequences]
        lengths.append(max(len(ids) for ids, _ in sequences))
    for reason, count in refused.most_common():
        result.warnings.append(f"{count} rows cannot be written for this model: {reason}")
    if lengths:
        lengths.sort()
        result.tokens = {
            "measured_rows": len(lengths),
            "shortest": lengths[0],
            "median": lengths[len(lengths) // 2],
            "longest": lengths[-1],
            "window": window,
            "longer_than_the_window": sum(length > window for length in lengths),
        }
        if result.tokens["longer_than_the_window"]:
            result.warnings.append(
                f"{result.tokens['longer_than_the_window']} of {len(lengths)} rows are longer than "
                f"the model's window of {window} tokens"
            )


def encoded(tokenizer: PreTrainedTokenizerBase, part: Learnt) -> list[tuple[list[int], list[int]]]:
    """Return the sequences of a part: ids, and 1 where a token is learnt."""
    from plumbline.lm.chat import encode_demonstration, encode_prompt, encode_response

    if part.prompt == 0 and part.messages[-1]["role"] == "assistant" and len(part.messages) > 1:
        tools = json.loads(part.tools) if part.tools else ()
        sequences = encode_demonstration(tokenizer, part.messages, tools=tools)
        return [(sequence.ids, sequence.assistant_mask) for sequence in sequences]
    prompt, after = part.messages[: part.prompt], part.messages[part.prompt :]
    if not after:
        ids = encode_prompt(tokenizer, prompt)
        return [(ids, [0] * len(ids))]
    if not prompt:
        ids = list(tokenizer(after[-1]["content"], add_special_tokens=False)["input_ids"])
        return [(ids, [0] * len(ids))]
    prompt_ids, response_ids = encode_response(tokenizer, prompt, after[-1]["content"])
    mask = [0] * len(prompt_ids) + [1] * len(response_ids)
    return [([*prompt_ids, *response_ids], mask)]


def segments(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], learnt: Sequence[int]
) -> list[tuple[str, bool]]:
    """Return the text of ids in pieces, each learnt or not."""
    pieces: list[tuple[str, bool]] = []
    start = 0
    for place in range(1, len(ids) + 1):
        if place == len(ids) or learnt[place] != learnt[start]:
            text = tokenizer.decode(ids[start:place], skip_special_tokens=False)
            pieces.append((str(text), bool(learnt[start])))
            start = place
    return pieces
