"""Builds the site without a network: `python -m docs_site.build [FOLDER]`, by default into build/docs.

Sources with links of the site, zensical in its strict mode, every link and anchor of the result checked, llms.txt beside it.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from docs_site import sources

SITE = sources.ROOT / "build" / "docs"


def configuration(folder: Path) -> str:
    """Return mkdocs.yml, which is JSON, and so YAML too; zensical wants the folders relative to it.

    Args:
        folder: the sources, whose pages are listed.
    """
    sections = sources.contents(folder).items()
    navigation = [{heading: [{title: page} for page, title in pages.items()]} for heading, pages in sections]
    options = {
        "docstring_style": "google",
        "docstring_options": {"warn_unknown_params": False, "warn_missing_types": False},
        "show_root_heading": True,
        "show_source": False,
        "members_order": "source",
        "heading_level": 3,
        "show_if_no_docstring": False,
    }
    return json.dumps(
        {
            "site_name": "hf-gateway",
            "docs_dir": "sources",
            "site_dir": "site",
            "use_directory_urls": True,
            "theme": {
                "name": "material",
                "font": False,
                "features": ["navigation.sections", "content.code.copy"],
                "palette": [
                    {
                        "media": f"(prefers-color-scheme: {wanted})",
                        "scheme": scheme,
                        "toggle": {"icon": icon, "name": f"Switch to {other} mode"},
                    }
                    for wanted, scheme, icon, other in (
                        ("light", "default", "lucide/sun", "dark"),
                        ("dark", "slate", "lucide/moon", "light"),
                    )
                ],
            },
            "nav": navigation,
            "markdown_extensions": [
                "tables",
                "attr_list",
                "pymdownx.highlight",
                "pymdownx.superfences",
                {"toc": {"permalink": True}},
            ],
            "plugins": [
                "search",
                {
                    "mkdocstrings": {
                        "handlers": {
                            "python": {"paths": [str(sources.ROOT / "shared"), str(sources.ROOT)], "options": options}
                        }
                    }
                },
            ],
        },
        indent=1,
    )


class Page(HTMLParser):
    """The anchors of a page and where it leads."""

    def __init__(self) -> None:
        """Start with an empty page."""
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the anchors and links of an element."""
        for name, value in attrs:
            if value is not None and (name == "id" or (name == "name" and tag == "a")):
                self.anchors.add(value)
            elif value and name in ("href", "src") and tag != "base":
                self.links.append(value)


def broken_links(site: Path) -> Iterator[str]:
    """Yield each link of the site that leads nowhere within it.

    Args:
        site: the folder of the result.
    """
    pages: dict[Path, Page] = {}
    for path in sorted(site.rglob("*.html")):
        pages[path] = Page()
        pages[path].feed(path.read_text("utf-8"))
    for path, page in pages.items():
        if path.name == "404.html":
            continue
        for link in dict.fromkeys(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            goal = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            goal = goal / "index.html" if goal.is_dir() else goal
            anchor = unquote(parts.fragment)
            if not goal.exists():
                yield f"{path.relative_to(site)}: {link} leads nowhere"
            elif anchor and goal in pages and anchor not in pages[goal].anchors:
                yield f"{path.relative_to(site)}: {link} names an anchor that is not there"


def main(folder: Path) -> int:
    """Build the site; return 0 if everything holds."""
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    places = sources.write(folder / "sources")
    config = folder / "mkdocs.yml"
    config.write_text(configuration(folder / "sources"), "utf-8")
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "--config-file", str(config)]
    if status := subprocess.run(command, check=False, cwd=folder).returncode:
        return status
    for name, text in zip(("llms.txt", "llms-full.txt"), sources.llms(folder / "sources"), strict=True):
        (folder / "site" / name).write_text(text, "utf-8")
    broken = list(broken_links(folder / "site"))
    sys.stdout.write("".join(f"{each}\n" for each in broken))
    sys.stdout.write(f"{len(places)} pages in {folder / 'site'}, {len(broken)} broken links\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else SITE))
