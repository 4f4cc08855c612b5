"""The site's sources: the pages of the repository with links that hold within the site."""

import ast
import posixpath
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from docs_site.contents import API, CONTENTS

ROOT = Path(__file__).resolve().parents[1]
_LINK = re.compile(r"(?P<mark>!?)\[(?P<text>[^]\n]*)\]\((?P<link>[^)\s]+)\)")
AT_THE_TOP = ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
IMAGES = {".svg", ".png", ".jpg"}


def place_of(path: Path) -> str | None:
    """Return where a file of the repository is within the site; None if it is not a part of it.

    Args:
        path: the file, which exists.
    """
    name = path.relative_to(ROOT).as_posix()
    if name == "README.md":
        return "index.md"
    if name in AT_THE_TOP:
        return name
    if name.startswith("docs/") and (path.suffix == ".md" or path.suffix in IMAGES):
        return name.removeprefix("docs/")
    if name.startswith("benchmarks/results/") and (path.suffix == ".md" or path.suffix in IMAGES):
        return name.removeprefix("benchmarks/")
    if name == "examples" or (name.startswith("examples/") and path.suffix == ".py"):
        return f"examples.md{'#' + path.stem.replace('_', '-') if path.is_file() else ''}"
    return None


def pages() -> Iterator[tuple[Path, str]]:
    """Yield each file that is copied, and where it goes."""
    names = ["README.md", *AT_THE_TOP]
    folders = [path for folder in ("docs", "benchmarks/results") for path in (ROOT / folder).rglob("*")]
    for path in [*(ROOT / name for name in names), *sorted(folders)]:
        if path.is_file() and (place := place_of(path)) is not None:
            yield path, place


def rewritten(text: str, page: Path, place: str) -> str:
    """Return a page with the links of the site; a link to a file that is not a part of it becomes the file's name.

    Args:
        text: the page.
        page: its file in the repository.
        place: where it goes.

    Raises:
        ValueError: a link leads nowhere.
    """

    def link(found: re.Match[str]) -> str:
        name, _, anchor = found["link"].partition("#")
        if re.match(r"[a-z]+:", found["link"]) or not name:
            return found[0]
        file = (page.parent / name).resolve()
        if not file.exists():
            raise ValueError(f"{page.relative_to(ROOT)}: {found['link']} leads nowhere")
        goal = place_of(file)
        if goal is None:
            text = found["text"]
            return text if text.startswith("`") else f"`{text}`"
        goal, _, own = goal.partition("#")
        relative = posixpath.relpath(goal, posixpath.dirname(place) or ".")
        anchor = anchor or own
        return f"{found['mark']}[{found['text']}]({relative}{'#' + anchor if anchor else ''})"

    fences = re.split(r"(^```.*?^```[^\n]*$)", text, flags=re.DOTALL | re.MULTILINE)
    return "".join(each if each.startswith("```") else _LINK.sub(link, each) for each in fences)


def examples() -> str:
    """Return the page with the programs of examples/."""
    lines = ["# Whole programs", "", "Each is run by a test. Set `OLLAMA_HOST`, or change the targets."]
    for path in sorted((ROOT / "examples").glob("*.py")):
        lines += ["", f"## {path.stem.replace('_', '-')}", "", f"```python\n{path.read_text('utf-8').rstrip()}\n```"]
    return "\n".join(lines) + "\n"


def api() -> str:
    """Return the page that mkdocstrings fills: each public name, from the module that defines it."""
    lines = ["# Python", "", "What is public, read from the source; nothing is imported for it."]
    for module, file in API.items():
        lines += ["", f"## {module}"]
        for name, home in sorted(public_names(ast.parse((ROOT / file).read_text("utf-8"))).items()):
            lines += ["", f"::: {f'{module}.{home}' if home else module}.{name}"]
    return "\n".join(lines) + "\n"


def public_names(tree: ast.Module) -> dict[str, str]:
    """Return the public names of a module with the submodule that defines each, or "" for its own.

    Args:
        tree: the module; one that loads its names when they are used has them in `_HOME`.
    """
    for node in tree.body:
        if isinstance(node, ast.Assign) and [each.id for each in node.targets if isinstance(each, ast.Name)] == [
            "_HOME"
        ]:
            home: dict[str, str] = ast.literal_eval(node.value)
            return home
    own = (node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef))
    return dict.fromkeys((name for name in own if not name.startswith("_")), "")


def write(folder: Path) -> list[str]:
    """Write the sources into a folder; return the places of all pages.

    Raises:
        ValueError: a link leads nowhere, or a page of the contents is not there.
    """
    shutil.rmtree(folder, ignore_errors=True)
    places = []
    for path, place in pages():
        goal = folder / place
        goal.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".md":
            goal.write_text(rewritten(path.read_text("utf-8"), path, place), "utf-8")
            places.append(place)
        else:
            shutil.copyfile(path, goal)
    for place, text in (("examples.md", examples()), ("api.md", api())):
        (folder / place).write_text(text, "utf-8")
        places.append(place)
    if missing := {page for section in CONTENTS.values() for page in section} - set(places):
        raise ValueError(f"docs_site/contents.py lists {sorted(missing)}, which are not there")
    return places


def contents(folder: Path) -> dict[str, dict[str, str]]:
    """Return heading → page → title, with the pages that the contents lack under `More`.

    Args:
        folder: the sources.
    """
    listed = {page for section in CONTENTS.values() for page in section}
    more = {path.name: title(path) for path in sorted(folder.glob("*.md")) if path.name not in listed}
    return {heading: dict(section) for heading, section in CONTENTS.items()} | ({"More": more} if more else {})


def title(path: Path) -> str:
    """Return the first heading of a page."""
    return path.read_text("utf-8").partition("\n")[0].removeprefix("# ")


def llms(folder: Path) -> tuple[str, str]:
    """Return `llms.txt`, a line for each page, and `llms-full.txt`, the pages one after the other.

    Args:
        folder: the sources.
    """
    lines = [
        "# hf-gateway",
        "",
        "> Hugging Face models behind LangChain, LlamaIndex and HTTP, over a chain of targets.",
        "",
    ]
    whole = []
    for heading, section in contents(folder).items():
        lines += [f"## {heading}", ""]
        for place, title in section.items():
            text = (folder / place).read_text("utf-8")
            lines.append(
                f"- [{title}]({'' if place == 'index.md' else place.removesuffix('.md') + '/'}): {summary(text)}"
            )
            if place not in ("api.md", "CHANGELOG.md"):
                parts = sorted(
                    (folder / place).with_suffix("").glob("*.md")
                )  # a page each, such as those of the errors
                whole += [text, *(part.read_text("utf-8") for part in parts)]
        lines.append("")
    return "\n".join(lines), "\n\n".join(whole)


def summary(text: str) -> str:
    """Return the first sentence of a page."""
    paragraphs = [each for each in re.split(r"\n\s*\n", text) if each.strip() and not re.match(r"[#|<!`]", each)]
    first = " ".join(paragraphs[0].split()) if paragraphs else ""
    plain = _LINK.sub(lambda found: found["text"], first)
    return re.split(r"(?<=[.:])\s", plain)[0]
