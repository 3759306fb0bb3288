"""Trackers of experiments (tensorboard, wandb and others), the same for every stage.

What a stage writes to its ``metrics.jsonl`` goes to the trackers, too, by the callbacks that
transformers has for them. A stage that resumes sends the steps since its last checkpoint again.
Each stage is a run of its own.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from plumbline.config import Config, settings
from plumbline.errors import ConfigError
from plumbline.runs.stage import Stage

#: What installs a tracker whose package has another name: extras of ours, and other packages.
PACKAGES = {
    "tensorboard": "'plumbline-rlhf[tensorboard]'",
    "wandb": "'plumbline-rlhf[wandb]'",
    "azure_ml": "azureml-sdk",
    "comet_ml": "comet-ml",
    "dagshub": "dagshub mlflow",
    "flyte": "flytekit",
}


def check_trackers(config: Config) -> None:
    """Raise `ConfigError` where a setting ``report_to`` names what is unknown or cannot start."""
    for setting in settings(config):
        if setting.key.rpartition(".")[2] == "report_to" and setting.value:
            _callbacks(setting.value, setting.key)
            if "wandb" in setting.value:
                _check_wandb_login(setting.key)


@contextmanager
def tracking(stage: Stage, names: Sequence[str], settings: Mapping[str, Any]) -> Iterator[None]:
    """Send every line of a stage's metrics to trackers while the block runs.

    ``settings`` are those that the trackers show beside the figures. Of several processes, only the
    one that writes sends anything.
    """
    if not names or not stage.writes:
        yield
        return
    from transformers import TrainerControl, TrainerState

    state, control = TrainerState(), TrainerControl()
    with _environment(stage), _own_wandb_run(names):
        arguments = _arguments(stage, settings)
        callbacks = [callback() for callback in _callbacks(names, "report_to")]
        for name, callback in zip(names, callbacks, strict=True):
            try:
                callback.on_train_begin(arguments, state, control, model=None)
            except Exception as error:  # of a tracker, which may raise anything
                raise ConfigError(
                    f"The tracker {name!r} did not start: {error} Fix that, or leave {name} out "
                    "of report_to. The same command resumes."
                ) from error

        def log(step: int, metrics: Mapping[str, Any]) -> None:
            state.global_step = step
            numbers = {name: value for name, value in metrics.items() if _is_number(value)}
            for callback in callbacks:
                callback.on_log(arguments, state, control, logs=dict(numbers), model=None)

        try:
            with stage.listening(log):
                yield
        finally:
            for callback in callbacks:
                callback.on_train_end(arguments, state, control, model=None)


def _callbacks(names: Sequence[str], setting: str) -> list[type[Any]]:
    """Return the callbacks of trackers by name. Raises `ConfigError`."""
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK as KNOWN

    trackers = []
    for name in names:
        if name not in KNOWN:
            close = difflib.get_close_matches(name, KNOWN, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigError(
                f"{setting} names {name!r}, which is not a known tracker: "
                f"{', '.join(sorted(KNOWN))}.{hint}"
            )
        problem = _problem_with(KNOWN[name])
        if problem is not None and "install" in problem:
            raise ConfigError(
                f"{setting} names {name!r}, whose package is not installed. Give the command "
                f"pip install {PACKAGES.get(name, name)}, or leave {name} out."
            )
        if problem is not None:
            raise ConfigError(f"{setting} names {name!r}, which cannot start: {problem}")
        trackers.append(KNOWN[name])
    return trackers


def _problem_with(callback: type[Any]) -> str | None:
    """Return why a tracker's callback cannot be made, in its own words; None where it can."""
    hook = sys.unraisablehook
    sys.unraisablehook = lambda _: None  # some of them fail once more as they are deleted
    try:
        return _refusal(callback)
    finally:
        sys.unraisablehook = hook


def _refusal(callback: type[Any]) -> str | None:
    try:
        callback()
    except (RuntimeError, ImportError, ValueError) as error:
        return str(error)
    return None


def _check_wandb_login(setting: str) -> None:
    import wandb

    online = wandb.setup().settings.mode in ("online", "shared")
    if online and not wandb.login(prompt=False, verify=False):
        raise ConfigError(
            f"{setting} names 'wandb', and no login to it is known here. Give the command wandb "
            "login, or set WANDB_MODE=offline: it then writes files beside the run, which wandb "
            "sync sends later."
        )


@contextmanager
def _own_wandb_run(names: Sequence[str]) -> Iterator[None]:
    """Let wandb read the variables of the stage again, and end its run after the block.

    It reads them once in a process, and its callback leaves the run open for the next stage.
    A run that was open before, as in a notebook, is left open for its owner.
    """
    if "wandb" not in names:
        yield
        return
    import wandb

    if wandb.run is not None:
        yield
        return
    wandb.teardown()
    failed = 1
    try:
        yield
        failed = 0
    finally:
        wandb.finish(exit_code=failed)
        wandb.teardown()


def _arguments(stage: Stage, settings: Mapping[str, Any]) -> Any:
    """Return training arguments whose values, for a tracker, are the settings and nothing else.

    Its fields are filled by hand: the constructor resets accelerate, which is in use by then.
    """
    from transformers import TrainingArguments

    class Arguments(TrainingArguments):  # type: ignore[misc]
        def to_dict(self) -> dict[str, Any]:
            return dict(settings)

        def to_sanitized_dict(self) -> dict[str, Any]:
            return {k: v if isinstance(v, int | float | str) else str(v) for k, v in
                    settings.items()}  # fmt: skip

        def to_json_string(self) -> str:
            return json.dumps(dict(settings), indent=2, default=str)

    arguments = Arguments.__new__(Arguments)
    for field in dataclasses.fields(TrainingArguments):
        if field.default_factory is not dataclasses.MISSING:
            setattr(arguments, field.name, field.default_factory())
        elif field.default is not dataclasses.MISSING:
            setattr(arguments, field.name, field.default)
    arguments.output_dir, arguments.run_name = str(stage.tracker_folder), stage.title
    arguments.report_to, arguments.distributed_state = [], None
    return arguments


@contextmanager
def _environment(stage: Stage) -> Iterator[None]:
    """Say where trackers write, by the variables that they read; those of the user decide."""
    folder = str(stage.tracker_folder)
    wanted = {
        "TENSORBOARD_LOGGING_DIR": folder,
        "WANDB_DIR": folder,
        "WANDB_PROJECT": "plumbline",
        "WANDB_RUN_ID": stage.id,
        "WANDB_RESUME": "allow",
    }
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    stage.tracker_folder.mkdir(parents=True, exist_ok=True)
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
