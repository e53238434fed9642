"""Web pages of one file each, which contain their styles, pictures and charts.

Jinja2 fills the templates of `templates/`. It escapes everything except the HTML that the filters
below make. A page has no script and loads nothing from the network.
"""

import base64
import io
import math
from typing import Any

from markupsafe import Markup
from PIL import Image

from pipeline.display import figures, texts

OF_REPORT = {
    "step": "Training steps of the checkpoint.",
    "examples": "Held-out examples that were evaluated.",
}
SHOWN_PIXELS = 540  # small pictures are enlarged up to this width, by whole factors
# Names of the Markdown library's patterns that make links and pictures.
LINKS = {
    "reference", "link", "image_link", "image_reference", "short_reference", "short_image_ref",
    "autolink", "automail", "html",
}  # fmt: skip
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
    page = environment.get_template(template).render(**values)
    return "\n".join(map(plain, page.split("\n")))


def number(value: float | None) -> str:
    """Returns four significant digits, or all before the point; "–" for None and NaN."""
    if value is None or math.isnan(value):
        return "–"
    whole = 1000 <= abs(value) < math.inf
    text = f"{abs(value):,.1f}".removesuffix(".0") if whole else f"{abs(value):.4g}"
    return f"−{text}" if value < 0 else text


def plain(text: str) -> str:
    """Returns the text without what no page can hold: control characters, and halves of pairs."""
    return texts.visible(str(text))


def words(name: str) -> str:
    """Returns a figure's name as a person writes it."""
    parts = name.replace("_", " ").split(" ")
    return " ".join(part.upper() if part in ACRONYMS else part for part in parts)


def describe(name: str) -> str:
    """Returns what TensorBoard says of a figure, its unit included; "" of an unknown one."""
    return OF_REPORT.get(name) or figures.of(name).text


def markdown(text: str) -> Markup:
    """Returns Markdown as HTML: HTML of the source is text, and so are its links and pictures.

    What a run says may contain names that others chose. So it can neither run nor load anything.
    """
    import markdown as library

    reader = library.Markdown(extensions=["tables"])
    for name in LINKS:
        reader.inlinePatterns.deregister(name, strict=False)
    reader.parser.blockprocessors.deregister("reference")
    return Markup(reader.convert(texts.inert(text)))


def picture(content: bytes, name: str) -> Markup:
    """Returns an `img` element that contains the PNG or GIF, enlarged if it is small."""
    with Image.open(io.BytesIO(content), formats=("PNG", "GIF")) as file:
        factor = max(1, SHOWN_PIXELS // file.width)
        width = file.width * factor
        kind = f"image/{str(file.format).lower()}"
    data = base64.b64encode(content).decode()
    # A large picture that a narrow screen makes smaller keeps its texts readable if it is smoothed.
    sharp = "sharp" if factor > 1 else ""
    return Markup('<img src="data:{};base64,{}" width="{}" class="{}" alt="{}">').format(
        kind, data, width, sharp, describe(name) or words(name)
    )
