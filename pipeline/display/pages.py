"""Web pages of one file each, which contain their styles, pictures and charts.

Jinja2 fills the templates of `templates/`. It escapes everything except the HTML that the filters
below make. A page has no script and loads nothing from the network.
"""

import base64
import html
import io
import math
from typing import Any

from markupsafe import Markup
from PIL import Image

from pipeline.display import figures

SHOWN_PIXELS = 540  # small pictures are enlarged up to this width, by whole factors
ACRONYMS = ("dci", "elbo", "irs", "iw", "kl", "mig", "sap", "udr", "vae", "vq")


def render(template: str, **values: Any) -> str:
    """Returns the page that a file of `templates/` makes of `values`."""
    import jinja2  # here: a training start doesn't need it

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline.display"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number, "words": words, "describe": describe, "markdown": markdown,
        "picture": picture, "svg": Markup,
    }  # fmt: skip
    return environment.get_template(template).render(**values)


def number(value: float | None) -> str:
    """Returns four significant digits, or all before the point; "–" for None and NaN."""
    if value is None or math.isnan(value):
        return "–"
    whole = 1000 <= abs(value) < math.inf
    text = f"{abs(value):,.1f}".removesuffix(".0") if whole else f"{abs(value):.4g}"
    return f"−{text}" if value < 0 else text


def words(name: str) -> str:
    """Returns a figure's name as a person writes it."""
    parts = name.split("_")
    return " ".join(part.upper() if part in ACRONYMS else part for part in parts)


def describe(name: str) -> str:
    """Returns what TensorBoard says of a figure, its unit included; "" of an unknown one."""
    return figures.of(name).text


def markdown(text: str) -> Markup:
    """Returns Markdown as HTML, in which HTML of the source is text."""
    import markdown as library

    return Markup(library.markdown(html.escape(text, quote=False), extensions=["tables"]))


def picture(content: bytes, name: str) -> Markup:
    """Returns an `img` element that contains the PNG or GIF, enlarged if it is small."""
    with Image.open(io.BytesIO(content)) as file:
        width = file.width * max(1, SHOWN_PIXELS // file.width)
    kind = "image/gif" if content.startswith(b"GIF") else "image/png"
    data = base64.b64encode(content).decode()
    return Markup('<img src="data:{};base64,{}" width="{}" alt="{}">').format(
        kind, data, width, words(name)
    )
