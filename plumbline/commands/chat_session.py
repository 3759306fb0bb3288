"""The dialogues of ``plumbline chat``, and how they are shown while they grow."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.columns import Columns
from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from plumbline.data.records import Conversation, Message
from plumbline.errors import ModelError, PlumblineError
from plumbline.lm.context import context_length
from plumbline.lm.generation import SamplingConfig, stream
from plumbline.lm.policy import Policy
from plumbline.quiet import silence_libraries
from plumbline.seeds import derive
from plumbline.terminal import visible

if TYPE_CHECKING:
    from plumbline.hooks import Scorer

HELP = """\
/undo          take back the last question and its response
/reset         start again
/system TEXT   set the system message, and start again
/exit          leave (also Ctrl-D); Ctrl-C stops a response"""


@dataclass
class Speaker:
    """One model and its side of the dialogue."""

    name: str
    policy: Policy
    dialogue: Conversation = field(default_factory=list)


@dataclass
class ChatSession:
    """One dialogue for each model, with the same questions."""

    speakers: list[Speaker]
    sampling: SamplingConfig
    seed: int
    scorer: Scorer | None = None
    system: str | None = None
    cut_by_context: bool = False
    """Whether a response may be shorter than ``sampling`` says, where the context ends."""

    def __post_init__(self) -> None:
        self.reset()

    @classmethod
    def load(
        cls,
        names: Sequence[str],
        home: Path,
        *,
        sampling: SamplingConfig,
        seed: int,
        reward: str | None,
        system: str | None,
        cut_by_context: bool = False,
    ) -> ChatSession:
        """Load the models by their names."""
        from recipes._models import find_model_folder
        from reward.load_scorer import reward_scorer

        silence_libraries()
        speakers = [
            Speaker(
                Path(n).name if Path(n).is_dir() else n, Policy.load(find_model_folder(home, n))
            )
            for n in names
        ]
        scorer = None if reward is None else reward_scorer(find_model_folder(home, reward))
        return cls(speakers, sampling, seed, scorer, system, cut_by_context)

    def reset(self) -> None:
        """Start again."""
        opening: Conversation = []
        if self.system is not None:
            opening = [{"role": "system", "content": self.system}]
        for speaker in self.speakers:
            speaker.dialogue = list(opening)

    def undo(self) -> bool:
        """Take back the last question and its response; False where there is none."""
        if not any(message["role"] == "user" for message in self.speakers[0].dialogue):
            return False
        for speaker in self.speakers:
            del speaker.dialogue[-2:]
        return True

    def ask(self, question: str) -> Iterator[list[str]]:
        """Add a question; yield the responses as they grow, one token of each at a time.

        What was said until then stays in the dialogues where the caller stops.
        """
        turn = sum(message["role"] == "user" for message in self.speakers[0].dialogue)
        message: Message = {"role": "user", "content": question}
        growing = []
        for speaker in self.speakers:
            dialogue: Conversation = [*speaker.dialogue, message]
            least = 1 if self.cut_by_context else self.sampling.max_new_tokens
            problem = speaker.policy.problem_with(dialogue, least)
            if problem is not None:
                less = "" if least == 1 else ", or give --max-new-tokens a smaller number"
                raise ModelError(
                    f"{speaker.name} cannot respond: the dialogue {problem}. Take something "
                    f"back by /undo or /reset{less}."
                )
        for speaker in self.speakers:
            speaker.dialogue.append(message)
            growing.append(self._responses(speaker, derive(self.seed, "chat", turn)))
        texts = [""] * len(growing)
        live = dict(enumerate(growing))
        try:
            while live:
                for number, tokens in list(live.items()):
                    text = next(tokens, None)
                    if text is None:
                        del live[number]
                    else:
                        texts[number] = text
                yield list(texts)
        finally:
            for speaker, text in zip(self.speakers, texts, strict=True):
                speaker.dialogue.append({"role": "assistant", "content": text})

    def scores(self) -> list[float] | None:
        """Return the reward of each model's last response; None without a reward model."""
        if self.scorer is None:
            return None
        dialogues = [speaker.dialogue for speaker in self.speakers]
        return self.scorer.score(
            [dialogue[:-1] for dialogue in dialogues],
            [str(dialogue[-1]["content"]) for dialogue in dialogues],
        )

    def _responses(self, speaker: Speaker, seed: int) -> Iterator[str]:
        policy = speaker.policy
        ids: list[int] = []
        prompt = policy.encode(speaker.dialogue)
        context = context_length(policy.model.config)
        most = self.sampling.max_new_tokens
        if context is not None:
            most = min(most, context - len(prompt))
        tokens = stream(
            policy.model,
            prompt,
            seed,
            self.sampling.model_copy(update={"max_new_tokens": most}),
            end_ids=policy.end_ids,
            pad_id=policy.pad_id,
        )
        for token in tokens:
            ids.append(token)
            yield policy.decode(ids)


def converse(session: ChatSession, save: Path | None) -> None:
    """Read questions until the end of the input, and answer each."""
    console = Console()
    if sys.stdin.isatty():
        console.print("[dim]/help lists what can be typed besides questions.[/dim]")
    try:
        while (line := _read()) is not None:
            if line.startswith("/"):
                if not _command(session, line, console):
                    break
            elif line.strip():
                _answer(session, line, console)
    finally:
        if save is not None:
            _save(session, save)


def _read() -> str | None:
    """Return a question, which may stand in several lines; None at the end of the input."""
    lines: list[str] = []
    while True:
        try:
            prompt = ("… " if lines else "› ") if sys.stdin.isatty() else ""
            line = input(prompt)
        except (EOFError, KeyboardInterrupt):
            return "\n".join(lines) or None
        if not line.endswith("\\"):
            return "\n".join([*lines, line])
        lines.append(line[:-1])


def _command(session: ChatSession, line: str, console: Console) -> bool:
    """Obey a line that starts with a slash; False where it ends the session."""
    name, _, text = line[1:].partition(" ")
    if name in ("exit", "quit"):
        return False
    if name == "undo":
        console.print("[dim]Taken back.[/dim]" if session.undo() else "Nothing was asked yet.")
    elif name == "reset":
        session.reset()
        console.print("[dim]Started again.[/dim]")
    elif name == "system":
        session.system = text.strip() or None
        session.reset()
        console.print("[dim]Started again with another system message.[/dim]")
    else:
        console.print(HELP if name == "help" else f"There is no /{visible(name)}.\n{HELP}",
                      markup=False)  # fmt: skip
    return True


def _answer(session: ChatSession, question: str, console: Console) -> None:
    texts = [""] * len(session.speakers)
    try:
        if console.is_terminal:
            with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
                for texts in session.ask(question):
                    live.update(_shown(session, texts, console.width), refresh=True)
        else:
            *_, texts = session.ask(question)
            for speaker, text in zip(session.speakers, texts, strict=True):
                named = f"{speaker.name}: " if len(session.speakers) > 1 else ""
                console.print(named + visible(text), markup=False, highlight=False)
    except KeyboardInterrupt:
        console.print("[dim]Stopped here.[/dim]")
        return
    except PlumblineError as error:
        console.print(f"[red]{visible(str(error))}[/red]")
        return
    scores = session.scores()
    if scores is not None:
        console.print("[dim]reward " + ", ".join(f"{score:.3f}" for score in scores) + "[/dim]")


def _shown(session: ChatSession, texts: Sequence[str], width: int) -> Text | Columns:
    """Return the responses as they are shown: one alone as text, two in columns."""
    if len(texts) == 1:
        return Text(visible(texts[0]))
    half = (width - 1) // len(texts)
    return Columns(
        [
            Panel(Text(visible(text)), title=Text(speaker.name), width=half)
            for speaker, text in zip(session.speakers, texts, strict=True)
        ],
        padding=(0, 0),
    )


def _save(session: ChatSession, file: Path) -> None:
    with file.open("a", encoding="utf-8") as stream:
        for speaker in session.speakers:
            row = {"model": speaker.name, "messages": speaker.dialogue}
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
