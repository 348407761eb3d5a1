PYTHON ?= python3
PIP = -m pip --disable-pip-version-check --quiet
SOURCES = pyproject.toml constraints.txt
# One process a core, with one thread each; a file's tests share fixtures, so they stay together.
PARALLEL = -n auto --dist loadfile
PYTEST_ENV = OMP_NUM_THREADS=1

.PHONY: demo test test-oldest wheel clean

demo: .venv/.ready ## Route 25 prompts through both adapters; no key, no download, no torch
	.venv/bin/prefroute demo

test: .venv-test/.ready ## Lint, type-check and run the tests
	.venv-test/bin/python -m ruff check .
	.venv-test/bin/python -m ruff format --check .
	.venv-test/bin/python -m mypy
	$(PYTEST_ENV) .venv-test/bin/python -m pytest $(PARALLEL) $(ARGS)

# Without the calls by the thousand of LangChain's faults, which take long and add up alike with any release.
test-oldest: .venv-oldest/.ready ## Run the adapters' tests with the oldest releases that they support
	$(PYTEST_ENV) .venv-oldest/bin/python -m pytest $(PARALLEL) tests/langchain_router tests/llamaindex_router \
		--ignore=tests/langchain_router/test_faults.py $(ARGS)

wheel: .venv-test/.ready ## Build the wheel and the source distribution into dist/
	.venv-test/bin/python -m build

clean:
	rm -rf .venv .venv-test .venv-oldest dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/.ready: $(SOURCES)
	$(call environment,.venv)
	.venv/bin/python $(PIP) install -c constraints.txt -e '.[langchain,llamaindex]'
	touch $@

.venv-test/.ready: $(SOURCES)
	$(call environment,.venv-test)
	.venv-test/bin/python $(PIP) install -c constraints.txt -e '.[langchain,llamaindex]' --group dev
	touch $@

.venv-oldest/.ready: pyproject.toml constraints-oldest.txt
	$(call environment,.venv-oldest)
	.venv-oldest/bin/python $(PIP) install -c constraints-oldest.txt -e '.[langchain-agents,llamaindex]' --group test-adapters
	touch $@

define environment
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "prefroute needs Python 3.11 or later, $(PYTHON) is %d.%d; set PYTHON=" % sys.version_info[:2])'
$(PYTHON) -m venv --clear $(1)
$(1)/bin/python $(PIP) install -c constraints.txt pip
endef
