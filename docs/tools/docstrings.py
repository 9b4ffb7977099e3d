"""Griffe extension: the house's docstrings, written to be read in a terminal, made ready for the site."""

import re
import textwrap

from griffe import Extension

EQUATION = re.compile(r"^( *)\.\. math::[ \n]*(.+?)(?=\n\s*\n|\Z)", re.MULTILINE | re.DOTALL)
INLINE_EQUATION = re.compile(r":math:`([^`]+)`")
CODE = re.compile(r"^( *)\.\. code-block:: *(\w+)\n\s*\n((?:\1 +.*(?:\n|\Z)|\s*\n)+)", re.MULTILINE)
CROSS_REFERENCE = re.compile(r":(?:attr|class|func|meth|mod):`~?([^`]+)`")
EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)
SECTION = re.compile(
    r"(?<!\n)\n(?=(?:Args|Attributes|Examples|Note|Raises|Returns|Shapes|Source|Yields):)", re.MULTILINE
)


class HouseStyle(Extension):
    """Directives and roles become what Markdown knows, and every section gets the empty line that the parser wants."""

    def on_object(self, *, obj, **_):
        if obj.docstring:
            text = CROSS_REFERENCE.sub(r"`\1`", obj.docstring.value)
            text = INLINE_EQUATION.sub(r"\\(\1\\)", EQUATION.sub(bracketed, text))
            text = EXAMPLE.sub("Examples:", CODE.sub(fenced, text))
            obj.docstring.value = SECTION.sub("\n\n", text)


def bracketed(match):
    indent, equation = match[1], " ".join(match[2].split())
    if "&" in equation and "\\begin" not in equation:  # several lines, aligned, as Sphinx understands them
        equation = rf"\begin{{split}} {equation} \end{{split}}"
    return f"{indent}\\[ {equation} \\]"


def fenced(match):
    indent, language, code = match.groups()
    return textwrap.indent(f"```{language}\n{textwrap.dedent(code).strip()}\n```\n", indent)
