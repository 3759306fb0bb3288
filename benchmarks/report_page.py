"""The report's page in Chromium: how fast it opens, filters, sorts and scrolls.

    python benchmarks/report_page.py [--prompts 10000] [--policies 5] [--words 60] [--keep FOLDER]
    python benchmarks/report_page.py --pages BEFORE.html AFTER.html

The content of a comparison is made up (``tests/evaluation/comparison/content_maker.py``), written
as a page and opened in a headless browser without a network. A filter's latency is from the letter
typed to the frame that shows its result: all responses of all policies are searched.
``filter_cpu_ms`` is the processor time of all processes of the browser for a letter, which other
work on the machine does not change.
``--pages`` opens pages that are there, in turns, and gives of each its size and the median time to
its first paint.
The last line is one JSON object, times in milliseconds; progress goes to standard error. Needs
chromium and chromedriver.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import runpy
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil

# A benchmark beside this one has the package's name, and Python looks beside a script first.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]

from evaluation.comparison import page

MAKER = (
    Path(__file__).resolve().parents[1] / "tests" / "evaluation" / "comparison" / "content_maker.py"
)
QUERIES = ("umbrella", "thirty days", '"free of charge"', "question 77", "zebra", "the order")
FILTERS = (
    ("outcome", ("win", "loss", "tie", "")),
    ("subset", ("returns", "prices", "")),
    ("flag", ("cut", "missing", "different", "")),
)
ORDERS = ("gain", "loss", "apart", "high", "low", "")

#: Sets a field as typing does, and answers when the browser has drawn the frame after it.
_CHANGE = """
const [id, value, done] = arguments;
const field = document.getElementById(id);
const started = performance.now();
field.value = value;
field.dispatchEvent(new Event("input", { bubbles: true }));
const worked = performance.now() - started;
requestAnimationFrame(() => {
  const channel = new MessageChannel();
  channel.port1.onmessage = () => done([worked, performance.now() - started,
    document.getElementById("count").textContent]);
  channel.port2.postMessage(0);
});
"""
#: Scrolls the list by a step a frame, and answers the time of each frame.
_SCROLL = """
const [frames, step, done] = arguments;
const list = document.getElementById("list");
list.scrollTop = 0;
const times = [];
let last = performance.now();
requestAnimationFrame(function next(now) {
  times.push(now - last);
  last = now;
  list.scrollTop += step;
  if (times.length < frames) requestAnimationFrame(next);
  else done([times.slice(2), document.querySelectorAll(".row").length, list.scrollTop]);
});
"""
_NEXT = """
const done = arguments[0];
const started = performance.now();
document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "j", bubbles: true }));
const worked = performance.now() - started;
requestAnimationFrame(() => {
  const channel = new MessageChannel();
  channel.port1.onmessage = () => done([worked, performance.now() - started, ""]);
  channel.port2.postMessage(0);
});
"""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def quantiles(name: str, times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    return {
        f"{name}_p50_ms": round(statistics.median(ordered), 1),
        f"{name}_p95_ms": round(p95, 1),
        f"{name}_max_ms": round(ordered[-1], 1),
    }


def browser(script_seconds: float = 120):
    from selenium import webdriver

    binary = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
    path = shutil.which("chromedriver")
    if binary is None or path is None:
        sys.exit("This needs chromium and chromedriver.")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for option in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--window-size=1400,1000", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ):  # fmt: skip
        options.add_argument(option)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(path))
    driver.set_script_timeout(script_seconds)
    return driver


def wait(driver, mark: str) -> float:
    end = time.monotonic() + 120
    script = f"return performance.getEntriesByName('{mark}')[0]?.startTime ?? null"
    while (value := driver.execute_script(script)) is None:
        if time.monotonic() > end:
            sys.exit(f"The page did not come to {mark}.")
        time.sleep(0.05)
    return round(value, 1)


def first_paint(driver) -> float:
    paint = (
        "return performance.getEntriesByType('paint')"
        ".find(e => e.name === 'first-contentful-paint')?.startTime ?? null"
    )
    while (value := driver.execute_script(paint)) is None:
        time.sleep(0.05)
    return round(value, 1)


def compared(files: list[Path], times: int) -> dict[str, dict[str, object]]:
    """Return the size of each page, and of its first paint the median and all times, in order."""
    paints: dict[Path, list[float]] = {file: [] for file in files}
    driver = browser()
    try:
        for number in range(times + 1):
            for file in files if number % 2 else reversed(files):
                driver.get(file.resolve().as_uri())
                if number:  # the browser's own start is not the page's
                    paints[file].append(first_paint(driver))
    finally:
        driver.quit()
    return {
        str(file): {
            "bytes": file.stat().st_size,
            "first_paint_ms": statistics.median(paints[file]),
            "all_ms": sorted(paints[file]),
        }
        for file in files
    }


def opened(driver, url: str) -> dict[str, float]:
    driver.get(url)
    ready = wait(driver, "responses-ready")
    drawn = wait(driver, "charts-drawn")
    return {
        "first_paint_ms": first_paint(driver),
        "interactive_ms": ready,
        "charts_drawn_ms": drawn,
    }


def computed(driver) -> float:
    """Return the CPU seconds of the browser so far, all its processes together."""
    family = psutil.Process(driver.service.process.pid).children(recursive=True)
    return sum(sum(process.cpu_times()[:2]) for process in family)


def typed(driver) -> tuple[list[float], list[float]]:
    """Type every query letter by letter, then take it away again."""
    worked, shown = [], []
    for query in QUERIES:
        parts = [query[:length] for length in range(1, len(query) + 1)]
        for part in [*parts, *reversed(parts[:-1]), ""]:
            script, frame, count = driver.execute_async_script(_CHANGE, "search", part)
            worked.append(script)
            shown.append(frame)
            if part == query:
                say(f"  {query!r}: {count}, {script:.1f} ms, {frame:.1f} ms to the frame")
    return worked, shown


def changed(driver, fields) -> list[float]:
    return [
        driver.execute_async_script(_CHANGE, field, value)[1]
        for _ in range(3)
        for field, values in fields
        for value in values
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=10_000)
    parser.add_argument("--policies", type=int, default=5)
    parser.add_argument("--words", type=int, default=60)
    parser.add_argument("--keep", type=Path, help="write the page here, and leave it")
    parser.add_argument("--pages", type=Path, nargs="+", help="open these, and write none")
    parser.add_argument("--times", type=int, default=9, help="how often each of them is opened")
    options = parser.parse_args()
    if options.pages:
        print(json.dumps(compared(options.pages, options.times) | {"load": os.getloadavg()[0]}))
        return
    maker = runpy.run_path(str(MAKER))
    content = maker["content"](
        prompts=options.prompts, words=options.words, sampled=options.policies
    )
    letters = sum(len(a["text"]) for c in content["samples"]["responses"].values() for a in c if a)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        started = time.monotonic()
        page.write(content, folder)
        written = time.monotonic() - started
        file = folder / "report.html"
        say(f"wrote {file.stat().st_size / 1e6:.1f} MB in {written:.1f} s")
        driver = browser()
        try:
            metrics = measure(driver, file.resolve().as_uri(), options.policies)
        finally:
            driver.quit()
        head = {
            "prompts": options.prompts,
            "policies": options.policies,
            "answer_megabytes": round(letters / 1e6, 1),
            "file_megabytes": round(file.stat().st_size / 1e6, 2),
            "write_seconds": round(written, 1),
        }
    tail = {
        "filter_target_ms": 100,
        "filter_within_target": metrics["filter_p95_ms"] < 100,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(head | metrics | tail))


def measure(driver, url: str, policies: int) -> dict[str, float]:
    opened(driver, url)  # the browser's own start is not the page's
    metrics: dict[str, float] = dict(opened(driver, url))
    say(f"  {metrics}")
    while driver.execute_script(
        "const add = document.querySelector('[data-does=add]'); add?.click(); return !!add"
    ):
        pass
    columns = driver.execute_script("return document.querySelectorAll('#columns select').length")
    if columns != policies:
        sys.exit(f"{columns} policies are shown and not {policies}.")
    first = driver.execute_async_script(_CHANGE, "search", "u")
    metrics["first_letter_ms"] = round(first[1], 1)
    before = computed(driver)
    worked, shown = typed(driver)
    metrics["filter_cpu_ms"] = round(1000 * (computed(driver) - before) / len(shown), 1)
    metrics |= quantiles("filter", shown) | quantiles("filter_script", worked)
    metrics["letters_typed"] = len(shown)
    metrics |= quantiles("choice", changed(driver, FILTERS))
    metrics |= quantiles("sort", changed(driver, [("order", ORDERS)]))
    metrics |= quantiles("next_sample", [driver.execute_async_script(_NEXT)[1] for _ in range(60)])
    times, rows, top = driver.execute_async_script(_SCROLL, 300, 900)
    metrics |= quantiles("scroll_frame", times)
    metrics["frames_over_34_ms"] = round(sum(t > 34 for t in times) / len(times), 4)
    metrics["rows_drawn"] = rows
    metrics["scrolled_pixels"] = top
    heap = driver.execute_script("return performance.memory?.usedJSHeapSize ?? null")
    metrics["heap_megabytes"] = round(heap / 1e6, 1) if heap else None
    return metrics


if __name__ == "__main__":
    main()
