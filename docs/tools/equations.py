"""MkDocs hook: turn the TeX that arithmatex marked into MathML, which browsers draw without any script."""

import html
import re

from latex2mathml.converter import convert

MARKED = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(content, **_):
    return MARKED.sub(to_mathml, content)


def to_mathml(match):
    display = "block" if match[2] == "[" else "inline"
    return convert(html.unescape(match[3]).strip(), display=display)
