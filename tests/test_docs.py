"""The documentation is code too: its blocks run, page by page, and print what the comments beside them say."""

import re
from pathlib import Path

import pytest

PAGES = sorted((Path(__file__).parent.parent / "docs").glob("*.md"))
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_runs_in_order_and_prints_what_it_says(page, capsys):
    text = page.read_text()
    names = {}
    for block in BLOCK.findall(text):
        exec(block, names)
    promised = re.findall(r"^print\(.*\)  # (.*)$", "\n".join(BLOCK.findall(text)), re.MULTILINE)
    assert capsys.readouterr().out.splitlines() == promised


def test_there_are_pages():
    assert PAGES
