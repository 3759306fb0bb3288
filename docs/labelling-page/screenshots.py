# ruff: noqa: D102, D103, E501
"""Take the pictures of the labelling page that docs/labelling.md shows.

    python docs/labelling-page/screenshots.py [--home FOLDER] [--out FOLDER] [NAME ...]

It starts a labelling site of its own, sends one pair of each kind, and photographs each at two
widths with chromium, light and dark. Chinese and emoji need fonts that have them.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from annotation.argilla.api import Argilla
from annotation.argilla.client import Connection
from annotation.argilla.labeler_client import LabelerClient
from annotation.campaign.config import CampaignConfig
from annotation.campaign.folder import Campaign, campaign_folder
from annotation.campaign.pairs import Pair, pairs_of
from annotation.campaign.pull import pull
from annotation.campaign.push import push, push_adjudication
from annotation.server import control
from annotation.server.site_folder import Reach, Site
from plumbline.ports import free_port

SHORT = (
    "It is a small shop for household goods with eight kinds of goods on two floors. Most people "
    "come for umbrellas and lamps. It opens at nine, and delivery costs five coins."
)
WIDTHS = {"1280": (1280, 800), "390": (390, 844)}
SCHEMES = ("light", "dark")
#: Pictures beside those of the kinds of pair.
OTHERS = ("adjudication", "practice")
#: What is pressed before a picture is taken.
KEYS = {"turns": "12", "table": "d1", "practice": "1"}
PASSWORD = "a-password-for-pictures"


def row(prompt: str | list[dict[str, str]], a: str, b: str) -> dict[str, object]:
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return {"prompt": turns, "a": a, "b": b}


def long_text(words: int) -> str:
    """Return a report on a shop, with headings and lists, of about so many words."""
    goods = ("umbrellas", "lamps", "kettles", "brushes", "ladders", "clocks", "baskets", "scales")
    shelves = ("by the door", "on the upper floor", "behind the counter", "in the yard")
    parts, number = [], 0
    while sum(len(part.split()) for part in parts) < words:
        what, where = goods[number % len(goods)], shelves[number % len(shelves)]
        number += 1
        parts.append(
            f"## {number}. {what.capitalize()} {where}\n\nThe {what} {where} sold {40 + 7 * number} "
            f"times in the month of the {number}. report, at {3 + number % 9} coins on average. "
            f"Customers who bought them came back after {2 + number % 5} weeks, and asked mostly for "
            "spare parts, which we do not have. Nobody complained about the price, but some about "
            f"the light {where}.\n\n- **In stock:** {120 - number}\n- **On order:** "
            f"{number % 4 * 10}\n- **To be moved:** {'yes, before winter' if number % 3 else 'no'}"
        )
    return "\n\n".join(parts)


def pairs() -> dict[str, dict[str, object]]:
    """Return a pair of each kind, by name."""
    return {
        "turns": row(
            [
                {"role": "system", "content": "You help in a shop for household goods."},
                {"role": "user", "content": "Do you have red umbrellas?"},
                {"role": "assistant", "content": "Yes: small ones at 9 coins, large ones at 14."},
                {"role": "user", "content": "And is the large one *windproof*?"},
                {"role": "assistant", "content": "The large one is. It has a frame of fibreglass."},
                {"role": "user", "content": "Then I take two large ones. What does that make?"},
            ],
            "Two large ones at 14 coins are **28 coins**. Shall I put them aside for you?",
            "That makes 23 coins: one small umbrella at 9 coins and one large umbrella at 14 coins. "
            "You could also take three small ones, which would be cheaper.",
        ),
        "code": row(
            "Write a function that returns the n-th Fibonacci number. It must be fast for n = 10,000.",
            "A loop needs no recursion:\n\n```python\ndef fibonacci(n: int) -> int:\n"
            '    """Return the n-th Fibonacci number."""\n    a, b = 0, 1\n    for _ in range(n):\n'
            "        a, b = b, a + b\n    return a\n```\n\nIt takes `n` additions. The numbers satisfy\n\n"
            "$$F_n = \\frac{\\varphi^n - \\psi^n}{\\sqrt{5}}, \\qquad \\varphi = \\frac{1 + \\sqrt{5}}{2}$$\n\n"
            "but with $n = 10^4$ floating point is not exact.",
            "```python\ndef fib(n):\n    if n < 2:\n        return n\n    return fib(n - 1) + fib(n - 2)\n```\n"
            "This is the <b>classic</b> way; see <script>alert(1)</script> and "
            "![a chart](https://example.org/chart.png).",
        ),
        "table": row(
            "Compare the three umbrellas by price, weight and wind.",
            "| umbrella | price | weight | holds in wind up to |\n|---|---:|---:|---|\n"
            "| small | 9 coins | 210 g | 30 km/h |\n| large | 14 coins | 480 g | 80 km/h |\n"
            "| golf | 22 coins | 690 g | 100 km/h |\n\n**In short:**\n\n1. the small one for the bag,\n"
            "2. the large one for every day,\n   - also in autumn,\n3. the golf umbrella for two.",
            "The small one costs 9 coins, the large one 14, and the golf umbrella 22. They differ in "
            "weight as well.",
        ),
        "chinese": row(
            "请用三句话介绍一下中秋节，并推荐一首相关的古诗。",
            "中秋节是农历八月十五，家人团聚、赏月、吃月饼。🥮🏮\n\n**推荐：**苏轼《水调歌头》\n\n"
            "> 但愿人长久，\n> 千里共婵娟。\n\n这首词写于1076年中秋，表达了对弟弟苏辙的思念。",
            "中秋节在每年公历9月15日。人们会划龙舟、吃粽子。推荐李白的《静夜思》：床前明月光，疑是地上霜。",
        ),
        "long": row("Tell me everything about the shop.", long_text(3000), SHORT),
    }  # fmt: skip


class Studio:
    """A site with one labeller for each kind of pair."""

    def __init__(self, home: Path) -> None:
        self.site, self.reach = Site(home), Reach(port=free_port())
        control.up(self.site, self.reach)
        self.server = Argilla(Connection(self.reach.local_url, self.site.owner()["api_key"]))

    def person(self, name: str) -> None:
        if name not in {user.name for user in self.server.users()}:
            self.server.create_user(name, PASSWORD)

    def campaign(self, name: str, rows: list[dict[str, object]], **more: object) -> Campaign:
        people = tuple(more.pop("people", (f"{name}-labeller",)))  # type: ignore[call-overload]
        for person in people:
            self.person(person)
        config = CampaignConfig(
            name=name, people=people, gold_share=0, repeat_share=0, aspects=(), **more
        )
        folder = campaign_folder(self.site.home, name)
        training = [
            Pair(f"{name}-practice-{n}", made.prompt, made.a, made.b, "a", ("It says a price.",))
            for n, made in enumerate(pairs_of(rows[:1], "practice")[0])
        ] if name == "practice" else []  # fmt: skip
        push(folder, self.server, config, pairs_of(rows, name)[0], training=training)
        return Campaign(folder)

    def adjudication(self, kind: dict[str, object]) -> None:
        people = ("ana", "ben", "cem")
        made = self.campaign("doubtful", [kind], people=people)
        reasons = {
            "ana": ("a", "2", "It answers what was asked, and 28 is right."),
            "ben": ("b", "1", "Friendlier, it offers another way to save money."),
            "cem": ("a", "3", "The other one is simply wrong: two large ones were asked for."),
        }
        for person, (choice, strength, why) in reasons.items():
            client = LabelerClient.sign_in(self.reach.local_url, person, PASSWORD)
            (dataset,) = client.datasets()
            for record in client.queue(dataset.id)[0]:
                is_first = record.fields["response_a"] == kind["a"]
                shown = choice if is_first else {"a": "b", "b": "a"}[choice]
                client.submit(record.id, {"choice": shown, "strength": strength, "rationale": why})
        pull(made, self.server)
        self.person("dora")
        push_adjudication(
            made.folder, self.server, "dora", [
                Pair(pair.id, pair.prompt, pair.a, pair.b, reasons=("disagreement",))
                for pair in made.pairs().values()
            ],
        )  # fmt: skip


def browser(*, dark: bool = False) -> webdriver.Chrome:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for option in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(option)
    if dark:
        options.add_argument("--force-dark-mode")
        options.add_argument("--blink-settings=preferredColorScheme=0")
    return webdriver.Chrome(
        options=options, service=webdriver.ChromeService(shutil.which("chromedriver"))
    )


def size(driver: webdriver.Chrome, width: int, height: int) -> None:
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 900},
    )


def open_pair(driver: webdriver.Chrome, url: str, person: str) -> None:
    driver.get(f"{url}/label")
    driver.execute_script("localStorage.clear()")
    driver.get(f"{url}/label")
    wait = WebDriverWait(driver, 20, poll_frequency=0.05)
    wait.until(lambda d: d.find_element(By.NAME, "username").is_displayed())
    driver.find_element(By.NAME, "username").send_keys(person)
    driver.find_element(By.NAME, "password").send_keys(PASSWORD, Keys.ENTER)
    wait.until(lambda d: d.find_element(By.ID, "desk").is_displayed())
    time.sleep(0.3)


def photograph(studio: Studio, out: Path, wanted: list[str]) -> None:
    """Take the pictures: each at every width, light and dark."""
    kinds = pairs()
    for name, kind in kinds.items():
        studio.campaign(name, [kind])
    # Feedback is given once, so each picture of it has a labeller of its own.
    shots = [(scheme, width) for scheme in SCHEMES for width in WIDTHS]
    learners = {shot: "practice-" + "-".join(shot) for shot in shots}
    studio.campaign("practice", [kinds["turns"], kinds["code"]], people=tuple(learners.values()))
    studio.adjudication(kinds["turns"])
    for scheme in SCHEMES:
        driver = browser(dark=scheme == "dark")
        try:
            for name, width in ((n, w) for n in (wanted or [*kinds, *OTHERS]) for w in WIDTHS):
                others = {"adjudication": "dora", "practice": learners[scheme, width]}
                size(driver, *WIDTHS[width])
                open_pair(driver, studio.reach.local_url, others.get(name, f"{name}-labeller"))
                ActionChains(driver).send_keys(KEYS.get(name, "")).perform()
                if name == "practice":
                    driver.find_element(By.ID, "submit").click()
                    time.sleep(0.7)
                time.sleep(0.3)
                save(driver, out / f"{name}-{width}{'-dark' * (scheme == 'dark')}.png")
        finally:
            driver.quit()


def save(driver: webdriver.Chrome, file: Path) -> None:
    """Save a picture of the window with 256 colors, which is a third of the size.

    They are chosen to cover all that there are: the rare ones are those of the signs of methods.
    """
    driver.save_screenshot(str(file))
    with Image.open(file) as picture:
        small = picture.convert("RGB").quantize(
            256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
        )
    small.save(file, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--home", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        studio = Studio(chosen.home or Path(folder) / "site")
        try:
            photograph(studio, chosen.out, chosen.names)
        finally:
            control.down(studio.site)


if __name__ == "__main__":
    main()
