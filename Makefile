# Every target installs what it needs into .venv. The machine needs Python (3.11, 3.12 or 3.13), pip and make.
#
# TORCH_INDEX: the package index that PyTorch's "Get Started" page shows for CPU or for a CUDA version. Without it, pip takes
# torch's default build, which brings 3 GB of CUDA on Linux.
PYTHON ?= python3
TORCH_INDEX ?=
BIN := .venv/bin

.PHONY: quick test compare notebooks report results table1 figure1 paper glue structured pretrained smollm stories15M finetune schema ngram ablation tokens tasks arrow headline verify coverage compression determinism gpu fuzz dist lock audit environment clean

# From nothing to a certificate and the report that shows it.
quick: environment .venv/renderer
	$(BIN)/sublora run params/quick.yaml
	$(BIN)/sublora report

# The whole test suite: style, types, unit tests and simulations, notebooks and their stored outputs.
test: environment
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist loadfile tests
	rm -rf $(DEMOS)
	$(COMPARE)

# The first notebook makes the run that the next three read. A cell tagged `nbval-ignore-output` is executed and not compared.
NOTEBOOKS := $(patsubst %,notebooks/%.ipynb,pretrain bounds explore compression glue pretrained arrow_of_time)
DEMOS := runs/demo runs/demo-glue runs/demo-pretrained runs/demo-pretrained-source runs/demo-arrow runs/demo-arrow-mirror
COMPARE = TQDM_DISABLE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 \
	$(BIN)/python -m pytest --nbval --nbval-sanitize-with tests/nbval.cfg --nbval-current-env $(NOTEBOOKS)

# Execute notebooks, and compare their outputs with the stored ones: `make compare NOTEBOOKS=notebooks/bounds.ipynb`.
compare: environment
	$(COMPARE)

# Execute the notebooks on their defaults, and store their outputs.
notebooks: environment
	rm -rf $(DEMOS)
	$(BIN)/python tests/notebooks.py $(NOTEBOOKS)

# Everything that results/ keeps of runs: certificates, training logs and executed notebooks. An interrupted run continues.
results: headline table1 figure1 glue structured ngram ablation tokens tasks pretrained

# The paper's Table 1 and Figure 1 at a size that two cores train, each in under half an hour.
table1: METHODS := sublora lora subspace full
table1: environment
	$(BIN)/sublora run $(METHODS:%=params/table1/%.yaml)
	for name in $(METHODS); do $(call keep,table1/$$name,table1-$$name); done
	mkdir -p results/compare
	$(BIN)/sublora compare $(METHODS:%=results/table1/%/certificate.json) --out results/compare/table1.json

figure1: SIZES := $(notdir $(basename $(wildcard params/figure1/*.yaml)))
figure1: environment
	$(BIN)/sublora run $(SIZES:%=params/figure1/%.yaml)
	for name in $(SIZES); do $(call keep,figure1/$$name,figure1-$$name); done

# The papers' other experiments at a small size, an hour in all on two cores (estimate): all, or one study, as `make paper-rank`.
# base is the run that the others change in one thing. An interrupted study continues.
EXPERIMENTS := base $(filter-out base,$(notdir $(basename $(wildcard params/experiments/*.yaml))))
paper: $(EXPERIMENTS:%=paper-%)
paper-%: environment
	$(BIN)/sublora run params/experiments/$*.yaml
	for run in $$(ls -d runs/experiments-$* runs/experiments-$*-* 2> /dev/null); do \
		name=$${run#runs/experiments-}; $(call keep,experiments/$$name,experiments-$$name); done

# The small classifiers: of functions always, of GLUE's sentences where the files are.
glue: environment
	$(BIN)/sublora run params/glue/functions-small.yaml
	$(call keep,glue/functions-small,glue-functions-small)
	$(call where_data,glue/sst2-small,$(SST2),SST-2 of GLUE: train.tsv packed with xz and dev.tsv)
	$(call where_data,glue/cola-small,$(COLA),CoLA of the public release cola_public: its raw files)

# A classifier on a table file of one's own, here of four classes.
tasks: environment
	$(call where_data,tasks/arxiv,$(ABSTRACTS),arXiv abstracts$(,) CC0: JSON lines with the keys abstract and primary$(,) packed with xz)

, := ,
ABSTRACTS := data/arxiv-abstracts/sample_25k.jsonl.xz
SST2 := data/sst2/train.tsv.xz data/sst2/dev.tsv
COLA := data/cola/in_domain_train.tsv data/cola/in_domain_dev.tsv
there = ls $(1) > /dev/null 2>&1
where_data = @if $(call there,$(2)); then $(BIN)/sublora run params/$(1).yaml && $(call keep,$(1),$(subst /,-,$(1))); \
	else echo "$(1) is left out: it needs $(2) ($(3))"; fi

# Layers that are products of small ones, certified over tokens.
structured: LAYERS := monarch kronecker
structured: environment
	$(BIN)/sublora run $(LAYERS:%=params/structured/%.yaml)
	for name in $(LAYERS); do $(call keep,structured/$$name,structured-$$name); done

# n-gram models, whose messages are counts, certified over tokens.
ngram: ORDERS := order1 order2 order3 order4
ngram: environment
	$(BIN)/sublora run $(ORDERS:%=params/ngram/%.yaml)
	for name in $(ORDERS); do $(call keep,ngram/$$name,ngram-$$name); done

# The quick run without one of its parts each.
ablation: PARTS := $(notdir $(basename $(wildcard params/ablation/*.yaml)))
ablation: environment
	$(BIN)/sublora run $(PARTS:%=params/ablation/%.yaml)
	for name in $(PARTS); do $(call keep,ablation/$$name,ablation-$$name); done

# The token run's model: trained for longer, at unseen positions, beside a code of the whole stream, on abstracts where their file is.
tokens: PLACES := positions stream
tokens: environment
	$(BIN)/sublora run params/tokens-45min.yaml $(PLACES:%=params/tokens/%.yaml)
	$(call keep,tokens-45min,tokens-45min)
	for name in $(PLACES); do $(call keep,tokens/$$name,tokens-$$name); done
	$(call where_data,tokens/arxiv,$(ABSTRACTS),arXiv abstracts$(,) CC0: JSON lines with the key abstract$(,) packed with xz)

# The arrow of time: pairs of runs that differ in direction alone, compared on held-out documents. Certificates and logs are kept, and the
# comparisons in results/arrow/compare/. `make arrow ARROWS=linear` makes one params file's pairs.
ARROWS := small linear permutation primes python context recurrent $(if $(wildcard $(ABSTRACTS)),abstracts)
arrow: environment
	$(BIN)/sublora run $(ARROWS:%=params/arrow/%.yaml)
	mkdir -p results/arrow/compare
	for name in $(ARROWS); do for backward in runs/arrow-$$name-*backward; do \
		pair=$${backward#runs/arrow-} && forward=$${backward%backward}forward && kept=results/arrow/compare/$${pair%-backward}.json \
		&& for one in $$backward $$forward; do mkdir -p results/arrow/$${one#runs/arrow-} \
			&& cp $$one/certificate.json $$one/metrics.csv results/arrow/$${one#runs/arrow-}/ || exit 1; done \
		&& { [ $$kept -nt $$backward/certificate.json ] && [ $$kept -nt $$forward/certificate.json ] \
			|| $(BIN)/sublora compare $$backward/certificate.json $$forward/certificate.json --out $$kept; } || exit 1; done; done

# A public pretrained model, where its files and the corpus are.
STORIES := $(addprefix data/,stories260K/stories260K.bin stories260K/tok512.bin) $(ABSTRACTS)
STORIES_FROM := karpathy/tinyllamas, stories260K; arXiv abstracts, CC0: JSON lines with the key abstract, packed with xz
pretrained:
	@$(call there,$(STORIES)) || { echo "make pretrained needs $(STORIES) ($(STORIES_FROM))"; exit 1; }
	@$(MAKE) --no-print-directory environment
	$(BIN)/sublora run params/pretrained/stories260K.yaml
	$(call keep,pretrained/stories260K,pretrained-stories260K)
	$(BIN)/sublora verify results/pretrained/stories260K/certificate.json

# Public models from package registries, as they are and fine-tuned on documents, and how much better that makes them. The documents
# are abstracts of arXiv where they are under data/, or DOCUMENTS, a file of JSON lines with the key FIELD.
DOCUMENTS ?= data/arxiv-abstracts/sample_25k.jsonl.xz
FIELD ?= abstract
FINETUNE = @$(call there,$(DOCUMENTS)) || { echo "make $@ needs documents: DOCUMENTS=a-file.jsonl FIELD=key"; exit 1; }; \
	$(MAKE) --no-print-directory environment && $(BIN)/python benchmarks/bases.py $(1) && mkdir -p results/compare \
	&& $(BIN)/sublora run params/finetune/$(1).yaml params/finetune/$(1)-zeroshot.yaml --set corpus.path=$(DOCUMENTS) --set corpus.field=$(FIELD) \
	&& for units in held-out training; do $(BIN)/sublora compare runs/finetune-$(1)/certificate.json runs/finetune-$(1)-zeroshot/certificate.json \
	--set-of $$units --limit-minutes 120 --limit-memory 8 --out results/compare/$(1)-$$units.json || exit 1; done
smollm:
	$(call FINETUNE,smollm2)
stories15M:
	$(call FINETUNE,stories15M)

# Both, kept.
finetune: stories15M smollm
	for name in stories15M stories15M-zeroshot smollm2 smollm2-zeroshot; do $(call keep,finetune/$$name,finetune-$$name); done

# The runs that the report opens with if there are no others, and the README's figure.
headline: environment
	$(BIN)/sublora run params/quick.yaml params/quick-tokens.yaml
	for name in quick quick-tokens; do $(call keep,$$name,$$name); done
	$(BIN)/python -c "$$README_FIGURE"

define README_FIGURE
from sublora.certificate.schema import load_certificate
from sublora.reporting.figures import bounds_overview
bounds_overview(load_certificate("results/quick/certificate.json")).savefig("report/images/quick.svg", metadata={"Date": None})
endef
export README_FIGURE

# Copies a finished run (2) to its place in results/ (1). A pretrained model has no training log.
keep = mkdir -p results/$(1) && cp runs/$(2)/certificate.json runs/$(2)/*.ipynb results/$(1)/ \
	&& for file in metrics baselines duplicates; do \
	if [ -f runs/$(2)/$$file.csv ]; then cp runs/$(2)/$$file.csv results/$(1)/; fi; done || exit 1

# Every certificate in results/: decode and score the model again, recompute every bound. Certificates of public data sets need these
# under data/ (`make glue` and `make pretrained` say which), and that of stories260K its prepared corpus, so they are left out here.
verify: environment
	$(BIN)/sublora verify --limit-memory 16 --limit-minutes 120 results/*/certificate.json $(filter-out $(NEED_DATA),$(wildcard results/*/*/certificate.json))

NEED_DATA := results/pretrained/% results/glue/sst2-small/% results/glue/cola-small/% results/finetune/% results/tokens/arxiv/% results/tasks/% \
	results/arrow/abstracts%

# The JSON Schema of certificates, after a change of `sublora/certificate/schema.py`.
schema: environment
	$(BIN)/python -c "from pathlib import Path; from sublora.certificate import schema as s; Path(s.__file__).with_suffix('.json').write_text(s.json_schema(), 'utf-8')"

# How often each bound is violated where the truth is known, for the report: a minute or two.
coverage: environment
	$(BIN)/python benchmarks/violations.py

# Rate, distortion and promised bound of every way to compress one model, for the report: some minutes.
compression: environment
	$(BIN)/python benchmarks/compression.py

# By how much scores move between threads, batches, kernels and, with OTHER_TORCH, versions of torch: some minutes.
determinism: environment
	$(BIN)/python benchmarks/determinism.py $(if $(OTHER_TORCH),--python $(OTHER_TORCH))

# What one GPU does with GPT-2 small on abstracts of arXiv. A call ends after nine minutes: repeat it until nothing is left.
gpu: environment
	$(BIN)/python benchmarks/gpu.py

# Hostile messages against every decoder, and hostile certificates against `verify`, for five minutes in all.
fuzz: environment
	$(BIN)/python fuzz/fuzz_message.py --seconds 150
	$(BIN)/python fuzz/fuzz_verify.py --seconds 150

# The wheel and the source distribution, checked, in dist/.
dist: environment
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

report: environment .venv/renderer
	$(BIN)/sublora report

environment: .venv/installed

# Everything from the lock file, checked by its hash; then torch, and the package itself.
.venv/installed: pyproject.toml requirements.lock constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install -q -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	$(BIN)/python -m pip check
	touch $@

# requirements.lock anew: the newest versions that go together with LOCK=--upgrade, else only what pyproject.toml changes.
lock: environment
	$(BIN)/uv pip compile pyproject.toml --extra dev --extra release --extra supply --universal --python-version 3.11 \
		--generate-hashes --no-emit-package torch --no-annotate -c constraints.txt --custom-compile-command 'make lock' \
		--quiet $(LOCK) -o requirements.lock

# Known vulnerabilities of what is locked. It asks a public database.
audit: environment
	$(BIN)/pip-audit --strict --require-hashes --disable-pip -r requirements.lock

# Quarto renders the report, if it is there or can be installed. Its package downloads a program, so pip tries once. Otherwise pandoc
# renders the report.
.venv/renderer: .venv/installed
	@command -v quarto > /dev/null || $(BIN)/python -m pip install -q --retries 0 -c constraints.txt quarto-cli > .venv/quarto.log 2>&1 || true
	@if command -v quarto > /dev/null || [ -x $(BIN)/quarto ]; then echo "The report is rendered with Quarto."; \
	else echo "The report is rendered with pandoc: Quarto could not be installed (.venv/quarto.log says why)."; fi
	@touch $@

clean:
	rm -rf .venv .mypy_cache dist report/_site
