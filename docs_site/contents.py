"""Which pages the site has, under which headings; a page of docs/ that is missing here stands under the last heading, `More`."""

from collections.abc import Mapping

CONTENTS: Mapping[str, Mapping[str, str]] = {
    "Begin": {
        "index.md": "What it is",
        "quickstart.md": "Start in a minute",
        "install.md": "What to install",
        "targets.md": "Choose your targets",
        "migrate.md": "Coming from another class",
    },
    "Use": {
        "classes.md": "LangChain, LlamaIndex, plain Python",
        "rag.md": "RAG, persistent indexes",
        "agents.md": "Agents",
        "hybrid.md": "Hybrid search and rerank",
        "tasks.md": "Rerank, sparse, images, labels",
        "examples.md": "Whole programs",
        "local.md": "Models in this process",
        "hub.md": "The Hub",
        "corpus.md": "A corpus of texts",
        "programs.md": "FastAPI, Celery, Streamlit, notebooks",
        "gpus.md": "GPUs",
        "testing.md": "Testing your program",
        "typescript.md": "TypeScript",
        "browser.md": "Models in the browser",
    },
    "Run": {
        "server.md": "The server: routes, keys, limits, deployment",
        "page.md": "Its page",
        "deploy.md": "Deploy: image, chart",
        "costs.md": "Ledger, costs, budgets",
        "networks.md": "Offline, proxies, certificates",
    },
    "Understand": {
        "spaces.md": "Vector spaces",
        "promises.md": "What it will not do",
        "architecture.md": "Architecture",
        "benchmarks.md": "Benchmarks",
        "comparison.md": "Compared with others",
        "extending.md": "Add a kind, a task, an engine",
    },
    "Look up": {
        "configuration.md": "Configuration",
        "commands.md": "Commands",
        "metrics.md": "Metrics and traces",
        "errors.md": "Errors",
        "api.md": "Python",
    },
    "The project": {
        "CONTRIBUTING.md": "Working on it",
        "SECURITY.md": "Security",
        "CHANGELOG.md": "Changes",
        "deprecations.md": "Versions and deprecations",
    },
}
"""Heading → page → title. Results of benchmarks have pages that only other pages lead to."""

API = {
    "hf_gateway": "shared/hf_gateway/__init__.py",
    "langchain_hf_gateway": "langchain_hf_gateway/__init__.py",
    "llamaindex_hf_gateway": "llamaindex_hf_gateway/__init__.py",
    "hf_gateway.testing": "shared/hf_gateway/testing.py",
}
"""Module → its file: their public names are on the page `api.md`, in this order; errors have a page of their own."""
