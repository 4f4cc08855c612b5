"""Draws docs/architecture.svg and docs/spaces.svg: boxes and arrows from a list, no library.

`python -m docs_site.pictures` writes them; tests/project/test_docs_site.py compares them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"
TEXT, LINE, FILL, GOOD, BAD = "#1f2933", "#52606d", "#eef4f8", "#dff3e4", "#fbe3e4"


@dataclass(frozen=True)
class Box:
    """A box with lines of text; the first is its title."""

    x: int
    y: int
    width: int
    lines: Sequence[str]
    fill: str = FILL

    @property
    def height(self) -> int:
        """Its height in pixels, by the number of its lines."""
        return 18 + 18 * len(self.lines)

    def drawn(self) -> Iterator[str]:
        """Yield its elements."""
        yield (
            f'<rect x="{self.x}" y="{self.y}" width="{self.width}" height="{self.height}" rx="6" '
            f'fill="{self.fill}" stroke="{LINE}"/>'
        )
        for number, line in enumerate(self.lines):
            weight = ' font-weight="bold"' if number == 0 else ""
            x, y = self.x + self.width // 2, self.y + 24 + 18 * number
            yield f'<text x="{x}" y="{y}" text-anchor="middle"{weight}>{escape(line)}</text>'


@dataclass(frozen=True)
class Arrow:
    """A line with a head, and a label at its middle."""

    x1: int
    y1: int
    x2: int
    y2: int
    label: str = ""

    def drawn(self) -> Iterator[str]:
        """Yield its elements."""
        yield (
            f'<line x1="{self.x1}" y1="{self.y1}" x2="{self.x2}" y2="{self.y2}" stroke="{LINE}" '
            'stroke-width="1.5" marker-end="url(#head)"/>'
        )
        if self.label:
            x, y = (self.x1 + self.x2) // 2 + 6, (self.y1 + self.y2) // 2 + 4
            yield f'<text x="{x}" y="{y}" font-size="12">{escape(self.label)}</text>'


Part = Box | Arrow
ARCHITECTURE: Sequence[Part] = (
    Box(20, 20, 150, ("LangChain",)),
    Box(190, 20, 150, ("LlamaIndex",)),
    Box(360, 20, 150, ("Python",)),
    Box(530, 20, 150, ("HTTP server, page",)),
    Box(700, 20, 150, ("commands",)),
    Box(20, 100, 830, ("gateway of the task", "checks, batches, cache; one record for ledger, metrics, traces")),
    Box(20, 200, 830, ("chain", "which target, once more or not, how long: pure, without I/O or clock")),
    Box(20, 300, 830, ("guard of vector spaces", "compares vectors with the fingerprint of the model's space")),
    *(
        Box(20 + 140 * number, 400, 130, (kind, what))
        for number, (kind, what) in enumerate(
            (
                ("local", "this process"),
                ("hf", "providers"),
                ("endpoint", "Hugging Face"),
                ("tei", "your server"),
                ("openai", "vLLM, TGI, …"),
                ("ollama", "this machine"),
            )
        )
    ),
    Box(20, 500, 830, ("driver and HTTP", "performs each step, blocking or async; keys go to their own origin only")),
    *(Arrow(x, 56, x, 98) for x in (95, 265, 435, 605, 775)),
    Arrow(435, 154, 435, 198, "a request"),
    Arrow(435, 254, 435, 298, "an attempt"),
    Arrow(435, 354, 435, 398),
    Arrow(435, 454, 435, 498, "bytes"),
)
SPACES: Sequence[Part] = (
    Box(320, 20, 240, ("eight fixed texts", "as documents and as queries")),
    Box(20, 130, 250, ("model's own files", "or the first server that answered")),
    Box(320, 130, 240, ("tei:http://a", "same model, same pooling")),
    Box(610, 130, 250, ("openai:http://b", "same name, other pooling")),
    Box(20, 250, 250, ("fingerprint of the space", "one file, shared by all processes")),
    Box(320, 250, 240, ("cosine 1.000", "serves"), GOOD),
    Box(610, 250, 250, ("cosine 0.03", "quarantined: nothing is used"), BAD),
    Box(20, 360, 250, ("space.json beside an index", "compared when it is opened")),
    Arrow(320, 70, 170, 128),
    Arrow(440, 74, 440, 128),
    Arrow(560, 70, 710, 128),
    Arrow(145, 184, 145, 248, "measured"),
    Arrow(440, 184, 440, 248, "compared"),
    Arrow(735, 184, 735, 248, "compared"),
    Arrow(145, 304, 145, 358, "locks"),
)
PICTURES: Mapping[str, tuple[Sequence[Part], int, int]] = {
    "architecture.svg": (ARCHITECTURE, 870, 575),
    "spaces.svg": (SPACES, 880, 435),
}


def picture(name: str) -> str:
    """Return a picture as SVG."""
    parts, width, height = PICTURES[name]
    drawn = "\n".join(line for part in parts for line in part.drawn())
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="14" fill="{TEXT}">\n'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>\n'
        '<defs><marker id="head" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">'
        f'<path d="M0,0 L8,4 L0,8 z" fill="{LINE}"/></marker></defs>\n{drawn}\n</svg>\n'
    )


if __name__ == "__main__":
    for each in PICTURES:
        (DOCS / each).write_text(picture(each), "utf-8")
