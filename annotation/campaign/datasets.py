"""The datasets of queues on the server, with their users and workspaces; made where missing.

What an earlier, killed attempt has made is found and not made again.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from annotation.argilla.api import Argilla, Dataset, User
from annotation.argilla.form import Form
from annotation.campaign.config import CampaignConfig
from annotation.campaign.folder import Campaign, Place
from annotation.campaign.items import SHARED, is_adjudication, is_training, person_of
from annotation.questions.form import form_of
from plumbline.errors import ConfigError

CAMPAIGN_KEY = "plumbline_campaign"
"""Where a dataset's metadata names the campaign that made it."""
_EVERYBODY = 1_000_000
"""Answers per record of a training round that all share: nobody's answer ends it for others."""


def places_of(campaign: Campaign, site: Argilla, queues: Sequence[str]) -> dict[str, Place]:
    """Return the dataset of each queue; make those that are missing."""
    missing = [queue for queue in queues if queue not in campaign.places]
    users = users_called(site, [name for queue in missing if (name := person_of(queue))])
    for queue in missing:
        campaign.places[queue] = _make_place(campaign, site, queue, users)
        campaign.save()
    return dict(campaign.places)


def add_members(site: Argilla, place: Place, users: Sequence[User]) -> tuple[str, ...]:
    """Add people to the workspace of a shared queue; return a note where nobody is in it."""
    workspace_id = site.workspaces()[place.workspace]
    for user in users:
        site.add_member(workspace_id, user)
    if any(user.role == "annotator" for user in site.members(workspace_id)):
        return ()
    return (
        f"nobody but owners can see the workspace {place.workspace!r} yet; add people with "
        f"'plumbline annotate users add NAME --workspace {place.workspace}'",
    )


def users_called(site: Argilla, names: Sequence[str]) -> dict[str, User]:
    """Return these users by name; raise `ConfigError` where somebody is unknown."""
    if not names:
        return {}
    users = {user.name: user for user in site.users()}
    unknown = [name for name in names if name not in users]
    if unknown:
        hints = []
        for name in unknown:
            near = difflib.get_close_matches(name, users, n=1)
            hints.append(f"{name!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))
        raise ConfigError(
            f"There is no user {' and no user '.join(hints)} on {site.url}. Nothing was sent. Add "
            "people with 'plumbline annotate users add NAME'."
        )
    return {name: users[name] for name in names}


def check_workspace(site: Argilla, config: CampaignConfig) -> None:
    """Refuse a workspace that the settings name and that does not exist."""
    if config.workspace is None:
        return
    existing = site.workspaces()
    if config.workspace not in existing:
        near = difflib.get_close_matches(config.workspace, existing, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(
            f"There is no workspace {config.workspace!r} on {site.url}.{hint} There are: "
            f"{', '.join(sorted(existing)) or 'none'}. Without this setting, the campaign gets a "
            "workspace of its own."
        )


def workspace_of(config: CampaignConfig, person: str | None) -> str:
    """Return the name of the workspace in which a person's queue, or the shared one, lies."""
    return config.workspace or (config.name if person is None else f"{config.name}-{person}")


def _make_place(campaign: Campaign, site: Argilla, queue: str, users: Mapping[str, User]) -> Place:
    """Make a queue's workspace and dataset, as far as an earlier attempt has not made them."""
    config, person = campaign.config, person_of(queue)
    workspace = workspace_of(config, person)
    workspace_id = site.workspaces().get(workspace) or site.create_workspace(workspace)
    if person is not None:
        site.add_member(workspace_id, users[person])
    form = form_of(config, adjudication=is_adjudication(queue))
    dataset = site.create_dataset(
        workspace_id,
        _dataset_name(config, queue),
        _answers_per_record(config, queue),
        replace(form, guidelines=campaign.guidelines),
        dataset_metadata(campaign, queue, form),
    )
    _check_ours(dataset, campaign, workspace)
    if not dataset.published:
        site.publish(dataset, form)
    _check_form(site, dataset, form)
    return Place(dataset.id, dataset.name, workspace)


def _dataset_name(config: CampaignConfig, queue: str) -> str:
    if is_adjudication(queue):
        return f"{config.name}-adjudication"
    return f"{config.name}-training" if is_training(queue) else config.name


def _answers_per_record(config: CampaignConfig, queue: str) -> int:
    if queue == SHARED:
        return config.votes_per_pair
    return _EVERYBODY if is_training(queue) and person_of(queue) is None else 1


def dataset_metadata(
    campaign: Campaign,
    queue: str,
    form: Form,
    feedback: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[str, Any]:
    """Return what a dataset says about itself, to Plumbline's server and labelling page.

    Records of a personal queue are shown in the order in which they were sent, so that repeats keep
    their distance and adjudication begins with the highest priority. Those of a shared queue are
    shuffled for each person, so that nobody waits for anybody else. ``feedback`` is what the page
    shows after each answer of a training round, by record.
    """
    page: dict[str, Any] = {
        "campaign": campaign.config.name,
        "kind": "adjudication"
        if is_adjudication(queue)
        else "training"
        if is_training(queue)
        else "labels",
        "markdown": campaign.config.markdown,
        "conditions": {
            question.name: {"question": question.only_after[0], "values": question.only_after[1]}
            for question in form.questions
            if question.only_after is not None
        },
    }
    if feedback is not None:
        page["feedback"] = {name: dict(entry) for name, entry in feedback.items()}
    order = {} if queue == SHARED else {"order": "as-pushed"}
    return {CAMPAIGN_KEY: campaign.id, "plumbline": order | {"page": page}}


def _check_ours(dataset: Dataset, campaign: Campaign, workspace: str) -> None:
    if dataset.metadata.get(CAMPAIGN_KEY) != campaign.id:
        raise ConfigError(
            f"The workspace {workspace!r} has a dataset {dataset.name!r} that does not belong to "
            "this campaign. Give the campaign another name, or use the folder that the dataset was "
            "pushed from."
        )


def _check_form(site: Argilla, dataset: Dataset, form: Form) -> None:
    fields, questions = site.form_names(dataset.id)
    expected_fields = {field.name for field in form.fields}
    expected_questions = {question.name for question in form.questions}
    if (fields, questions) != (expected_fields, expected_questions):
        raise ConfigError(
            f"The dataset {dataset.name!r} shows {sorted(fields)} and asks {sorted(questions)}, "
            f"but this campaign shows {sorted(expected_fields)} and asks "
            f"{sorted(expected_questions)}. Somebody changed it on the site. Delete it there if it "
            "has no answers, and push again."
        )


def update_datasets(
    campaign: Campaign,
    site: Argilla,
    guidelines: str,
    feedback: Mapping[str, Mapping[str, Mapping[str, str]]],
) -> None:
    """Bring the guidelines and metadata of all datasets up to date, where they differ.

    ``feedback`` is that of the training queues, by queue and record.
    """
    existing = {dataset.id: dataset for dataset in site.datasets()}
    for queue, place in campaign.places.items():
        dataset = existing.get(place.dataset_id)
        if dataset is None:
            continue
        form = form_of(campaign.config, adjudication=is_adjudication(queue))
        wanted = dataset_metadata(campaign, queue, form, feedback.get(queue))
        if _as_json(dataset.metadata) != _as_json(wanted):
            site.update_dataset(place.dataset_id, metadata=wanted)
        if campaign.guidelines != guidelines:
            site.update_dataset(place.dataset_id, guidelines=guidelines)
    if campaign.guidelines != guidelines:
        campaign.guidelines = guidelines
        campaign.save()


def _as_json(value: Any) -> Any:
    """Return a value as it is after a way through JSON, where tuples become lists."""
    return json.loads(json.dumps(value))
