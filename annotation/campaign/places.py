"""Where queues lie on the server: users, workspaces and datasets, made where they are not there.

Whatever of this an earlier, killed attempt has done is found and not done again.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from annotation.campaign.argilla import Argilla, Dataset, User
from annotation.campaign.config import CampaignConfig
from annotation.campaign.items import SHARED, is_adjudication, person_of
from annotation.campaign.questions import Form, form_of
from annotation.campaign.state import Campaign, Place
from plumbline.errors import ConfigError

CAMPAIGN_KEY = "plumbline_campaign"
"""Where a dataset's metadata names the campaign that made it."""


def places_of(campaign: Campaign, site: Argilla, queues: Sequence[str]) -> dict[str, Place]:
    """Return where each queue lies; make what is not there."""
    missing = [queue for queue in queues if queue not in campaign.places]
    users = users_called(site, [name for queue in missing if (name := person_of(queue))])
    for queue in missing:
        campaign.places[queue] = _make_place(campaign, site, queue, users)
        campaign.save()
    return dict(campaign.places)


def open_to(site: Argilla, place: Place, users: Sequence[User]) -> tuple[str, ...]:
    """Let people into the workspace of a shared queue; say so where nobody is in it."""
    workspace_id = site.workspaces()[place.workspace]
    for user in users:
        site.add_member(workspace_id, user)
    if any(user.role == "annotator" for user in site.members(workspace_id)):
        return ()
    return (
        f"nobody but owners can see the workspace {place.workspace!r} yet; let people in with "
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
            f"There is no user {' and no user '.join(hints)} on {site.url}. Add people with "
            "'plumbline annotate users add NAME'; nothing has been sent."
        )
    return {name: users[name] for name in names}


def check_workspace(site: Argilla, config: CampaignConfig) -> None:
    """Refuse a workspace that was asked for by name and is not there."""
    if config.workspace is None:
        return
    there = site.workspaces()
    if config.workspace not in there:
        near = difflib.get_close_matches(config.workspace, there, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(
            f"There is no workspace {config.workspace!r} on {site.url}.{hint} There are: "
            f"{', '.join(sorted(there)) or 'none'}. Without the setting, the campaign gets one of "
            "its own."
        )


def _make_place(campaign: Campaign, site: Argilla, queue: str, users: Mapping[str, User]) -> Place:
    """Make a queue's workspace and dataset, as far as an earlier attempt has not made them."""
    config, person = campaign.config, person_of(queue)
    workspace = config.workspace or (config.name if person is None else f"{config.name}-{person}")
    there = site.workspaces()
    workspace_id = there.get(workspace) or site.create_workspace(workspace)
    if person is not None:
        site.add_member(workspace_id, users[person])
    adjudication = is_adjudication(queue)
    form = form_of(config, adjudication=adjudication)
    dataset = site.create_dataset(
        workspace_id,
        f"{config.name}-adjudication" if adjudication else config.name,
        config.overlap if queue == SHARED else 1,
        replace(form, guidelines=campaign.guidelines),
        _metadata(campaign, queue),
    )
    _check_ours(dataset, campaign, workspace)
    if not dataset.published:
        site.publish(dataset, form)
    _check_form(site, dataset, form)
    return Place(dataset.id, dataset.name, workspace)


def _metadata(campaign: Campaign, queue: str) -> dict[str, Any]:
    """Return what a dataset says of itself.

    The embedded server shows the records of a queue of one's own in the order in which they were
    sent, so that repeats keep their distance and the most valuable comes first. In a shared queue
    it shuffles them for each person, as other servers always do: so people meet on few records.
    """
    mine = {CAMPAIGN_KEY: campaign.id}
    return mine if queue == SHARED else mine | {"plumbline": {"order": "as-pushed"}}


def _check_ours(dataset: Dataset, campaign: Campaign, workspace: str) -> None:
    if dataset.metadata.get(CAMPAIGN_KEY) != campaign.id:
        raise ConfigError(
            f"The workspace {workspace!r} has a dataset {dataset.name!r} that is not of this "
            f"campaign. Give the campaign another name, or go on with the folder that it was "
            "pushed from."
        )


def _check_form(site: Argilla, dataset: Dataset, form: Form) -> None:
    fields, questions = site.form_names(dataset.id)
    expected = {field.name for field in form.fields}, {asked.name for asked in form.questions}
    if (fields, questions) != expected:
        raise ConfigError(
            f"The dataset {dataset.name!r} shows {sorted(fields)} and asks {sorted(questions)}, "
            f"but this campaign would show {sorted(expected[0])} and ask {sorted(expected[1])}. "
            "Somebody changed it on the site; delete it there if it has no answers, and push again."
        )


def renew_guidelines(campaign: Campaign, site: Argilla, page: str) -> None:
    """Put another guidelines page into all datasets, where it is another."""
    if campaign.guidelines != page:
        for place in campaign.places.values():
            site.set_guidelines(place.dataset_id, page)
        campaign.guidelines = page
        campaign.save()
