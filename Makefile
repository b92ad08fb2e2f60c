# Every target sets up all it needs in .venv, on a machine that has only Python (3.11 or newer), pip and make.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: quick test report table1 figure1 glue structured pretrained headline verify coverage compression fuzz environment clean

# From nothing to a certificate and the report that shows it.
quick: environment
	$(BIN)/sublora run params/quick.yaml
	$(BIN)/sublora report

# The whole test suite: style, unit tests and simulations, notebooks.
test: environment
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -n 2 --dist loadfile tests
	rm -rf runs/demo
	$(BIN)/python -m pytest --nbval-lax notebooks/pretrain.ipynb notebooks/bounds.ipynb notebooks/explore.ipynb notebooks/compression.ipynb

# The publication's Table 1 and Figure 1 at a size that two cores train, each under half an hour; an interrupted run goes on. The
# certificates and training logs are kept in results/.
table1: METHODS := sublora lora subspace full
table1: environment
	$(BIN)/sublora run $(METHODS:%=params/table1/%.yaml)
	for name in $(METHODS); do $(call keep,table1,$$name); done

figure1: SIZES := $(notdir $(basename $(wildcard params/figure1/*.yaml)))
figure1: environment
	$(BIN)/sublora run $(SIZES:%=params/figure1/%.yaml)
	for name in $(SIZES); do $(call keep,figure1,$$name); done

# The small classifiers; their params files say where GLUE's files are looked for.
glue: TASKS := sst2-small cola-small
glue: environment
	$(BIN)/sublora run $(TASKS:%=params/glue/%.yaml)
	for name in $(TASKS); do $(call keep,glue,$$name); done

# Layers that are products of small ones, certified over tokens.
structured: LAYERS := monarch kronecker
structured: environment
	$(BIN)/sublora run $(LAYERS:%=params/structured/%.yaml)
	for name in $(LAYERS); do $(call keep,structured,$$name); done

# A model that someone else trained; its params file says where it and its corpus are looked for.
pretrained: environment
	$(BIN)/sublora run params/pretrained/stories260K.yaml
	mkdir -p results/pretrained/stories260K && cp runs/pretrained-stories260K/certificate.json results/pretrained/stories260K/
	$(BIN)/sublora verify results/pretrained/stories260K/certificate.json

# What the report opens with where there are no runs, and the README's figure.
headline: environment
	$(BIN)/sublora run params/quick.yaml params/quick-tokens.yaml
	for name in quick quick-tokens; do mkdir -p results/$$name && cp runs/$$name/certificate.json runs/$$name/metrics.csv results/$$name/ || exit 1; done
	$(BIN)/python -c "$$README_FIGURE"

define README_FIGURE
from sublora.bounds.format import load_certificate
from sublora.reporting.figures import bounds_overview
bounds_overview(load_certificate("results/quick/certificate.json")).savefig("report/images/quick.svg", metadata={"Date": None})
endef
export README_FIGURE

keep = mkdir -p results/$(1)/$(2) && cp runs/$(1)-$(2)/certificate.json runs/$(1)-$(2)/metrics.csv results/$(1)/$(2)/ || exit 1

# Every certificate in results/: the model decoded and scored again, every bound computed again. (Those of models trained elsewhere
# need their corpus prepared, which `make pretrained` does, and verifies them.)
verify: environment
	$(BIN)/sublora verify results/*/certificate.json $(filter-out results/pretrained/%,$(wildcard results/*/*/certificate.json))

# How often each bound is violated where the truth is known, for the report: a minute or two.
coverage: environment
	$(BIN)/python benchmarks/coverage.py

# Rate, distortion and promised bound of every way to compress one model, for the report: some minutes.
compression: environment
	$(BIN)/python benchmarks/compression.py

# Hostile messages against every decoder, for five minutes.
fuzz: environment
	$(BIN)/python fuzz/fuzz_message.py

report: environment
	$(BIN)/sublora report

environment: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv report/_site
