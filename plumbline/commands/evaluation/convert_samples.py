"""``plumbline convert-samples``: output files of other tools as samples for ``compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def convert_samples(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Output files of AlpacaEval (model_outputs.json, annotations.json), MT-Bench "
            "(model_answer/MODEL.jsonl) or lm-evaluation-harness (samples_TASK_DATE.jsonl); files "
            "of samples, too."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The file of samples to write, as JSON lines.")],
    model: Annotated[
        str | None,
        typer.Option(help="Name of the model, where the files do not have it (lm-eval)."),
    ] = None,
    questions: Annotated[
        Path | None, typer.Option(help="MT-Bench's question.jsonl, if it lies elsewhere.")
    ] = None,
    judgments: Annotated[
        Path | None,
        typer.Option(help="MT-Bench's scores of single responses, model_judgment/…_single.jsonl."),
    ] = None,
) -> None:
    """Convert output files of other evaluation tools into samples that `compare` reads."""
    from rich.markup import escape

    from evaluation.comparison.external_samples import read_samples_file, write_samples_file
    from evaluation.comparison.sample_formats import Conversion
    from plumbline.errors import DataError
    from plumbline.terminal import Terminal

    if out.exists():
        raise DataError(f"{out} exists already. Give another file with --out, or remove it.")
    console = Terminal()
    samples = []
    for file in files:
        converted = read_samples_file(file, Conversion(file, model, questions, judgments))
        for note in converted.notes:
            console.print(f"[yellow]![/yellow] {escape(note)}")
        samples += converted.samples
    count = write_samples_file(out, samples)
    models = ", ".join(sorted({sample.model for sample in samples}))
    console.print(f"{escape(str(out))}: {count} samples of {escape(models)}.")
    console.print(f"Compare them: plumbline compare --samples {escape(str(out))}")
