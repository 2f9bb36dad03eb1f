"""The README is code and data too: its blocks run, and its table is the package's."""

import re
from pathlib import Path

from keras_autoinit.rendering import RECOMMENDATION_COLUMNS, markdown_table, recommendation_rows

README = Path(__file__).parent.parent / "README.md"
TABLE = re.compile(r"(<!-- the recommendation table.*?-->\n).*?(<!-- end of the table -->)", re.DOTALL)


def test_every_block_runs_in_order():
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) >= 2
    names = {}
    for block in blocks:
        exec(block, names)


def test_what_the_first_block_says_it_prints(capsys):
    block = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)[1]
    exec(block, {})
    promised = re.findall(r"print\(plan\[.*?\)  # (.*)", block)
    assert capsys.readouterr().out.splitlines()[: len(promised)] == promised


def test_the_table_is_the_modules(regenerate):
    expected = markdown_table(RECOMMENDATION_COLUMNS, recommendation_rows())
    text = README.read_text()
    if regenerate:
        README.write_text(TABLE.sub(lambda found: f"{found[1]}{expected}\n{found[2]}", text))
    else:
        assert TABLE.search(text)[0].split("\n", 1)[1].rsplit("\n", 1)[0] == expected
