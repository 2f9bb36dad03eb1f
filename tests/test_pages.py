"""The page is what a person looks at: it must work in a real browser, offline, at a desk and on a phone.

Pictures are left in the folder that `PICTURES` names, if it does; look at them after a change.
"""

import html.parser
import json
import os
import pathlib
import re

import browser
import keras
import pytest
from keras import layers

from keras_autoinit.diagnosis import diagnose

DESK, PHONE = (1280, 900), (390, 844)


def network(depth=20):
    """A chain of ReLU layers from Keras's own default, whose signal dies out, under names that must be escaped."""
    hidden = [
        layers.Dense(64, "relu", kernel_initializer=keras.initializers.GlorotUniform(seed=i), name=f"a<b>&'{i}")
        for i in range(depth)
    ]
    return keras.Sequential([keras.Input((64,)), *hidden, layers.Dense(3, name="head")], name="<script>")


@pytest.fixture(scope="module")
def report():
    return diagnose(network(26))


@pytest.fixture(scope="module")
def page(report, tmp_path_factory):
    return report.save_html(tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    if browser.find() is None:
        pytest.skip("No Chromium is installed (chromium, google-chrome), and CHROMIUM names none.")
    opened = browser.Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture
def pictures(tmp_path):
    folder = pathlib.Path(os.environ.get("PICTURES", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Outline(html.parser.HTMLParser):
    """Collects the tags, and complains of any that is not closed where it should be."""

    VOID = frozenset({"meta", "link", "br"})

    def __init__(self, text):
        super().__init__()
        self.tags, self._open = [], []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag


def test_every_tag_is_closed_and_nothing_comes_from_elsewhere(page):
    text = page.read_text()
    tags = Outline(text).tags
    assert not [value for _, given in tags for key, value in given.items() if key in ("src", "href") and "//" in value]
    assert "@import" not in text
    assert {"lang": "en"} in [given for tag, given in tags if tag == "html"]


def test_names_are_escaped_and_the_data_are_whole(page, report):
    text = page.read_text()
    assert "a<b>" not in text
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1]
    assert [row["path"] for row in json.loads(found)["rows"]] == [row.path for row in report.signals]


def test_a_file_is_not_overwritten_unless_told(report, tmp_path):
    target = tmp_path / "report.html"
    target.write_text("precious")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        report.save_html(target)
    assert target.read_text() == "precious"
    report.save_html(target, overwrite=True)
    assert "<!doctype html>" in target.read_text()
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("name", "size", "dark"), [("desk", DESK, False), ("phone", PHONE, False), ("dark", DESK, True)]
)
def test_it_opens_offline_without_a_word_and_fits(chromium, page, pictures, name, size, dark):
    chromium.complaints.clear()
    chromium.open(page, *size, dark=dark)
    chromium.picture(pictures / f"{name}.png", whole=True)
    assert chromium.complaints == []
    # Nothing but the table is wider than the screen.
    assert chromium.run("document.documentElement.scrollWidth") <= size[0]
    assert chromium.run("document.querySelectorAll('.panel svg path.measured').length") == 3
    assert (pictures / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_hovering_tells_the_numbers(chromium, page, report, pictures):
    chromium.open(page, *DESK)
    box = chromium.run(
        "(() => { const panel = document.querySelector('.panel svg'); panel.scrollIntoView({block: 'center'}); "
        "const box = panel.getBoundingClientRect(); return [box.x, box.y, box.width, box.height]; })()"
    )
    chromium.hover(box[0] + box[2] - 12, box[1] + box[3] / 2)
    told = chromium.run("document.getElementById('readout').innerText")
    assert told.startswith("head")
    assert "gradient (rms)" in told
    chromium.picture(pictures / "hover.png")


def test_the_keyboard_reaches_everything(chromium, page, report):
    chromium.open(page, *DESK)
    chromium.run("document.getElementById('figure').focus()")
    chromium.press("ArrowRight", "ArrowRight")
    assert chromium.run("document.getElementById('spoken').textContent").startswith(report.signals.rows[1].path)
    # A heading sorts, a layer opens, both by Enter.
    chromium.run("document.querySelectorAll('#layers thead button')[4].focus()")
    chromium.press("Enter")
    assert chromium.run("document.querySelectorAll('#layers thead th')[4].getAttribute('aria-sort')") == "ascending"
    order = chromium.run("[...document.querySelectorAll('tr.row')].map(row => Number(row.dataset.index))")
    spreads = [report.signals.rows[index].std for index in order]
    assert spreads == sorted(spreads)
    chromium.run("document.querySelector('#layers tbody th button').focus()")
    chromium.press("Enter")
    assert chromium.run("document.querySelectorAll('tr.more svg .bar').length") > 5
    focusable = "document.querySelectorAll('button, a[href], summary, [tabindex=\"0\"]')"
    assert chromium.run(f"[...{focusable}].every(each => each.tabIndex === 0)")


CONTRAST = """
(() => {
  const channel = (value) => (value /= 255) <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => 0.2126 * channel(rgb[0]) + 0.7152 * channel(rgb[1]) + 0.0722 * channel(rgb[2]);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = numbers(getComputedStyle(node).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const worst = {};
  for (const node of document.querySelectorAll("main *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || node.closest("#spoken")) continue;
    const style = getComputedStyle(node);
    const colour = numbers(node.namespaceURI.endsWith("svg") ? style.fill : style.color);
    const [a, b] = [light(colour), light(behind(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) worst[node.tagName + "." + node.getAttribute("class")] = ratio;
  }
  return worst;
})()
"""


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_what_is_behind_it(chromium, page, dark):
    # 4.5 to 1 is what WCAG 2 asks of small text.
    chromium.open(page, *DESK, dark=dark)
    assert chromium.run(CONTRAST) == {}
