"""Base models and what is trained in them: any sequence classifier through `from_pretrained`, and the bag of hashed words."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import change_weights, record_requests, save_model

from sublora.errors import SubloraError
from sublora.experiment import Encoder, TaskSubspace, Words
from sublora.models.build import tensors_sha256
from sublora.models.classifiers import base_sha256s, classifier_base, classifier_in_subspace

KINDS = ("gpt2", "bert", "roberta", "distilbert")
TEXTS = [("a good film .",), ("the film is not very fine .",), ("dull",), ("",)]
PAIRS = [("a good film .", "is the film bad ?"), ("dull", "not good .")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {kind: save_model(tmp_path_factory.mktemp(kind), kind) for kind in KINDS}


def base_of(source=None, labels=2, max_length=128, local_only=False, **settings):
    """The base model of a folder, or a bag of words."""
    model = Words(**settings) if source is None else Encoder(source=source, **settings)
    return classifier_base(model, labels, max_length, local_only)


def lora(*modules):
    settings = {"rank": 2, "lora_dropout": 0.0, "seed": 3} if "attention" in modules else {}
    return TaskSubspace(parametrization="lora", modules=modules, **settings)


def logits(model, encoded, which=slice(None)):
    longest = max(1, int(encoded.lengths[which].max()))
    with torch.inference_mode():
        return model(torch.from_numpy(encoded.ids[which, :, :longest].astype(np.int64)))


@pytest.mark.parametrize("kind", KINDS)
def test_any_sequence_classifier_and_padding_changes_nothing(folders, kind):
    base = base_of(folders[kind]).eval()
    encoded = base.encode(TEXTS[:3])
    assert encoded.ids.shape == (3, 3, max(encoded.lengths)) and encoded.lengths.tolist() == [4, 7, 1]
    together = logits(base, encoded)
    assert together.shape == (3, 1, 2)
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], logits(base, encoded, slice(i, i + 1)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("modules", [("attention", "head"), ("attention",), ("head",)], ids="+".join)
def test_what_is_trained_is_what_the_modules_say(folders, kind, modules):
    base = base_of(folders[kind])
    classifier = classifier_in_subspace(base, lora(*modules))
    body = f"base.{base.base.base_model_prefix}."
    adapters = [name for name in classifier.names if "lora_" in name]
    head = [name for name in classifier.names if "lora_" not in name]
    assert bool(adapters) == ("attention" in modules) and all(name.startswith(body) for name in adapters)
    assert bool(head) == ("head" in modules) and not any(name.startswith(body) for name in head)
    assert classifier.coordinates.numel() == sum(classifier.sizes)


@pytest.mark.parametrize("kind", KINDS)
def test_at_coordinates_zero_the_classifier_is_its_base_model(folders, kind):
    base = base_of(folders[kind]).eval()
    encoded = base.encode(TEXTS[:2])
    before = logits(base, encoded)
    classifier = classifier_in_subspace(base, TaskSubspace(dimension=7, rank=2, lora_dropout=0.0)).eval()
    torch.testing.assert_close(logits(classifier, encoded), before)
    with torch.no_grad():
        classifier.coordinates.add_(1.0)
    assert not torch.allclose(logits(classifier, encoded), before)


def weights_sha256(base):
    return tensors_sha256(sorted(base.state_dict().items()))


def test_weights_are_those_of_the_folder_or_drawn_from_the_seed(folders):
    pretrained, again = (weights_sha256(base_of(folders["gpt2"])) for _ in range(2))
    assert pretrained == again
    random = [weights_sha256(base_of(folders["gpt2"], load_pretrained=False, seed=seed)) for seed in (0, 0, 1)]
    assert random[0] == random[1] and len({pretrained, *random}) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_that_the_folder_lacks_is_drawn_from_the_seed(tmp_path, kind):
    folder = save_model(tmp_path / kind, kind, head=False)
    models = [base_of(folder, labels=3, seed=seed) for seed in (0, 0, 1)]
    assert weights_sha256(models[0]) == weights_sha256(models[1]) != weights_sha256(models[2])
    assert weights_sha256(models[0].base.base_model) == weights_sha256(models[2].base.base_model)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head", [True, False])
def test_a_body_that_is_not_whole_is_named(tmp_path, kind, head):
    """A head may be missing, and that of another task may be there; the body's weights are all in the files, and no other."""
    folder = save_model(tmp_path / kind, kind, head=head)
    change_weights(folder, lambda weights: weights | {"lm_head.bias": torch.zeros(3)})
    assert base_of(folder)
    layer = "h.0" if kind == "gpt2" else "layer.0"
    change_weights(folder, lambda weights: {name.replace(layer, layer[:-1] + "7"): weight for name, weight in weights.items()})
    with pytest.raises(SubloraError, match=rf"the files lack \w+\..*{layer}.*; they have the unexpected .*{layer[:-1]}7") as error:
        base_of(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrappers_prefix_and_a_weight_that_is_not_finite_are_named(tmp_path, kind):
    folder = save_model(tmp_path / kind, kind)
    change_weights(folder, lambda weights: {name: weight.fill_(float("inf")) for name, weight in weights.items()})
    with pytest.raises(SubloraError, match="has an element that is not finite"):
        base_of(folder)
    change_weights(folder, lambda weights: {f"_orig_mod.{name}": weight for name, weight in weights.items()})
    with pytest.raises(SubloraError, match=r"the files lack .*; they have the unexpected _orig_mod\."):
        base_of(folder)


def test_a_text_that_the_tokenizer_cannot_read_is_one_line(tmp_path):
    path = Path(save_model(tmp_path / "bert", "bert")) / "tokenizer.json"
    base = base_of(str(path.parent))
    assert base.encode([("good unheard",)]).lengths.tolist() == [2]
    values = json.loads(path.read_text("utf-8"))
    values["model"]["unk_token"] = "[NONE]"
    path.write_text(json.dumps(values), "utf-8")
    with pytest.raises(SubloraError, match="its tokenizer cannot read the examples") as error:
        base_of(str(path.parent)).encode([("good unheard",)])
    assert "\n" not in str(error.value)


def rewrite(path, change):
    """Change what a JSON file says."""
    data = json.loads(Path(path).read_text("utf-8"))
    change(data)
    Path(path).write_text(json.dumps(data), "utf-8")


@pytest.mark.parametrize(
    ("file", "change", "differs"),
    [
        ("tokenizer.json", lambda d: d.update(normalizer={"type": "Lowercase"}), "tokenizer_sha256"),
        ("tokenizer.json", lambda d: d["model"]["vocab"].update(good=7, bad=6), "tokenizer_sha256"),
        ("tokenizer_config.json", lambda d: d.update(truncation_side="left"), "tokenizer_sha256"),
        ("tokenizer_config.json", lambda d: d.update(model_max_length=5), "tokenizer_sha256"),
        ("config.json", lambda d: d.update(hidden_act="relu"), "configuration_sha256"),
        ("config.json", lambda d: d.update(layer_norm_eps=0.1), "configuration_sha256"),
        ("config.json", lambda d: d.update(transformers_version="0", dtype="float64"), None),
    ],
    ids=["normalizer", "vocabulary", "side", "length", "activation", "epsilon", "said by nobody"],
)
def test_all_that_makes_the_base_model_has_a_fingerprint(tmp_path, file, change, differs):
    folder = save_model(tmp_path / "bert", "bert")
    before = base_sha256s(base_of(folder))
    rewrite(f"{folder}/{file}", change)
    base = base_of(folder)
    base.encode(TEXTS)  # as every user does
    after = base_sha256s(base)
    assert {key for key in before if before[key] != after[key]} == ({differs} if differs else set())


def test_an_adapter_beside_the_model_is_refused(tmp_path):
    """Its scale changes the model, and no weight says it."""
    from peft import LoraConfig
    from transformers import AutoModelForSequenceClassification

    folder = save_model(tmp_path / "bert", "bert")
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    model.add_adapter(LoraConfig(target_modules=["query"], lora_alpha=7))
    model.save_pretrained(tmp_path / "adapter")
    for path in (tmp_path / "adapter").iterdir():
        path.replace(f"{folder}/{path.name}")
    rewrite(f"{folder}/adapter_config.json", lambda d: d.update(base_model_name_or_path=folder))
    with pytest.raises(SubloraError, match="holds an adapter .*not a whole model"):
        base_of(folder)


def test_a_head_for_other_labels_is_drawn_anew(folders):
    three = base_of(folders["bert"], labels=3).state_dict()
    assert next(weights for name, weights in three.items() if name.endswith("classifier.bias")).shape == (3,)


def test_building_a_model_leaves_the_random_state_alone(folders):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    base_of(folders["gpt2"], load_pretrained=False)
    assert torch.equal(before, torch.random.get_rng_state())


def test_pairs_are_two_segments(folders):
    encoded = base_of(folders["bert"]).encode(PAIRS)
    assert encoded.lengths.tolist() == [9, 4]


def test_long_texts_are_cut_to_what_the_model_and_the_settings_allow(folders):
    long = [("good " * 200,)]
    for source, max_length, length in ((folders["gpt2"], 128, 64), (folders["gpt2"], 10, 10), (None, 10, 10)):
        assert base_of(source, max_length=max_length).encode(long).lengths.tolist() == [length]


def test_a_model_without_padding_token_pads_with_its_end_token(folders):
    base = base_of(folders["gpt2"])
    assert base.tokenizer.pad_token == "</s>" and base.base.config.pad_token_id == 3


@pytest.mark.parametrize("what", ["no folder", "no config", "no tokenizer", "no weights", "pickle"])
def test_what_is_missing_is_said_in_one_line(tmp_path, monkeypatch, what):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tmp_path / "model"
    if what != "no folder":
        save_model(folder, tokenizer=what != "no tokenizer")
    if what == "no config":
        (folder / "config.json").unlink()
    if what in ("no weights", "pickle"):
        (folder / "model.safetensors").unlink()
    if what == "pickle":
        torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(SubloraError) as error:
        base_of(str(folder), local_only=True)
    says = {"no folder": "no local folder", "no config": "config.json", "no tokenizer": "tokenizer.save_pretrained"}
    assert says.get(what, "safetensors") in str(error.value)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_tokenizer_in_place_of_a_missing_one_is_not_accepted(tmp_path, kind):
    with pytest.raises(SubloraError, match=r"no tokenizer that can be read.*save one beside the model"):
        base_of(save_model(tmp_path / kind, kind, tokenizer=False), local_only=True)


def test_a_model_without_known_attention_maps_trains_its_head_alone():
    with pytest.raises(SubloraError, match=r"no attention maps named c_attn, .*; use \[head\]"):
        classifier_in_subspace(base_of(), lora("attention"))
    assert classifier_in_subspace(base_of(buckets=9), lora("head")).coordinates.numel() == 10


def test_a_bag_of_words_is_a_sum_of_its_words_weights():
    model = base_of(buckets=50, prefix=4)
    encoded = model.encode(TEXTS)
    assert logits(model, encoded).abs().sum() == 0
    with torch.no_grad():
        model.head.weight.copy_(torch.arange(50.0)[None])
        model.head.bias.fill_(0.5)
    found = logits(model, encoded)[:, 0]
    for i in range(len(TEXTS)):
        words = encoded.ids[i, 0, : encoded.lengths[i]]
        assert found[i, 0] == 0
        assert float(found[i, 1]) == pytest.approx(words.sum() / max(1, len(words)) ** 0.5 + 0.5)
    assert logits(model, encoded, slice(2, 3))[0, 0, 1] == found[2, 1]


def test_a_bag_of_words_hashes_lower_case_beginnings_by_place_and_seed():
    model = base_of(buckets=2**20, prefix=4)
    same = model.encode([("Films good",), ("filmmaker GOOD",)]).ids[:, 0]
    assert (same[0] == same[1]).all() and same[0, 0] != same[0, 1]
    pair = base_of(buckets=2**20).encode([("good", "good")]).ids[0, 0]
    assert pair[0] != pair[1]
    other = base_of(buckets=2**20, prefix=4, seed=1).encode([("Films good",)]).ids[0, 0]
    assert (other != same[0]).all()
    many = base_of(buckets=16).encode([(f"word{i}",) for i in range(4_000)]).ids[:, 0, 0]
    assert np.bincount(many, minlength=16).min() > 150  # of 250 each


@pytest.mark.parametrize("labels", [2, 3])
def test_the_first_label_has_the_logit_zero(labels):
    model = base_of(labels=labels)
    with torch.no_grad():
        model.head.bias.fill_(0.5)
    assert logits(model, model.encode([("a", "b")])).tolist() == [[[0.0] + [0.5] * (labels - 1)]]


def test_a_word_has_as_many_buckets_as_the_settings_say():
    model = base_of(buckets=2**20, hashes=3, max_length=2)
    one, two = model.encode([("good",)]), model.encode([("good film bad",)])
    assert one.lengths.tolist() == [3] and two.lengths.tolist() == [6], "three buckets each of at most two words"
    assert (two.ids[0, 0, :3] == one.ids[0, 0]).all() and len(set(two.ids[0, 0])) == 6


@pytest.mark.parametrize("kind", ["own", None])
@pytest.mark.parametrize("load_pretrained", [True, False])
def test_code_that_comes_with_a_model_is_not_run(tmp_path, load_pretrained, kind):
    """Nor is its model taken for one of transformers, though its type may be known."""
    folder = Path(save_model(tmp_path / "model"))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n", "utf-8")
    values = json.loads((folder / "config.json").read_text("utf-8"))
    own = {"AutoConfig": "own.Config", "AutoModelForSequenceClassification": "own.Model"}
    (folder / "config.json").write_text(json.dumps({**values, **({"model_type": kind} if kind else {}), "auto_map": own}), "utf-8")
    with pytest.raises(SubloraError) as error:
        base_of(str(folder), local_only=True, load_pretrained=load_pretrained)
    assert "\n" not in str(error.value) and not (tmp_path / "ran").exists()
    assert kind == "own" or "auto_map" in str(error.value)


def test_nothing_is_asked_for_where_only_local_files_may_be_read(tmp_path, monkeypatch):
    """Not even for a model that the hub's cache has."""
    snapshot = tmp_path / "models--owner--name" / "snapshots" / ("0123456789" * 4)
    save_model(snapshot, "bert")
    (tmp_path / "models--owner--name" / "refs").mkdir()
    (tmp_path / "models--owner--name" / "refs" / "main").write_text(snapshot.name)
    asked = record_requests(monkeypatch, "owner/name")
    for module in ("huggingface_hub.constants.HF_HUB_CACHE", "huggingface_hub.file_download.HF_HUB_CACHE"):
        monkeypatch.setattr(module, str(tmp_path), raising=False)
    base = base_of("owner/name", local_only=True)
    assert base.encode(TEXTS[:1]).lengths.tolist() == [4] and asked == []
