"""Questions and answers from documents, by a model on this machine or behind an endpoint.

    plumbline data questions MANUAL.md REPORT.pdf --model MODEL
    plumbline data questions MANUAL.md --model NAME --endpoint https://HOST/v1

The rows are demonstrations, each with its place in its document. Doubtful questions are
in doubtful.jsonl beside them, for people to correct.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from plumbline.config import Config, Seed
from plumbline.errors import DataError
from plumbline.lm.writer import WriterEndpointConfig, check_one_writer
from plumbline.runs.calls import SourceFile
from plumbline.runs.run import Run
from recipes._models import find_model
from sft.documents.config import QuestionsConfig
from sft.documents.questions import ask_documents


class DocumentQuestionsConfig(Config):
    """Everything that may vary in this recipe."""

    documents: tuple[Path, ...] = Field(min_length=1)
    """Files in Markdown, text, HTML, Word or PDF."""
    model: str | None = None
    """What writes the questions: a run, a model's folder, a GGUF file, or a name of the hub. Null:
    the endpoint."""
    endpoint: WriterEndpointConfig | None = None
    """What writes the questions, behind an OpenAI-compatible endpoint. It gets the sentences and
    slices of the documents. Its answers are kept under the home's store, by content."""
    questions: QuestionsConfig = QuestionsConfig()
    """How questions are made and checked."""
    data_seed: Seed = 0
    """Seed of the choice of sentences and of the questions."""

    @model_validator(mode="after")
    def _one_generator(self) -> DocumentQuestionsConfig:
        check_one_writer(self.model, self.endpoint)
        questions, usual = self.questions, QuestionsConfig()
        if self.endpoint is not None and questions.checks.gain is not None:
            raise ValueError(
                f"questions.checks.gain is {questions.checks.gain:g}, and an endpoint gives no "
                "probabilities to see it by. Leave it out, or name a model on this machine"
            )
        if self.endpoint is not None and questions.sampling != usual.sampling:
            raise ValueError(
                "questions.sampling is set, and an endpoint draws by settings of its own. Set "
                "endpoint.temperature and endpoint.max_tokens instead"
            )
        return self


CONFIG = DocumentQuestionsConfig
ESSENTIAL = (
    "documents", "model", "endpoint", "questions.slices.max_characters", "questions.sentences",
    "questions.questions", "questions.checks.round_trip", "questions.checks.shared_words",
    "data_seed",
)  # fmt: skip


def main(run: Run, config: DocumentQuestionsConfig) -> dict[str, Any]:
    """Run the recipe; return the headline metrics."""
    missing = [str(path) for path in config.documents if not path.is_file()]
    if missing:
        raise DataError(f"There is no file {missing[0]}. Check the setting documents.")
    artifact = run.make(
        "questions",
        ask_documents,
        config=config.questions,
        documents=[SourceFile(path.resolve()) for path in config.documents],
        **(
            {"model": find_model(run, config.model, "model")}
            if config.model is not None
            else {"endpoint": config.endpoint}
        ),
        data_seed=config.data_seed,
    )
    return dict(artifact.metrics)
