import html.parser

import pytest

from pipeline.display import pages, summaries

PAYLOADS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[x](javascript:alert(1))",
    "![x](http://127.0.0.1/x.png)",
    "[x]: javascript:alert(1)\n\n[x]",
    "[x][y]\n\n[y]: javascript:alert(1) 'title'",
    "<javascript:alert(1)>",
    "<http://127.0.0.1>",
    "`<script>`",
    "| <svg onload=alert(1)> |\n|---|\n| [x](javascript:alert(1)) |",
    "    <script>alert(1)</script>",
    "&lt;script&gt;&#60;script&#62;",
]


class Tags(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}


@pytest.mark.parametrize("text", PAYLOADS)
def test_markdown_of_a_run_can_neither_run_nor_load_anything(text):
    found = Tags(str(pages.markdown(text)))
    assert found.tags <= {"p", "code", "pre", "table", "thead", "tbody", "tr", "th", "td"}
    assert found.attributes <= {"style"}


@pytest.mark.parametrize("text", PAYLOADS)
def test_what_tensorboard_renders_as_markdown_is_escaped_too(text):
    import markdown

    (written,) = summaries.value("config", text).tensor.string_val
    found = Tags(markdown.markdown(written.decode(), extensions=["tables"]))
    assert found.tags <= {"p", "code", "pre", "table", "thead", "tbody", "tr", "th", "td"}


def test_numbers_have_four_digits_or_all_before_the_point():
    values = (0.123456, -12.3456, 123456.78, 20.0, float("nan"), None)
    texts = ["0.1235", "−12.35", "123,456.8", "20", "–", "–"]
    assert [pages.number(value) for value in values] == texts
