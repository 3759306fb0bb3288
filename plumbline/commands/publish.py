"""``plumbline merge`` and ``plumbline push``: a trained model for use elsewhere."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Annotated

import typer

from plumbline.commands.options import HOME, Home
from plumbline.errors import ArtifactError, ConfigError, ModelError
from plumbline.temporary import TemporaryFolder

Model = Annotated[str, typer.Argument(help="A folder, a hub name, run:stage, or an artefact's id.")]
Dtype = Annotated[
    str | None,
    typer.Option(help="Number format of the weights: float32, bfloat16, float16. Default: kept."),
]
_DTYPES = ("float32", "bfloat16", "float16")
#: Files of a model's folder that are of the machine it was made on, or of no use to others.
_LEFT_OUT = ("manifest.json", "reference.json", "metrics.jsonl", "dropped.jsonl", "README.md")


def merge(
    model: Model,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write.")],
    dtype: Dtype = None,
    license_: Annotated[
        str | None, typer.Option("--license", help="Licence of the base, where it is not found.")
    ] = None,
    home: Home = HOME,
) -> None:
    """Merge a model's adapters into its base: one folder that `from_pretrained` reads."""
    from plumbline.quiet import silence_libraries
    from recipes._models import find_model_folder

    silence_libraries()
    folder = find_model_folder(home, model)
    _write(folder, _empty(out), merged=True, dtype=dtype, license_=license_, repository=out.name)
    typer.echo(f"  {out}")


def push(
    model: Model,
    repository: Annotated[str, typer.Argument(metavar="ORG/NAME", help="Its name on the hub.")],
    merged: Annotated[
        bool, typer.Option("--merge", help="Push a whole model, its adapters merged.")
    ] = False,
    private: Annotated[bool, typer.Option("--private", help="Only you can see it.")] = False,
    license_: Annotated[
        str | None, typer.Option("--license", help="Licence of the base, where it is not found.")
    ] = None,
    dtype: Dtype = None,
    revision: Annotated[
        str | None, typer.Option(help="A branch of the repository; made where it is missing.")
    ] = None,
    dry_run: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write what would be pushed here, and push nothing."),
    ] = None,
    home: Home = HOME,
) -> None:
    """Publish a model on the hub, with a card of its data, settings and figures.

    You must be logged in: `hf auth login`, or a token in HF_TOKEN.
    """
    from plumbline.quiet import silence_libraries
    from recipes._models import find_model_folder

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ConfigError(f"{repository!r} is not a name on the hub. Write ORG/NAME.")
    silence_libraries()
    folder = find_model_folder(home, model)
    with TemporaryFolder() as place:
        target = place if dry_run is None else _empty(dry_run)
        _write(folder, target, merged=merged, dtype=dtype, license_=license_, repository=repository)
        if dry_run is not None:
            typer.echo(f"  {dry_run}")
            return
        typer.echo(f"  {_upload(target, repository, private=private, revision=revision)}")


def _write(
    folder: Path,
    target: Path,
    *,
    merged: bool,
    dtype: str | None,
    license_: str | None,
    repository: str,
) -> None:
    """Write what is published of a model: weights, tokenizer, calibration, card."""
    from plumbline.lm.cards import card_of, origin_of
    from plumbline.lm.export import is_reward_model, merge_model
    from plumbline.lm.model_folder import source_of
    from reward.calibration import CALIBRATION

    if dtype is not None and dtype not in _DTYPES:
        raise ConfigError(f"--dtype {dtype!r} is none of {', '.join(_DTYPES)}.")
    if dtype is not None and not merged:
        raise ConfigError("--dtype has no effect without --merge: the files are copied.")
    source, origin = source_of(folder), origin_of(folder)
    is_reward = is_reward_model(folder)
    is_adapter = source.adapter is not None and not merged
    if merged:
        merge_model(folder, target, dtype)
        if (folder / CALIBRATION).exists():
            shutil.copyfile(folder / CALIBRATION, target / CALIBRATION)
    elif source.adapter is None and source.base.name_or_path != str(folder.resolve()):
        raise ModelError(
            f"{folder} only refers to {source.base.name_or_path}: there is nothing of its own to "
            "publish. Give a model that was trained."
        )
    elif is_adapter and not (origin.base_is_on_hub and len(source.adapters) == 1):
        raise ModelError(
            f"The adapter in {folder} stands on {source.reference.name_or_path}, a folder of this "
            "machine, so nobody else could load it. Push a whole model: --merge."
        )
    else:
        target.mkdir(parents=True, exist_ok=True)
        for file in sorted(folder.iterdir()):
            if file.is_file() and file.name not in _LEFT_OUT:
                shutil.copyfile(file, target / file.name)
    license_ = license_ or origin.license
    if license_ is None:
        typer.echo(
            f"  The licence of the base {origin.base} is not known: no card of it states one, or "
            "the hub cannot be reached. State it with --license NAME, such as apache-2.0.",
            err=True,
        )
    card = card_of(
        repository.partition("/")[2] or repository,
        origin,
        license_=license_,
        is_reward=is_reward,
        is_adapter=is_adapter,
        repository=repository,
    )
    (target / "README.md").write_text(card, encoding="utf-8")


def _empty(folder: Path) -> Path:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArtifactError(f"{folder} exists and is not empty. Give another folder, or empty it.")
    return folder


def _upload(folder: Path, repository: str, *, private: bool, revision: str | None) -> str:
    """Upload a folder to the hub; return the address of the commit."""
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    api = HfApi()
    try:
        api.create_repo(repository, private=private or None, exist_ok=True)
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            revision=revision,
            commit_message="Upload a model trained with Plumbline",
        )
    except OfflineModeIsEnabled:
        raise ModelError(
            "HF_HUB_OFFLINE=1 is set, so the hub is not reached. Unset it, or write the files with "
            "--dry-run FOLDER."
        ) from None
    except LocalTokenNotFoundError:
        raise ModelError(
            "There is no login for the hub. Give the command hf auth login, or set HF_TOKEN."
        ) from None
    except HfHubHTTPError as error:
        code = error.response.status_code if error.response is not None else None
        advice = {
            401: "Log in with a token that may write: hf auth login.",
            403: f"The token may not write to {repository}. Take another, or another name.",
        }.get(code or 0, "Give the same command again.")
        raise ModelError(f"The hub refused {repository}: {_first(error)} {advice}") from None
    except httpx.TransportError as error:
        raise ModelError(
            f"The hub cannot be reached ({_first(error)}). Give the same command again, or write "
            "the files with --dry-run FOLDER."
        ) from None
    return str(commit.commit_url)


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
