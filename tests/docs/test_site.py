"""The whole site: it is built strictly, and what it shows needs no network."""

import json

import pytest

from site_builder import checks
from site_builder.build import build, navigation, refuse_unlisted, trim_search
from site_builder.pages import Page, SiteError

pytest.importorskip("zensical", reason="the extra `docs` is not installed")


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "index.html").write_text(
        '<h2 id="here">A</h2><a href="#here">1</a><a href="sub/b.html#there">2</a>'
        '<a href="sub/b.html#gone">3</a><a href="gone.html">4</a><a href="https://x.org/">5</a>'
        '<script src="https://x.org/a.js"></script><img src="gone.png">'
    )
    (tmp_path / "sub" / "b.html").write_text('<p id="there"><a href="../index.html">back</a>')
    (tmp_path / "a.css").write_text("@font-face { src: url('https://x.org/f.woff') }")
    assert checks.problems(tmp_path) == [
        "index.html: sub/b.html#gone leads nowhere: the page has no 'gone'",
        "index.html: gone.html leads nowhere: there is no such file",
        "index.html: gone.png leads nowhere: there is no such file",
        "index.html: https://x.org/a.js is fetched from another host",
        "a.css: fetches from another host",
    ]


def test_the_navigation_takes_in_the_pages_that_are_made():
    made = {
        "settings": [Page("settings/a.md", "A", "")],
        "api": [
            Page("api/index.md", "All", ""),
            *(Page(f"api/{room}/index.md", room, "") for room in ("rl", "sft")),
            Page("api/rl/ppo.md", "ppo", ""),
            Page("api/rl/engines/index.md", "engines", ""),
            Page("api/rl/engines/vllm.md", "vllm", ""),
        ],
    }
    entries = [{"Reference": [{"Settings": "settings"}, {"API": "api"}]}, {"Home": "index.md"}]
    whole = navigation(entries, made)
    assert whole[1] == {"Home": "index.md"}
    assert whole[0]["Reference"][0] == {"Settings": [{"A": "settings/a.md"}]}
    below = ["api/rl/index.md", {"ppo": "api/rl/ppo.md"}]
    engines = ["api/rl/engines/index.md", {"vllm": "api/rl/engines/vllm.md"}]
    assert {"rl": [*below, {"engines": engines}]} in whole[0]["Reference"][1]["API"]


def test_search_finds_docstrings_and_no_code(tmp_path):
    code = "<p>Do.</p> Source code in <code>a.py</code> <pre>def f(): hidden()</pre>"
    (tmp_path / "search.json").write_text(json.dumps({"items": [{"text": code}]}))
    trim_search(tmp_path)
    text = (tmp_path / "search.json").read_text()
    assert json.loads(text) == {"items": [{"text": "<p>Do.</p> "}]}
    assert (tmp_path / "search.js").read_text() == f"var __index = {text};"


def test_a_page_that_the_navigation_lacks_is_refused():
    pages = [Page("a.md", "A", ""), Page("b.md", "B", "")]
    with pytest.raises(SiteError, match=r"the navigation lacks b\.md"):
        refuse_unlisted([{"One": [{"A": "a.md"}]}], pages)
    refuse_unlisted([{"One": [{"A": "a.md"}]}, "b.md"], pages)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the site once; a link that leads nowhere stops it."""
    return build(tmp_path_factory.mktemp("site"))


@pytest.mark.slow
def test_the_site_is_built_strictly(site):
    assert (site / "api" / "rl" / "ppo.html").is_file()
    assert "needs kind" not in (site / "settings" / "dpo_vs_ppo.html").read_text()


@pytest.mark.slow
def test_the_site_is_searched_from_a_folder_without_a_network(site, shared_chromium):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    shared_chromium.get((site / "api" / "rl" / "losses.html").as_uri())
    wait = WebDriverWait(shared_chromium, 30)
    wait.until(lambda page: page.find_element(By.CSS_SELECTOR, ".md-search__button")).click()
    wait.until(lambda page: page.execute_script("return document.activeElement.shadowRoot"))
    shared_chromium.switch_to.active_element.send_keys("Krippendorff")
    result = "return [...document.querySelectorAll('*')].map(e => e.shadowRoot?.textContent).join()"
    wait.until(lambda page: "annotation" in page.execute_script(result))
    assert shared_chromium.get_log("browser") == []
