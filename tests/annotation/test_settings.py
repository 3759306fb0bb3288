"""Settings of the room: those without an effect are refused, and names are safe."""

from __future__ import annotations

import pytest

from annotation.campaign.config import CampaignConfig
from annotation.campaign.connect import SiteConfig
from annotation.campaign.folder import campaign_folder
from annotation.llm_judge.config import JudgeConfig
from annotation.names import check_campaign_name, check_person_name, problem_with_name
from annotation.selection.config import SelectionConfig
from plumbline.config import load
from plumbline.errors import ConfigError


@pytest.mark.parametrize(
    ("schema", "overrides", "needs"),
    [
        (CampaignConfig, ["people=[ana, ben]", "workspace=w"], "people to be empty"),
        (CampaignConfig, ["repeat_share=0", "repeat_distance=3"], "repeat_share above 0"),
        (SelectionConfig, ["temperature=2"], "strategy: disagreement or diverse"),
        (SelectionConfig, ["strategy=margin", "measure=variance"], "disagreement or diverse"),
        (SelectionConfig, ["strategy=disagreement", "candidates=9"], "strategy: diverse"),
        (SiteConfig, ["server=https://x.org", "port=7000"], "server to be null"),
        (SiteConfig, ["api_key_file=key"], "needs server"),
    ],
)
def test_a_setting_that_has_no_effect_is_refused_with_what_it_needs(schema, overrides, needs):
    with pytest.raises(ConfigError, match=f"has no effect here.*{needs}"):
        load(schema, None, overrides)


@pytest.mark.parametrize(
    ("schema", "overrides"),
    [
        (CampaignConfig, ["workspace=w"]),
        (CampaignConfig, ["repeat_share=0.1", "repeat_distance=3"]),
        (SelectionConfig, ["strategy=diverse", "temperature=2", "candidates=9"]),
        (SiteConfig, ["server=https://x.org", "api_key_file=key"]),
        (SiteConfig, ["port=7000"]),
    ],
)
def test_a_setting_that_has_an_effect_is_accepted(schema, overrides):
    load(schema, None, overrides)


@pytest.mark.parametrize("price", ["input_price", "output_price"])
def test_one_price_alone_is_refused(price):
    with pytest.raises(ValueError, match="the cost needs both"):
        JudgeConfig(model="m", **{price: 1.0})


def test_defaults_fit_the_people_there_are():
    assert CampaignConfig(people=("ana", "ben")).votes_per_pair == 2
    assert CampaignConfig(people=tuple("abcdef")).votes_per_pair == 3
    assert CampaignConfig(people=("ana", "ben"), overlap=1).votes_per_pair == 1


UNSAFE = ["", "..", "../x", "a/b", "a\\b", "a b", "A", "-a", "a" * 61, "a\n", "x\0", "\u202ea"]


@pytest.mark.parametrize("name", UNSAFE)
def test_names_that_become_files_hold_safe_characters_only(name, tmp_path):
    with pytest.raises(ConfigError, match="must be 1 to 60 lower-case letters"):
        check_campaign_name(name)
    with pytest.raises(ConfigError, match="must be 1 to 60 lower-case letters"):
        campaign_folder(tmp_path, name)
    with pytest.raises(ConfigError, match="must be 1 to 60 lower-case letters"):
        check_person_name(name)


def test_good_names_are_accepted(tmp_path):
    assert campaign_folder(tmp_path, "round_2-b").parent == tmp_path / "campaigns"
    assert check_person_name("ana.lima") == "ana.lima"


@pytest.mark.parametrize("name", ["Ana Lima", "ana@example.org", "李雷"])
def test_accounts_of_other_servers_may_have_other_names(name):
    assert problem_with_name(name) is None


@pytest.mark.parametrize("name", [" ", "../ana", "a/b", ".hidden", "a\nb", "a\u202eb", "x" * 201])
def test_but_no_name_leads_out_of_a_folder_or_hides_what_it_is(name):
    assert problem_with_name(name) is not None
