"""A labeller at work on Plumbline's labelling page, in a real browser, without a network."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from annotation.campaign.pairs import Pair
from plumbline.data.records import assistant, user

pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

pytestmark = pytest.mark.slow

FILLER = "\n\n".join(f"Paragraph {n} of a long response, which nobody reads." for n in range(120))


class Page:
    """The labelling page, as a person sees it."""

    def __init__(self, driver, ground, width=1280, height=800):
        self.driver, self.ground = driver, ground
        self.size(width, height)

    def size(self, width, height):
        measures = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 900}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", measures)

    def sign_in(self, name):
        self.driver.get(f"{self.ground.server.url}/")
        self.wait(lambda: self.one("[name=username]").is_displayed())
        self.one("[name=username]").send_keys(name)
        self.one("[name=password]").send_keys(f"password-of-{name}", Keys.ENTER)
        self.wait(lambda: not self.one("#sign-in").is_displayed())

    def one(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def wait(self, condition):
        from selenium.common.exceptions import StaleElementReferenceException

        return WebDriverWait(
            self.driver,
            20,
            poll_frequency=0.05,
            # While the page draws the next pair, what was there is stale or not there at all.
            ignored_exceptions=[StaleElementReferenceException, StopIteration],
        ).until(lambda _: condition())

    def press(self, *keys):
        ActionChains(self.driver).send_keys(*keys).perform()

    def keypad(self, code):
        """Press a key of the keypad with Num Lock off, where its ``key`` is another one."""
        self.driver.execute_script(
            "document.body.dispatchEvent(new KeyboardEvent('keydown', "
            "{code: arguments[0], key: 'End', bubbles: true, cancelable: true}))",
            code,
        )

    @property
    def shown(self):
        """Both responses, as they are read."""
        return self.one("#response-a .text").text, self.one("#response-b .text").text

    def shows(self, text):
        self.wait(lambda: self.one("#desk").is_displayed() and text in " ".join(self.shown))

    def chosen(self, question):
        return [
            option.text.split("\n")[-1]
            for option in self.all(f"#question-{question} .option[aria-checked=true]")
        ]

    def saved(self):
        """Wait until the server has everything."""
        stored = "return Object.keys(localStorage).filter(k => k.includes('.outbox.')).length"
        self.wait(lambda: self.driver.execute_script(stored) == 0)


@pytest.fixture
def page(fresh_chromium, ground):
    return Page(fresh_chromium, ground)


def pairs(count):
    return [
        Pair(f"p-{n}", [user(f"What does {n} cost?")], f"Number {n} costs {n} coins.", f"Ask {n}.")
        for n in range(count)
    ]


def start(page, count=4, **more):
    name = page.ground.person()
    page.ground.push(pairs(count), [name], **more)
    page.sign_in(name)
    page.shows("Ask")
    return name


def number(page):
    return next(int(text.split()[1].strip(".")) for text in page.shown if text.startswith("Ask"))


def test_a_pair_takes_three_keys_and_arrives_with_its_strength_and_reason(page):
    start(page)
    first = number(page)
    assert not page.one("#question-strength").is_displayed()
    page.press("3")
    assert not page.one("#question-strength").is_displayed()  # nothing is stronger in a tie
    page.press("1")
    assert page.one("#question-strength").is_displayed()
    page.press("2")
    assert (page.chosen("choice"), page.chosen("strength")) == (["A is better"], ["clearly better"])
    page.press(Keys.ENTER)
    page.wait(lambda: number(page) != first)
    second = number(page)
    assert page.chosen("choice") == []
    page.press(Keys.ENTER)  # nothing is chosen yet
    assert "Which response is better?" in page.one("#notice").text
    assert number(page) == second
    page.keypad("Numpad2")
    page.keypad("Numpad3")
    page.press("r", "naïve, 2 < 3 “quoted”", Keys.ENTER)
    page.wait(lambda: number(page) != second)
    page.saved()
    labels = {label.pair_id: label for label in page.ground.labels()}
    assert set(labels) == {f"p-{first}", f"p-{second}"}
    one, two = labels[f"p-{first}"], labels[f"p-{second}"]
    assert (one.choice == one.shown_first, one.strength) == (True, 2)
    assert (two.choice == two.shown_first, two.strength) == (False, 3)
    assert two.rationale == "naïve, 2 < 3 “quoted”"


def test_one_goes_back_changes_an_answer_and_goes_on_where_one_was(page):
    start(page)
    first = number(page)
    page.press("1", "1", Keys.ENTER)
    page.wait(lambda: number(page) != first)
    second = number(page)
    page.press("x")  # discarded
    page.wait(lambda: number(page) not in (first, second))
    third = number(page)
    page.press("2", "r", "half a reason", Keys.ESCAPE)  # not submitted yet
    page.press("z")
    page.wait(lambda: number(page) == second)
    assert "discarded" in page.one("#notice").text
    page.press("z")
    page.wait(lambda: number(page) == first)
    assert (page.chosen("choice"), page.chosen("strength")) == (
        ["A is better"],
        ["slightly better"],
    )
    page.press("b", Keys.ENTER)
    page.wait(lambda: number(page) == second)
    page.press("y")
    page.wait(lambda: number(page) == third)
    assert page.chosen("choice") == ["B is better"]
    assert page.one("textarea").get_attribute("value") == "half a reason"
    page.saved()
    (label,) = page.ground.labels()
    assert label.choice != label.shown_first


def test_a_pause_hides_the_pair_and_keeps_what_was_entered_even_when_the_page_is_loaded_again(page):
    start(page)
    shown = number(page)
    page.press("2", "p")
    page.wait(lambda: page.one("#paused").is_displayed())
    assert not page.one("#desk").is_displayed()
    page.press("1", Keys.ESCAPE)  # means nothing now
    page.press("p")
    page.wait(lambda: page.one("#desk").is_displayed())
    assert (number(page), page.chosen("choice")) == (shown, ["B is better"])
    page.driver.refresh()
    page.shows("Ask")
    assert (number(page), page.chosen("choice")) == (shown, ["B is better"])


def test_answers_that_the_network_holds_up_are_sent_later(page):
    start(page, 4)
    network = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    page.driver.execute_cdp_cmd("Network.enable", {})
    page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", network)
    first = number(page)
    page.press("1", Keys.ENTER)
    page.wait(lambda: number(page) != first)  # the next pair was there already
    page.wait(lambda: "1 answer not saved yet" in page.one("#saving").text)
    assert page.ground.labels() == []
    online = network | {"offline": False, "downloadThroughput": -1, "uploadThroughput": -1}
    page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", online)
    page.saved()
    assert [label.pair_id for label in page.ground.labels()] == [f"p-{first}"]


def test_an_answer_that_the_server_refuses_is_said_and_its_pair_comes_again(page):
    start(page, 1)
    page.press("1")
    page.driver.execute_script(
        "const area = document.querySelector('textarea'); area.value = 'x'.repeat(20001);"
        "area.dispatchEvent(new Event('input'))"
    )
    page.press(Keys.ENTER)
    page.wait(lambda: "may have 20,000 characters" in page.one("#notice").text)
    page.shows("Ask")
    assert page.ground.labels() == []
    page.wait(lambda: page.chosen("choice") == ["A is better"])
    assert len(page.one("textarea").get_attribute("value")) == 20_001


@pytest.mark.parametrize("width", [1280, 390])
def test_the_next_pair_starts_at_its_top_and_the_shorter_response_is_in_view(page, width):
    page.size(width, 800)
    name = page.ground.person()
    rows = [
        Pair(f"p-{n}", [user("Tell me. " * 200)], f"# Start {n}\n\n{FILLER}", f"Short {n}.")
        for n in range(3)
    ]
    page.ground.push(rows, [name])
    page.sign_in(name)
    page.shows("Short")
    for _ in range(2):
        before = page.shown
        assert [text.is_displayed() for text in page.all("#responses .text")] == [True, True]
        tops = page.driver.execute_script(
            "return [...document.querySelectorAll('#responses article')]"
            ".map(e => e.getBoundingClientRect().top)"
        )
        assert all(0 < top < 700 for top in tops)
        assert (tops[0] == tops[1]) == (width >= 900)
        page.press(Keys.PAGE_DOWN)
        page.driver.execute_script("window.scrollTo(0, 300)")
        assert (page.driver.execute_script("return window.scrollY") > 20) == (width < 900)
        scrolled = "return [...document.querySelectorAll('#responses .text')].map(e => e.scrollTop)"
        assert max(page.driver.execute_script(scrolled)) > 100
        page.press("1", Keys.ENTER)
        page.wait(lambda before=before: page.shown != before)
        assert page.driver.execute_script(scrolled) == [0, 0]
        assert page.driver.execute_script("return window.scrollY") == 0


@pytest.mark.parametrize("width", [1280, 390])
def test_a_conversation_takes_the_room_that_the_responses_leave_and_says_where_it_goes_on(
    page, width
):
    page.size(width, 900)
    turns = [user("Do you have umbrellas?"), assistant("Yes, at 9 coins.\n\nAnd at 14.")] * 2
    rows = [
        Pair("short", [*turns, user("Two of them.")], "28 coins.", "Short."),
        Pair("long", [*turns, user("Two of them.")], FILLER, "Short."),
        Pair("prompt", [user("Tell me.\n\n" * 99)], "28 coins.", "Short."),
    ]
    name = page.ground.person()
    page.ground.push(rows, [name])
    page.sign_in(name)
    page.shows("Short.")
    seen, conversation = set(), page.one("#conversation")
    for _ in rows:
        is_long = any(text.startswith("Paragraph") for text in page.shown)
        is_cut = "has-more" in conversation.get_attribute("class")
        assert is_cut == (is_long or "Tell me" in conversation.text)
        if is_long:
            assert conversation.size["height"] == pytest.approx(0.3 * 900, abs=2)
        ends = [page.one(part).rect for part in ("#response-a", "#response-b")]
        end = max(rect["y"] + rect["height"] for rect in ends)
        seen.add((is_long, is_cut))
        before = conversation.text, page.shown
        page.press("1")  # the strength is asked now, on a phone in a further row
        assert is_long or end <= page.one("#answer").rect["y"]
        page.press(Keys.ENTER)
        page.wait(
            lambda before=before: (
                (conversation.text, page.shown) != before or page.one("#done").is_displayed()
            )
        )
    assert len(seen) == 3


def test_differences_are_marked_and_nothing_in_a_response_is_loaded_or_run(page):
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
        name = page.ground.person()
        hostile = (
            f"It costs nine coins. ![x]({address}/a.png) <img src='{address}/b.png'>"
            "<script>document.title = 'run'</script> 推荐这本书"
        )
        page.ground.push(
            [Pair("p", [user("?")], hostile, "It costs ten coins. 推荐那首诗")], [name]
        )
        page.sign_in(name)
        page.shows("coins")
        assert "<script>document.title = 'run'</script>" in " ".join(page.shown)
        before = page.shown
        page.press("d")
        marked = {mark.text for mark in page.all("#responses mark")}
        assert "nine" in " ".join(marked)
        assert "ten" in marked
        assert not any("costs" in mark for mark in marked)
        assert page.shown == before  # marks change no word
        page.press("d")
        assert page.all("#responses mark") == []
        page.press("m")
        assert f"![x]({address}/a.png)" in " ".join(page.shown)
        assert page.driver.title != "run"
        refused = [e["message"] for e in page.driver.get_log("browser")]
        assert not [line for line in refused if "Content Security Policy" in line]
    finally:
        tracker.shutdown()
        tracker.server_close()
    assert hits == []


def test_the_practice_round_tells_what_others_think_and_comes_first(page):
    name = page.ground.person()
    lessons = [
        Pair(
            f"l-{n}", [user(f"{n}?")], f"Lesson {n} answers.", f"Lesson {n} not.", "a", ("Why so.",)
        )
        for n in range(5)
    ]
    page.ground.push(pairs(2), [name], training=lessons)
    page.sign_in(name)
    page.shows("Lesson")
    assert page.one("#kind").text == "Practice"
    heads = []
    for _ in range(5):
        page.wait(lambda: page.chosen("choice") == [])
        page.press("1", Keys.ENTER)
        page.wait(lambda: page.one("#feedback").is_displayed())
        assert page.one("#feedback .words").text == "Why so."
        heads.append(page.one("#feedback h2").text)
        first = page.shown[0]
        assert heads[-1] == (
            "We see it the same way" if "answers" in first else "We would say: B is better"
        )
        page.press(Keys.ENTER)
        page.wait(lambda: not page.one("#feedback").is_displayed())
    page.wait(lambda: page.one("#done").is_displayed())
    assert "your answers count" in page.one("#done").text
    page.one("#done .again").click()
    page.shows("Ask")
    assert page.ground.labels() == []


def test_a_senior_labeller_sees_the_votes_and_their_reasons_above_the_fold(page):
    from annotation.campaign.push import push_adjudication

    ana, ben, dora = (page.ground.person() for _ in range(3))
    page.ground.push(pairs(1), [ana, ben], overlap=2)
    page.ground.answer(ana, lambda _: {"choice": "a", "strength": "2", "rationale": "It says it."})
    page.ground.answer(ben, lambda _: {"choice": "both_bad", "rationale": "Both are\nrude."})
    page.ground.labels()
    (pair,) = page.ground.campaign.pairs().values()
    doubtful = Pair(pair.id, pair.prompt, pair.a, pair.b, reasons=("disagreement",))
    push_adjudication(page.ground.folder, page.ground.site, dora, [doubtful])
    page.sign_in(dora)
    page.shows("Ask")
    for width, height in ((1280, 800), (390, 844)):
        page.size(width, height)
        votes = page.one("#votes")
        box, responses = votes.rect, page.one("#responses").rect
        assert "It says it." in votes.text
        assert "Both are bad" in votes.text
        assert "Both are rude." in votes.text
        assert "the votes disagree" in votes.text
        assert box["y"] + box["height"] < height - 150
        if width > 1000:
            assert box["x"] >= responses["x"] + responses["width"]
        name = page.one("#to-queues")  # the name of the campaign is not cut
        assert int(name.get_property("scrollWidth")) <= int(name.get_property("clientWidth")) + 1


def test_nothing_on_the_page_leads_elsewhere(page):
    name = start(page)
    source = page.driver.page_source
    assert "argilla.io" not in source
    assert "huggingface" not in source
    assert {link.get_attribute("href") for link in page.all("a")} == {
        f"{page.ground.server.url}/?argilla"
    }
    page.press("?")
    page.wait(lambda: page.one("#keys").is_displayed())
    page.one("#keys .sign-out").click()
    page.wait(lambda: page.one("#sign-in").is_displayed())
    page.sign_in(name)
    page.shows("Ask")
