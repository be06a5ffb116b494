"""The dashboard in a real Chromium: what it shows, to whom, and what it does without a coordinator."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from edldist.coordinator.pages.dashboard_files import dashboard
from edldist.keys.open_link import INSECURE, LOCAL, SEALED, link_words
from edldist.observe.states import STYLES
from edldist.wire.messages import History
from edldist.wording import duration, number, rate, share
from tests.browser.chromium import Browser, chromium
from tests.browser.staged import INJECTED, Staged, staged

pytestmark = pytest.mark.timeout(600)

CONTRAST = Path(__file__).with_name("contrast.js").read_text(encoding="utf-8")
READY = (
    "document.querySelectorAll('#charts figure').length === 6 && "
    "document.querySelectorAll('#workers tbody tr').length > 5"
)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Staged]:
    with staged(tmp_path_factory.mktemp("staged")) as running:
        yield running


@pytest.fixture(scope="module")
def browser(job: Staged) -> Iterator[Browser]:
    binary = chromium()
    if binary is None:
        pytest.skip("no Chromium, and no apt to install it from (Debian: chromium)")
    with Browser(binary) as running:
        running.go(f"http://{job.http}/")
        running.until(READY, "the page")
        yield running


def told(job: Staged) -> History:
    assert job.running is not None
    return job.running.coordinator._history.tell()


def whole(history: History) -> list[float | None]:
    assert history.whole is not None
    return list(history.whole.samples_per_s)


def table_of(browser: Browser, title: str) -> list[list[str]]:
    """A chart's figures, as its table has them: the headings, then rows, the latest first."""
    rows: list[list[str]] = browser.value(
        f"""(async () => {{
          const figure = [...document.querySelectorAll('#charts figure')]
            .find((each) => each.querySelector('h3').textContent.startsWith({json.dumps(title)}));
          figure.querySelector('details').open = true;
          await new Promise((done) => setTimeout(done, 50));
          return [...figure.querySelectorAll('details tr')]
            .map((row) => [...row.cells].map((cell) => cell.textContent));
        }})()"""
    )
    return rows


def test_the_charts_have_the_values_of_the_history(browser: Browser, job: Staged) -> None:
    history = told(job)
    assert history.whole is not None
    taken = {rate(value) for value in (*history.recent.samples_per_s, *history.whole.samples_per_s)}
    heading, *rows = table_of(browser, "Throughput")
    assert heading == ["time", "taken by the students", "made by the teacher"] and len(rows) > 30
    # What came since the page asked last is not in it; a row that is known has a value of the history's.
    assert {row[1] for row in rows} <= taken | {rate(value) for value in told(job).recent.samples_per_s}
    assert {row[1] for row in rows} & {rate(value) for value in history.recent.samples_per_s[:300]}
    heading, *rows = table_of(browser, "loss")
    assert heading == ["time", "loss", "kd_loss"]
    (loss,) = (figure for figure in history.figures if figure.name == "loss")
    assert {row[1] for row in rows} <= {number(value) for value in loss.value if value is not None}
    assert rows[0][1] == number(loss.value[-1])
    path = browser.value("document.querySelector('#charts .line.s0').getAttribute('d')")
    drawn = len(re.findall("[ML]", path))
    assert abs(drawn - len(history.recent.t) - sum(t < history.recent.t[0] for t in history.whole.t)) < 30


def test_it_says_who_is_here_in_the_words_of_the_terminal(browser: Browser, job: Staged) -> None:
    browser.until("document.querySelector('#students .chip.good')", "a rank that trains")
    text = browser.value("document.querySelector('#workers').innerText")
    for words in (
        "labels",
        "leaving",
        "left out",
        "gets no work: its model keeps failing",
        "gpu-1",
        "cuda:0",
    ):
        assert words in text
    assert "trains" in browser.value("document.querySelector('#students').innerText")
    styles = dashboard()["/dashboard/style.css"].body.decode()
    assert all(f".chip.{tone} " in styles or tone == "quiet" for tone in STYLES)
    assert "teacher resnet101-3 lost (silent for 3.1 s)" in browser.value(
        "document.querySelector('#events').innerText"
    )


def test_it_says_whether_others_may_take_part(browser: Browser, job: Staged) -> None:
    """As ``edldist status`` does, in the same words."""
    assert job.running is not None
    for link in (SEALED, INSECURE, LOCAL):
        shown = link_words(link) if link == INSECURE else link
        job.running.coordinator._view._link = lambda link=link: link  # type: ignore[method-assign]
        browser.until(f"document.getElementById('link').textContent === {json.dumps(shown)}", link)
        assert browser.value("document.getElementById('link').title") == link_words(link)
        assert browser.value("getComputedStyle(document.getElementById('link')).display") != "none"


def test_what_others_named_is_shown_and_not_obeyed(browser: Browser) -> None:
    assert INJECTED in browser.value("document.querySelector('#workers').innerText")
    assert browser.value("document.images.length") == 0
    assert "images" in browser.value("document.title")


def test_numbers_are_those_of_the_terminal(browser: Browser) -> None:
    values = [0, 1, 12, 0.5, 0.123456, 1234.5678, 999_999.5, 1e6 + 0.5, 1e-7, -2.5e-5, 99.96, 123_456.0]
    for name, ours in (("number", number), ("rate", rate), ("share", share), ("duration", duration)):
        chosen = [float(value) for value in values if value >= 0 or name == "number"]
        theirs = browser.value(
            f"import('/dashboard/format.js').then((words) => {json.dumps(chosen)}.map(words.{name}))"
        )
        assert theirs == [ours(value) for value in chosen], name


def test_people_who_do_not_see_it_hear_what_there_is(browser: Browser) -> None:
    heard = browser.accessible()
    names = {
        role: [each["name"] for each in heard if each["role"] == role] for role in {e["role"] for e in heard}
    }
    assert {"banner", "main", "contentinfo"} <= names.keys()
    pictures = names["image"] if "image" in names else names["img"]
    assert len(pictures) == 7 and all(pictures)
    assert any(re.match(r"Throughput, .*taken by the students: now \d", name) for name in pictures)
    assert any(re.match(r"\d+ events from .* trouble", name) for name in pictures)
    assert any(name.startswith("Teacher workers; ") for name in names["table"])
    assert {"images", "Over time", "Teacher workers", "Student ranks"} <= set(names["heading"])
    assert all(names["button"]) and all(names["radio"]) and all(names["columnheader"])
    assert browser.value("document.querySelector('#connection').getAttribute('role')") == "status"
    assert browser.value("document.documentElement.lang") == "en"


def test_keys_do_what_the_mouse_does(browser: Browser) -> None:
    browser.value("document.activeElement.blur()")
    browser.press("Tab")
    assert browser.value("document.activeElement.className") == "skip"
    browser.value("document.querySelector('#charts .picture').focus()")
    for _ in range(3):
        browser.press("ArrowLeft")
    said = browser.value("document.querySelector('#charts figure [aria-live]').textContent")
    assert re.match(r"\d\d:\d\d:\d\d, taken by the students \d+", said)
    shown = "[...document.querySelectorAll('#charts .readout')].filter((each) => !each.hidden).length"
    assert browser.value(shown) > 1  # all charts show that moment
    browser.press("Escape")
    assert browser.value(shown) == 0
    browser.value("document.querySelectorAll('#workers thead button')[3].focus()")
    browser.press("Enter")
    sorted_by = "[...document.querySelectorAll('#workers [aria-sort]')].map((e) => [e.innerText, e.ariaSort])"
    assert browser.value(sorted_by) == [["samples/s", "descending"]]
    browser.value("document.querySelector('#charts .picture').scrollIntoView()")
    box = browser.value(
        "(({x, y, width, height}) => [x + width / 2, y + height / 2])"
        "(document.querySelector('#charts .picture').getBoundingClientRect())"
    )
    browser.point(*box)
    browser.until(shown, "the cursor of the mouse")
    browser.point(1, 1)
    browser.until(f"{shown} === 0", "its end")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(browser: Browser, scheme: str) -> None:
    browser.media(prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
    assert browser.value(CONTRAST) == []
    ground = browser.value("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]")
    assert (ground > 128) == (scheme == "light")
    assert browser.value("getComputedStyle(document.querySelector('.charts')).transitionDuration") == "0s"
    browser.media()


def test_it_fits_a_telephone(browser: Browser) -> None:
    browser.size(400, 800)
    browser.until("document.querySelector('#charts svg').clientWidth < 400", "narrower charts")
    assert browser.value("document.documentElement.scrollWidth") <= 400
    browser.size(1280, 900)


def test_it_asks_nobody_else_and_complains_of_nothing(browser: Browser, job: Staged) -> None:
    browser.until("performance.getEntriesByName(location.origin + '/status').length > 2", "its questions")
    assert len(browser.asked) > 10
    assert all(address.startswith(f"http://{job.http}/") for address in browser.asked), browser.asked
    assert browser.complaints == []


def test_it_outlives_the_coordinator(browser: Browser, job: Staged) -> None:
    """The last one: it breaks the job for the others."""
    before = told(job)
    job.stop()
    browser.until("!document.querySelector('#stale').hidden", "word that nobody answers")
    assert browser.value("document.querySelector('#connection').textContent") == "out of date"
    assert "what is shown is out of date" in browser.value("document.querySelector('#stale').textContent")
    browser.complaints.clear()  # the browser's own words for a coordinator that does not answer
    job.start()
    browser.until(
        "document.querySelector('#connection').textContent === 'live'", "a new coordinator's answer"
    )
    assert browser.value("document.querySelector('#stale').hidden")
    browser.until("document.querySelector('#events').innerText.includes('coordinator started')", "its start")
    after = told(job)
    assert after.incarnation != before.incarnation and after.began_s == before.began_s
    _, *rows = table_of(browser, "Throughput")
    assert len(rows) > 30 and rows[-1][1] in {
        rate(value) for value in before.recent.samples_per_s + whole(before)
    }
