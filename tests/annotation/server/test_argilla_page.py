"""A labeller at work in a real browser on Argilla's own page, without a network."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from annotation.argilla.api import Argilla
from annotation.argilla.client import Connection
from annotation.campaign.config import CampaignConfig
from annotation.campaign.folder import Campaign
from annotation.campaign.pairs import pairs_of
from annotation.campaign.pull import labels_of, pull
from annotation.campaign.push import push

pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

pytestmark = pytest.mark.slow

PROMPT = [
    {"role": "user", "content": "Do you have red umbrellas?"},
    {"role": "assistant", "content": "Yes: small ones and large ones."},
    {"role": "user", "content": "What does the large one cost?"},
]


@pytest.fixture
def browser(fresh_chromium):
    return fresh_chromium


def wait(browser, condition):
    """Wait until a condition holds; elements may come and go meanwhile."""
    from selenium.common.exceptions import StaleElementReferenceException

    return WebDriverWait(
        browser, 30, poll_frequency=0.05, ignored_exceptions=[StaleElementReferenceException]
    ).until(lambda _: condition())


def text(browser) -> str:
    return browser.find_element(By.TAG_NAME, "body").text


def sign_in(browser, site, person):
    browser.get(f"{site.url}/sign-in")
    name, password = wait(
        browser, lambda: f if len(f := browser.find_elements(By.TAG_NAME, "input")) == 2 else None
    )
    name.send_keys(person["username"])
    password.send_keys(person["password"], Keys.ENTER)


def open_queue(browser, site, person):
    sign_in(browser, site, person)
    link = wait(
        browser,
        lambda: next(
            (
                a.get_attribute("href")
                for a in browser.find_elements(By.CSS_SELECTOR, "a[href*='annotation-mode']")
            ),
            None,
        ),
    )
    browser.get(link)
    wait(browser, lambda: "Which response is better?" in text(browser))


def button(browser, words: str):
    return wait(
        browser,
        lambda: next(
            (
                e
                for e in browser.find_elements(By.CSS_SELECTOR, "label, button")
                if e.text.strip().endswith(words)
            ),
            None,
        ),
    )


@pytest.fixture
def campaign(argilla_site, tmp_path):
    """A campaign of one person's, and that person."""

    def make(rows, **settings):
        person = argilla_site.person()
        config = CampaignConfig(
            name=argilla_site.fresh("page"),
            people=(person["username"],),
            overlap=1,
            gold_share=0,
            repeat_share=0,
            **settings,
        )
        pairs, dropped = pairs_of(rows, "test")
        assert not dropped.reasons()
        argilla = Argilla(Connection(argilla_site.url, argilla_site.api_key))
        folder = tmp_path / "campaign"
        push(folder, argilla, config, pairs)
        return Campaign(folder), argilla, person

    return make


def test_a_pair_is_read_judged_by_keyboard_and_by_mouse_and_arrives(
    browser, argilla_site, campaign, tmp_path
):
    rows = [
        {
            "pair_id": f"pair-{n}",
            "prompt": PROMPT,
            "a": f"It costs {n} coins, and we have three left.",
            "b": f"Money, dear customer number {n}.",
        }
        for n in range(3)
    ]
    made, argilla, person = campaign(rows)
    open_queue(browser, argilla_site, person)

    # A conversation of three turns, both responses, and the guidelines one click away.
    wait(browser, lambda: "coins" in text(browser))
    for turn in PROMPT:
        assert turn["content"] in text(browser)
    first = shown(browser)
    browser.save_screenshot(str(tmp_path / "1-a-pair.png"))

    # By keyboard alone: the first answer, the second strength, and Enter to submit.
    ActionChains(browser).send_keys("1").perform()
    wait(browser, lambda: is_chosen(browser, "A is better"))
    ActionChains(browser).send_keys("2").perform()
    browser.save_screenshot(str(tmp_path / "2-by-keyboard.png"))
    ActionChains(browser).send_keys(Keys.RETURN).perform()
    wait(browser, lambda: shown(browser) not in (None, first))
    second = shown(browser)

    # By mouse, with a reason in words.
    button(browser, "B is better").click()
    browser.find_element(By.CSS_SELECTOR, "[contenteditable]").click()
    rationale = "It says a price. “Money” is no answer; naïve, 2 < 3."
    ActionChains(browser).send_keys(rationale).perform()
    browser.save_screenshot(str(tmp_path / "3-by-mouse.png"))
    button(browser, "Submit").click()
    wait(browser, lambda: shown(browser) not in (None, first, second))
    browser.save_screenshot(str(tmp_path / "4-the-next.png"))

    pull(made, argilla)
    labels = {label.pair_id: label for label in labels_of(made).labels}
    assert set(labels) == {f"pair-{first}", f"pair-{second}"}
    by_key, by_mouse = labels[f"pair-{first}"], labels[f"pair-{second}"]
    assert by_key.choice == by_key.shown_first  # A was what was shown first
    assert by_key.strength == 2
    assert by_mouse.choice != by_mouse.shown_first
    assert by_mouse.choice in ("a", "b")
    assert by_mouse.rationale == "It says a price. “Money” is no answer; naïve, 2 < 3."
    assert {label.source for label in labels.values()} == {"argilla"}
    assert person["username"] not in {label.annotator for label in labels.values()}
    assert refused(browser) == []


def test_a_picture_in_a_response_tells_nobody_that_it_was_read(browser, argilla_site, campaign):
    hits = []

    class Tracker(BaseHTTPRequestHandler):
        def do_GET(self):
            hits.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    tracker = HTTPServer(("127.0.0.1", 0), Tracker)
    threading.Thread(target=tracker.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{tracker.server_port}"
    try:
        rows = [
            {
                "prompt": PROMPT,
                "a": f'Seen? ![x]({address}/markdown.png) <img src="{address}/html.png">',
                "b": f'<style>body{{background:url("{address}/style.png")}}</style> 0 coins.',
            }
        ]
        _, _, person = campaign(rows, argilla_markdown=True)
        open_queue(browser, argilla_site, person)
        wait(browser, lambda: "Seen?" in text(browser))
        wait(browser, lambda: refused(browser))  # the picture was there, and was refused
    finally:
        tracker.shutdown()
        tracker.server_close()
    assert hits == []


def shown(browser) -> int | None:
    """The number of the pair on the page, or None between two."""
    import re

    found = re.search(r"costs (\d) coins", text(browser))
    return int(found[1]) if found else None


def is_chosen(browser, words: str) -> bool:
    label = button(browser, words)
    field = browser.find_element(By.ID, label.get_attribute("for"))
    return field.is_selected()


def refused(browser) -> list[str]:
    """What the page tried to load and was not allowed to, but for its web fonts."""
    return [
        entry["message"]
        for entry in browser.get_log("browser")
        if "Content Security Policy" in entry["message"]
        and "fonts.googleapis" not in entry["message"]
    ]
