"""The library for models in browsers as the page has it: at hand as `lib` in the console of an open page."""

import re
from typing import TYPE_CHECKING, Any

from tests.page_build import BUILT

if TYPE_CHECKING:
    from tests.support.page_views import Views

(_CHUNK,) = (path.name for path in (BUILT / "assets").glob("browser-*.js"))
_LIBRARY = f"""import(new URL("assets/{_CHUNK}", document.baseURI)).then((lib) => {{
  globalThis.lib = lib;
  globalThis.root = new URL("..", document.baseURI).href;
  globalThis.failure = (work) => work.then(() => null, (error) => ({{ code: error.code, message: error.message }}));
}})"""


def load_library(views: "Views") -> None:
    """Put the library at `lib`, the server's address at `root`, and at `failure` what returns the error of a promise."""
    views.page.evaluate(_LIBRARY)


def library_block(code: str) -> str:
    """Return JavaScript of the documentation, as it runs where the library is `lib`."""
    return re.sub(r'import (\{[^}]*\}) from "hf-gateway-client/browser";', r"const \1 = lib;", code)


def run(views: "Views", code: str) -> Any:
    """Run the body of an async function in the page."""
    return views.page.evaluate(f"(async () => {{ {code} }})()")
