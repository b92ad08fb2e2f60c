"""Params files: what they mean, and what is wrong with one, named in one line."""

import math

import pytest
import yaml
from tiny import HOME

from sublora.errors import SubloraError
from sublora.experiment import (
    PARAMETRIZATIONS,
    Classify,
    Encoder,
    Finetune,
    Ngram,
    Pretrain,
    Round,
    Words,
    Zeroshot,
    as_experiment,
    load_experiment,
    load_experiments,
)
from sublora.experiment.params import DEEPEST, LARGEST, as_yaml, read_yaml
from sublora.training.pretrain import phase_schedule

PARAMS = HOME / "params"
FILES = sorted(PARAMS.rglob("*.yaml"))
GLUE = ("qqp-pretrained", "qqp-random", "cola-pretrained", "cola-random")
DIMENSIONS = (1_000, 5_000, 10_000, 25_000, 50_000)


@pytest.fixture
def write(tmp_path):
    """A function that writes a params file and returns its path."""

    def written(text):
        (tmp_path / "mine.yaml").write_text(text, "utf-8")
        return tmp_path / "mine.yaml"

    return written


def refused(call, *arguments):
    """The one line that a call is refused with."""
    with pytest.raises(SubloraError) as caught:
        call(*arguments)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


# --- the files in params/


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PARAMS)))
def test_every_params_file_is_valid_and_named_after_its_place(path):
    name, experiments = "-".join(path.relative_to(PARAMS).with_suffix("").parts), load_experiments(path)
    grid = read_yaml(path.read_text("utf-8")).get("grid", {})
    assert len(experiments) == math.prod(map(len, grid.values()))
    assert all(each.name == name if not grid else each.name.startswith(f"{name}-") for each in experiments)
    if path.stem in GLUE:
        assert [each.name for each in experiments] == [f"{name}-{dimension}" for dimension in DIMENSIONS]
    for experiment in experiments:
        assert as_experiment(experiment.parameters()) == experiment
    assert path.read_text("utf-8").startswith("# "), "a params file says first what it is"


def test_the_files_are_there():
    names = {str(path.relative_to(PARAMS)) for path in FILES}
    assert {"quick.yaml", "paper/table1-sublora.yaml", *(f"glue/{name}.yaml" for name in GLUE)} <= names


@pytest.mark.parametrize("method", ["sublora", "lora", "subspace", "full"])
def test_table_1_has_the_settings_of_the_paper(method):
    experiment = load_experiment(PARAMS / "paper" / f"table1-{method}.yaml")
    assert experiment.subspace.parametrization == method
    model, training = experiment.model, experiment.training
    assert (model.layers, model.heads, model.width, model.block) == (12, 12, 768, 1024)
    assert (training.batch, training.accumulation, training.learning_rate, training.weight_decay) == (320, 40, 5e-3, 0.01)
    assert (experiment.compression.quantizer, experiment.compression.levels) == ("uniform", 11)
    assert (experiment.bounds.documents, experiment.stride) == (10_000, 100)


@pytest.mark.parametrize("name", GLUE)
def test_the_grid_of_glue_has_the_settings_of_the_paper(name):
    task, weights = name.split("-")
    experiments = load_experiments(PARAMS / "glue" / f"{name}.yaml")
    assert [each.subspace.dimension for each in experiments] == list(DIMENSIONS)
    for each in experiments:
        subspace, training = each.subspace, each.training
        assert (each.kind, each.notebooks) == ("classify", ("glue",))
        assert (each.task.name, each.task.path, each.task.max_length) == (task, None, 128)
        assert (each.model.source, each.model.load_pretrained) == ("gpt2", weights == "pretrained")
        assert (subspace.parametrization, subspace.modules) == ("sublora", ("attention", "head"))
        assert (subspace.rank, subspace.lora_alpha, subspace.lora_dropout) == (4, 32.0, 0.1)
        assert (training.batch, training.learning_rate, training.epochs) == (32, 2e-5, 5)


@pytest.mark.parametrize(("name", "local"), [("sst2", True), ("cola", True), ("functions", False)])
def test_the_small_tasks_need_no_network(name, local):
    experiment = load_experiment(PARAMS / "glue" / f"{name}-small.yaml")
    assert experiment.task.name == name and (experiment.task.path is not None) == local
    assert isinstance(experiment.model, Words)


# --- kinds

LEAST = {
    "pretrain": {},
    "finetune": {"model": {"source": "gpt2"}},
    "round": {"model": {"source": "gpt2"}},
    "ngram": {},
    "classify": {},
    "zeroshot": {"model": {"source": "gpt2"}},
}
KINDS = {
    "pretrain": (Pretrain, ("pretrain", "bounds"), {"corpus", "model", "subspace", "training", "compression", "bounds"}),
    "finetune": (Finetune, ("pretrain", "bounds"), {"corpus", "model", "subspace", "training", "compression", "bounds"}),
    "round": (Round, ("pretrained",), {"corpus", "model", "rounding", "bounds"}),
    "ngram": (Ngram, ("pretrained",), {"corpus", "model", "counting", "bounds"}),
    "classify": (Classify, ("glue",), {"task", "model", "subspace", "training", "compression", "bounds"}),
    "zeroshot": (Zeroshot, ("pretrained",), {"corpus", "model", "bounds"}),
}


def experiment(kind, **groups):
    return as_experiment({"kind": kind, "name": "mine", **LEAST[kind], **groups}, "mine")


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_has_its_groups_and_its_notebooks(kind):
    made, (of, notebooks, groups) = experiment(kind), KINDS[kind]
    assert type(made) is of and made.notebooks == notebooks
    assert made.parameters().keys() == {"kind", "name", "notebooks", *groups}
    for other in {"corpus", "task", "rounding", "counting", "training", "subspace"} - groups:
        owner = next(name for name, (_, _, of_owner) in KINDS.items() if other in of_owner)
        line = refused(lambda group=other: experiment(kind, **{group: {}}))
        assert line.startswith(f"mine: unknown key '{other}' for kind '{kind}'; it belongs to kind ") and owner in line


def test_the_kind_is_pretrain_unless_it_is_said():
    assert as_experiment({"name": "mine"}) == experiment("pretrain")
    for kind in ("pretrian", None, ["round"]):
        line = refused(as_experiment, {"kind": kind, "name": "mine"})
        assert "there are pretrain, finetune, round, ngram, classify, zeroshot" in line


def test_a_classifier_starts_from_words_or_from_an_encoder():
    assert isinstance(experiment("classify", model={"buckets": 32}).model, Words)
    subspace = {"dimension": 9}
    made = experiment("classify", model={"source": "gpt2"}, subspace=subspace)
    assert isinstance(made.model, Encoder) and made.subspace.modules == ("attention", "head")
    mixed = {"source": "gpt2", "buckets": 32}
    assert "key 'model.buckets' does not go with the other keys" in refused(lambda: experiment("classify", model=mixed))
    assert experiment("classify", subspace=subspace).subspace.modules == ("head",)


GPT2 = {"source": "gpt2"}


@pytest.mark.parametrize(
    ("kind", "groups", "expected"),
    [
        ("pretrain", {"subspace": {"rank": 2}}, ("sublora", 961)),
        ("pretrain", {"subspace": {"dimension": 60}}, ("sublora", 60)),
        ("finetune", {}, ("subspace", 961)),
        ("finetune", {"subspace": {"dimension": 60}}, ("subspace", 60)),
        ("finetune", {"subspace": {"projector": "dense"}}, ("subspace", 961)),
        ("finetune", {"subspace": {"parametrization": "lora"}}, ("lora", None)),
        ("classify", {}, ("lora", None, "head")),
        ("classify", {"subspace": {"dimension": 30}}, ("sublora", 30, "head")),
        ("classify", {"model": GPT2}, ("lora", None, "attention", "head")),
        ("classify", {"model": GPT2, "subspace": {"dimension": 30}}, ("sublora", 30, "attention", "head")),
        ("classify", {"model": GPT2, "subspace": {"rank": 2}}, ("lora", None, "attention", "head")),
    ],
    ids=str,
)
def test_a_group_that_says_a_part_keeps_the_defaults_of_its_kind(kind, groups, expected):
    subspace = experiment(kind, **groups).subspace
    assert (subspace.parametrization, subspace.dimension, *getattr(subspace, "modules", ())) == expected


@pytest.mark.parametrize("model", [{"buckets": 32}, GPT2], ids=["words", "encoder"])
@pytest.mark.parametrize(("parametrization", "dimension"), [("full", None), ("subspace", 9)])
def test_a_classifiers_own_weights_can_be_what_is_trained(model, parametrization, dimension):
    subspace = {"parametrization": parametrization, "dimension": dimension}
    dumped = experiment("classify", model=model, subspace=subspace).parameters()["subspace"]
    assert dumped == subspace | ({"projector": "kron_qr", "seed": 137} if dimension else {})


def test_an_experiment_cannot_be_changed():
    made = experiment("pretrain")
    for target, key in ((made, "name"), (made.training, "steps")):
        with pytest.raises(ValueError, match="frozen"):
            setattr(target, key, getattr(target, key))


# --- what has no effect

LORA = {"rank", "lora_alpha", "lora_dropout"}
EFFECTIVE = {
    "sublora": {"seed", "projector", "targets", *LORA},
    "lora": {"seed", "targets", *LORA},
    "subspace": {"seed", "projector"},
    "full": set(),
    "kronecker": {"seed", "projector", "blocks", "targets"},
    "monarch": {"seed", "projector", "blocks", "targets"},
    "lora_b": {"seed", "projector", "targets", *LORA},
    "biases": {"tokens"},
    "tinylora": {"targets", "rank"},
    "lora_b+biases": {"seed", "projector", "targets", "tokens", *LORA},
}
ANY = {"seed": 3, "projector": "dense", "targets": ["q"], "blocks": 2, "rank": 1, "lora_alpha": 1.0, "lora_dropout": 0.0}
ANY |= {"tokens": "all"}


@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS)
def test_keys_without_effect_are_refused_and_not_dumped(parametrization):
    least = {"parametrization": parametrization} | ({"dimension": 9} if parametrization in ("sublora", "subspace") else {})
    for key, value in ANY.items():
        if key in EFFECTIVE[parametrization]:
            made = experiment("pretrain", subspace={**least, key: value})
            assert made.parameters()["subspace"][key] == value
        else:
            line = refused(lambda key=key, value=value: experiment("pretrain", subspace={**least, key: value}))
            assert f"{key} has no effect for parametrization {parametrization}" in line
    dumped = experiment("pretrain", subspace=least).parameters()["subspace"]
    assert dumped.keys() == {"parametrization", "dimension", *EFFECTIVE[parametrization]}


@pytest.mark.parametrize(("modules", "more"), [(["head"], set()), (["attention"], {"seed", *LORA})], ids=["head", "attention"])
def test_of_a_classifier_too(modules, more):
    model, subspace = {"source": "gpt2"}, {"parametrization": "lora", "modules": modules}
    made = experiment("classify", model=model, subspace=subspace)
    assert made.parameters()["subspace"].keys() == {"parametrization", "dimension", "modules", *more}
    for key in ANY.keys() - more:
        line = refused(lambda key=key: experiment("classify", model=model, subspace={**subspace, key: ANY[key]}))
        causes = {"targets": "kind classify", "blocks": "kind classify", "projector": "parametrization lora"}
        causes["tokens"] = "parametrization lora"
        cause = causes.get(key, "modules [head]")
        assert f"{key} has no effect for {cause}; remove it" in line


IGNORED = [
    ("corpus: {path: mytexts}", "path", "source python-packages"),
    ("corpus: {subset: en}", "subset", "source python-packages"),
    ("corpus: {source: python-stdlib, field: body}", "field", "source python-stdlib"),
    ("corpus: {source: python-stdlib, packages: [networkx==3.6.1]}", "packages", "source python-stdlib"),
    ("corpus: {source: openwebtext, split: paper, split_seed: 7}", "split_seed", "split paper"),
    ("corpus: {source: openwebtext, split: paper, train: 0.9}", "train", "split paper"),
    ("corpus: {source: text, path: here, field: body}", "field", "source text"),
    ("corpus: {source: file, path: a.csv, subset: en}", "subset", "source file"),
    ("compression: {quantizer: kmeans, entropy_penalty: 0.1}", "entropy_penalty", "quantizer kmeans"),
    ("compression: {quantizer: kmeans, scale: model}", "scale", "quantizer kmeans"),
    ("compression: {finetune_steps: 0, finetune_learning_rate: 0.1}", "finetune_learning_rate", "finetune_steps 0"),
    ("compression: {rate_penalty: 0.1}", "rate_penalty", "finetune_steps 0"),
    ("bounds: {tokens: 9}", "tokens", "levels [document]"),
    ("bounds: {sequences: 9}", "sequences", "levels [document]"),
    ("bounds: {levels: [token, sequence], documents: 9}", "documents", "levels [token, sequence]"),
    ("kind: classify\ntask: {name: functions, path: train.tsv}", "path", "task functions, which reads no file"),
    ("kind: classify\ntask: {name: functions, validation: dev.tsv}", "validation", "task functions, which reads no file"),
    ("kind: classify\ntask: {validation: dev.tsv}", "validation", "a null path"),
    ("kind: classify\ntask: {split_seed: 3}", "split_seed", "train 1, where nothing is drawn"),
]


@pytest.mark.parametrize(("text", "key", "cause"), IGNORED, ids=lambda value: value[:60])
def test_a_key_that_other_keys_switch_off_is_refused_unless_it_has_its_default(write, text, key, cause):
    assert f"{key} has no effect for {cause}; remove it" in refused(load_experiment, write(f"name: mine\n{text}\n"))


# --- what scales


@pytest.mark.parametrize(
    ("settings", "steps", "warmup", "validate_every"),
    [
        ({"steps": 600}, 600, 60, 100),
        ({"steps": 6000}, 6000, 100, 1000),
        ({"steps": 3}, 3, 0, 1),
        ({"steps": 600}, 60, 6, 10),
        ({"steps": 600, "warmup": 200, "validate_every": 7}, 600, 200, 7),
        ({"steps": 600, "warmup": 200}, 100, 10, 16),
        ({"steps": 600, "warmup": 0}, 600, 0, 100),
    ],
    ids=str,
)
def test_warm_up_and_validations_scale_with_the_steps_unless_they_are_set(settings, steps, warmup, validate_every):
    schedule = phase_schedule(experiment("pretrain", training=settings), steps, 0.1, 0.01)
    assert (schedule.warmup, schedule.validate_every, schedule.steps) == (warmup, validate_every, steps)


# --- what is wrong


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("subspace: {parametrization: biases, tokens: []}", "key 'subspace.tokens': "),
        ("modle: {}", "unknown key 'modle'; did you mean 'model'?"),
        ("model: {layer: 3}", "unknown key 'model.layer'; did you mean 'model.layers'?"),
        ("model: {xyzzy: 3}", "unknown key 'model.xyzzy'; the keys of model are layers, heads, width, block"),
        ("xyzzy: 3", "unknown key 'xyzzy'; the keys are name, notebooks, corpus"),
        ("steps: 3", "unknown key 'steps'; did you mean 'training.steps'?"),
        ("lr: 3", "unknown key 'lr'; did you mean 'training.learning_rate'?"),
        ("training: {lr: 3}", "unknown key 'training.lr'; did you mean 'training.learning_rate'?"),
        ("training: {batch_size: 3}", "unknown key 'training.batch_size'; did you mean 'training.batch'?"),
        ("model: {n_embd: 3}", "unknown key 'model.n_embd'; did you mean 'model.width'?"),
        ("dataset: x", "unknown key 'dataset'; did you mean 'corpus.source'?"),
        ("pretrained: {}", "unknown key 'pretrained' for kind 'pretrain'; 'rounding' belongs to kind 'round'"),
        ("kind: round\nmodel: {source: x}\npretrained: {}", "unknown key 'pretrained'; did you mean 'rounding'?"),
        ("rounding: {}", "unknown key 'rounding' for kind 'pretrain'; it belongs to kind 'round'"),
        ("experiment: x", "unknown key 'experiment'; did you mean 'name'?"),
        ("1: 2", "a params file holds keys and values"),
        ("model: {1: 2}", "key 'model.1': Keys should be strings"),
        ("model: {layers: '3'}", "key 'model.layers': Input should be a valid integer (got '3')"),
        ("model: {layers: 03}", "key 'model.layers': Input should be a valid integer (got '03')"),
        ("model: {bias: yes}", "key 'model.bias': Input should be a valid boolean (got 'yes')"),
        ("model: {layers: 0}", "key 'model.layers'"),
        ("model: {heads: 3}", "width 128 is not divisible by heads 3"),
        ("model: 3", "key 'model'"),
        ("bounds: {delta: 1.5}", "key 'bounds.delta'"),
        ("bounds: {levels: [token, token]}", "each once"),
        ("bounds: {stride: 999}", "bounds.stride 999 exceeds model.block 128"),
        ("subspace: {parametrization: lora, dimension: 5}", "dimension must be null"),
        ("subspace: {parametrization: subspace}", "dimension is needed"),
        ("training: {batch: 10, accumulation: 3}", "batch 10 is not divisible by accumulation 3"),
        ("training: {steps: 50, warmup: 51}", "warmup 51 exceeds the 50 steps"),
        ("training: {steps: 150, validate_every: 250}", "validate_every 250 exceeds the 150 steps; leave it out"),
        ("training: {betas: [0.9, 1]}", "key 'training.betas.1': Input should be less than 1"),
        ("corpus: {train: 0.9, validation: 0.1}", "a test split remains"),
        ("corpus: {tokenizer: words}", "key 'corpus.tokenizer': must be bytes"),
        ("corpus: {source: text}", "path is needed for source text: a folder"),
        ("corpus: {source: file}", "path is needed for source file: a file"),
        ("kind: classify\ntask: {name: colla}", "key 'task.name': must be one of cola, sst2, "),
        ("kind: classify\ntask: {name: stsb}", "stsb is regression, without a 0-1 error to bound"),
        ("name: ../escape", "it names a folder"),
        ("name: corpora", "is reserved"),
        ("name: Corpora", "is reserved"),
        ("name: 2026-13-45x/y", "it names a folder"),
        ("notebooks: []", "key 'notebooks': must be a list of one or more names"),
        ("notebooks: [pretrain, pretrain]", "key 'notebooks': must be a list of one or more names"),
        ("notebooks: [../pretrain]", "key 'notebooks': must be a list of one or more names"),
        ("learning_rate: 1e-3", "unknown key 'learning_rate'; did you mean 'training.learning_rate'?"),
        ("seed: 1", "did you mean 'model.seed' or 'subspace.seed' or 'training.seed'?"),
        ("training: {betas: [1.5, 0.9]}", "key 'training.betas.0': Input should be less than 1 (got 1.5)"),
        ("training: {steps: 0100}", "key 'training.steps': Input should be a valid integer (got '0100')"),
        ("training: {steps: 1:30}", "key 'training.steps': Input should be a valid integer (got '1:30')"),
        (f"training: {{steps: {5000 * '9'}}}", "key 'training.steps': Input should be a valid integer"),
        (f"model: {{seed: {2**64}}}", "key 'model.seed': Input should be less than"),
        ("corpus: {source: txt}", "must be python-packages, python-stdlib, text, file, exact, openwebtext, or owner/name"),
        ("corpus: {packages: [sympy]}", "key 'corpus.packages.0': must be one of sympy==1.14.0, networkx==3.6.1, "),
        ("corpus: {packages: ['a==1 --hash=sha256:0']}", "or name==version --hash=sha256:HEX of a wheel (got"),
        ("corpus: {packages: []}", "key 'corpus.packages': must be a list of one or more choices"),
        ("corpus: {split: paper}", "split paper is of openwebtext, not of source python-packages"),
        ('corpus: {path: "a\\0b"}', "key 'corpus.path': must be text without NUL"),
        ('corpus: {field: "\\ud800"}', "key 'corpus.field': must be text without NUL and lone surrogates"),
        ("kind: finetune", "key 'model' is missing"),
        ("kind: round\nmodel: {source: x}\nrounding: {bits: [3, 3]}", "key 'rounding.bits': must be a list of one or more choices"),
        ("kind: classify\nsubspace: {parametrization: kronecker}", "kronecker layers would take the place of the base model's"),
        ("kind: finetune\nmodel: {source: x}\nsubspace: {parametrization: monarch}", "monarch layers would take the place of the"),
        ("kind: finetune\nmodel: {source: x}\nsubspace: {parametrization: lora, targets: []}", "must be a list of one or more"),
        ("kind: finetune\nmodel: {source: x}\nsubspace: {rank: 2}", "rank has no effect for parametrization subspace"),
        ("kind: finetune\nmodel: {source: x}\nsubspace: {parametrization: sublora, dimension: 9, projector: film}", "LoRA has no"),
        ("kind: classify\nmodel: {source: x}\nsubspace: {parametrization: full, modules: [head]}", "modules has no effect for "),
        ("kind: classify\nsubspace: {modules: [attention]}", "its modules are [head]"),
        ("subspace: {projector: film+dense}", "projector film+dense moves norms and biases; LoRA has none"),
        ("subspace: {parametrization: lora_b+biases, dimension: 9}", "LoRA's weights; take film+kron_qr"),
        ("subspace: {targets: [q, c_attn]}", "subspace.targets ['q', 'c_attn'] must be one or more of q, k, v"),
        ("subspace: {targets: []}", "must be one or more of q, k, v"),
        ("subspace: {rank: 129}", "subspace.rank 129 exceeds model.width 128"),
        ("subspace: {parametrization: monarch, blocks: 129}", "subspace.blocks 129 exceeds model.width 128"),
        ("subspace: {parametrization: kronecker, blocks: 1}", "a Kronecker product has at least 2 factors"),
        ("subspace: {lora_alpha: 1.5}", "key 'subspace.lora_alpha': must be an integer, to be in the message"),
        ("kind: classify\nsubspace: {parametrization: lora, modules: [head, attention]}", "must be [attention, head], "),
        ("kind: classify\nmodel: {sorce: x}", "unknown key 'model.sorce'; did you mean 'model.source'?"),
        ("model: {layers: 1}\nmodel: {layers: 2}", "line 3: the key 'model' is there twice"),
        ("model: {layers: 1, layers: 1}", "line 2: the key 'layers' is there twice"),
        ("model: &a {layers: 1}\ntraining: *a", "aliases (*name) are not supported"),
        ("model: {{layers}}", "line 2: a key must be a word"),
        ("model: !!bool x", "not valid YAML"),
        ("model: !!timestamp x", "not valid YAML"),
        ("model: " + "[" * 1000, f"nested more than {DEEPEST} levels deep"),
        ("- a", "mine.yaml"),
        ("name: [", "not valid YAML"),
        ("#" * LARGEST, "larger than 1 MiB"),
    ],
    ids=lambda value: value[:50],
)
def test_what_is_wrong_is_named(write, text, message):
    path = write(text if text.startswith(("name", "- ")) else f"name: mine\n{text}\n")
    line = refused(load_experiment, path)
    assert message in line and line.startswith(f"{path}: ")


def test_a_key_that_is_like_none_is_not_guessed():
    line = refused(as_experiment, {"name": "mine", "model": {"depth": 3}})
    assert "did you mean" not in line


def test_every_mistake_is_named():
    line = refused(as_experiment, {"name": "mine", "modle": {}, "training": {"steps": 0}}, "mine")
    assert "'modle'" in line and "key 'training.steps'" in line and line.count("mine: ") == 1


def test_a_file_that_is_not_there(tmp_path):
    assert "cannot read the params file" in refused(load_experiment, tmp_path / "missing.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\0")
    assert "cannot read the params file" in refused(load_experiment, tmp_path / "binary.yaml")


# --- YAML


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((text, float(text)) for text in ("1e-3", "2E5", "+1.5e3", ".5", "5.", "-0.25")),
        *((text, int(text)) for text in ("0", "12", "-3")),
        *((text, None) for text in ("", "~", "null")),
        ("true", True),
        ("False", False),
        *((text, text) for text in ("0100", "1:30", "yes", "No", "on", "2020-01-01", "1_000", "0x10", ".inf", ".nan", "1.2.3")),
    ],
    ids=str,
)
def test_yaml_means_what_it_looks_like(text, value):
    found = read_yaml(f"key: {text}")["key"]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_dumped_means_the_same_again(write, kind):
    made = experiment(kind)
    assert load_experiment(write(as_yaml(made.parameters()))) == made


@pytest.mark.parametrize("text", ["1e-3", "1e3", "0100", "1:30", "yes", "null", "", "~", "1.", "2026-13-45", "2026-01-01", "a: b"])
def test_text_that_looks_like_something_else_is_quoted(text):
    assert read_yaml(as_yaml({"key": text})) == {"key": text}
    assert yaml.safe_load(as_yaml({"key": text})) == {"key": text}


# --- --set and grid


def test_keys_can_be_set_from_outside(write):
    path = write("name: mine\ntraining: {steps: 5}\n")
    made = load_experiment(path, ["training.steps=1000", "bounds.levels=[token, document]", "name=yours", "model.bias=true"])
    assert (made.training.steps, made.bounds.levels, made.name, made.model.bias) == (1000, ("token", "document"), "yours", True)
    assert load_experiment(path, ["training.learning_rate=1e-3", "training.steps=7", "training.steps=8"]).training.steps == 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training.steps", "--set 'training.steps': write it as key=value"),
        ("=3", "write it as key=value"),
        ("training.steps=[", "--set 'training.steps=[': "),
        ("name.steps=3", "--set 'name.steps=3': 'name' is not a group of keys"),
        ("training.stepps=3", "unknown key 'training.stepps'; did you mean 'training.steps'?"),
        ("training.steps=3.5", "key 'training.steps'"),
        *((f"training.steps={tag} '0100'", "are not supported; remove") for tag in ("!!int", "!", "!mine", "!<x>")),
        ("training.steps=!!int 7", "line 1: tags such as '!!int' are not supported; remove"),
        ("training.betas=!!seq [0.9, 0.99]", "'!!seq'"),
        ("training=!!map {steps: 3}", "'!!map'"),
        ('name="\\UFFFFFFFF"', "--set"),
    ],
)
def test_what_cannot_be_set_is_named(write, text, message):
    assert message in refused(load_experiment, write("name: mine\n"), [text])


def test_a_grid_is_all_combinations_named_after_their_values(write):
    path = write("name: mine\ntraining: {steps: 5}\ngrid:\n  subspace.dimension: [10, 20]\n  bounds.delta: [0.1, 1e-2, 0.5]\n")
    made = load_experiments(path, ["training.steps=9"])
    assert [(each.subspace.dimension, each.bounds.delta) for each in made] == [
        (dimension, delta) for dimension in (10, 20) for delta in (0.1, 0.01, 0.5)
    ]
    assert [each.name for each in made][:2] == ["mine-10-0.1", "mine-10-0.01"]
    assert {each.training.steps for each in made} == {9}
    assert "its grid describes 6 experiments" in refused(load_experiment, path)
    (one,) = load_experiments(path, ["grid={bounds.delta: [0.3]}"])
    assert load_experiment(path, ["grid={bounds.delta: [0.3]}"]) == one and one.name == "mine-0.3"


def test_keys_with_commas_between_them_get_the_same_value(write):
    path = write('name: mine\ngrid: {"model.seed, training.seed": [1, 2], bounds.delta: [0.1]}\n')
    runs = load_experiments(path)
    assert [(run.name, run.model.seed, run.training.seed) for run in runs] == [("mine-1-0.1", 1, 1), ("mine-2-0.1", 2, 2)]
    assert "sets training.seed" in refused(load_experiments, path, ["training.seed=5"])


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("3", "maps keys to lists"),
        ("{}", "maps keys to lists"),
        ("{bounds.delta: 0.1}", "maps keys to lists"),
        ("{bounds.delta: []}", "maps keys to lists"),
        ("{name.x: [1]}", "'name' is not a group"),
        ("{bounds.delt: [1]}", "unknown key 'bounds.delt'; did you mean 'bounds.delta'?"),
        ("{subspace.dimension: [2, 2]}", "the name mine-2, made of the values, would name two experiments"),
        ("{training.learning_rate: [1e-3, 0.001]}", "the name mine-0.001, made of the values, would name two experiments"),
        ("{corpus.source: [a/b, a-b]}", "the name mine-a-b, made of the values, would name two experiments"),
        (f"{{corpus.source: [{'a' * 100}]}}", "made of the values, is longer than 100 letters"),
        (f"{{model.seed: {list(range(40))}, subspace.seed: {list(range(40))}}}", "more than 1,000 experiments"),
    ],
    ids=lambda value: value[:40],
)
def test_a_grid_that_is_none(write, grid, message):
    path = write(f"name: mine\nsubspace: {{dimension: 5}}\ngrid: {grid}\n")
    line = refused(load_experiments, path)
    assert message in line and line.startswith(f"{path}: ")


def test_lists_and_paths_in_a_grid_name_folders(write):
    path = write("name: mine\ngrid:\n  corpus.source: [owner/data, ./there]\n  bounds.levels: [[token, document], [token]]\n")
    assert [each.name for each in load_experiments(path)] == [
        *("mine-owner-data-token-document", "mine-owner-data-token"),
        *("mine-.-there-token-document", "mine-.-there-token"),
    ]


def test_a_grid_without_a_name(write):
    assert "key 'name' is missing" in refused(load_experiments, write("grid: {subspace.dimension: [5]}\n"))


@pytest.mark.parametrize(("key", "value"), [("model.seed", "3"), ("model", "{layers: 1}")])
def test_a_key_of_the_grid_cannot_be_set(write, key, value):
    path = write("name: mine\ngrid: {model.seed: [1, 2]}\n")
    line = refused(load_experiments, path, [f"{key}={value}"])
    assert line == f"--set {key}: the grid of {path} sets model.seed; set grid={{model.seed: [...]}} instead"
    assert [each.model.seed for each in load_experiments(path, ["model.layers=1"])] == [1, 2]


def test_a_key_of_a_group_that_the_file_leaves_empty_can_be_set(write):
    assert load_experiment(write("name: mine\ntraining:\n"), ["training.steps=6"]).training.steps == 6
