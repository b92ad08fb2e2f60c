"""Documents that leave the pool before the split: they are in no part of it, and what they make is a public base for the rest."""

import json
import re

import numpy as np
import pytest
import torch
from tiny import complaint, put, settings, write_params, write_texts

from sublora.data import draw_split, prepare
from sublora.errors import SubloraError
from sublora.experiment import Corpus, as_experiment
from sublora.models import base_model, build
from sublora.models.lora import without_adapters
from sublora.models.tiny import make_pretrained
from sublora.problems import TextProblem
from sublora.problems.prior import NOTE, train_on_prior
from sublora.reporting import sentences
from sublora.run import Run
from sublora.verification import verify

V, PRIOR = 257, 120


@pytest.fixture(autouse=True)
def in_their_folder(home, monkeypatch):
    monkeypatch.chdir(home)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Texts, and a pretrained model that knows little of them."""
    home = tmp_path_factory.mktemp("home")
    store = prepare(Corpus(source="text", path=str(write_texts(home / "texts"))), home / "stores")
    make_pretrained(home / "base", store, width=16, block=32, steps=3, batch=8)
    write_params(home / "free.yaml", values())
    return home


def values(**groups):
    """Fine-tuning of all weights."""
    found = settings("texts", kind="finetune", name="free", model={"source": "base", "block": 32})
    found["corpus"]["prior_documents"] = PRIOR
    found["training"] |= {"learning_rate": 0.01, "steps": 30}
    bounds = {"documents": 50, "pilot": 0.5, "held_out_documents": 30}
    return found | {"subspace": {"parametrization": "full"}, "bounds": bounds} | groups


def of_the_rest(source, prior=PRIOR):
    """The certificate's experiment of a base in that folder, as it is."""
    found = {k: v for k, v in values().items() if k not in ("training", "compression", "subspace")}
    found |= {"kind": "zeroshot", "name": f"rest{prior}", "reference": {"name": "base"}}
    found["model"] = {"source": str(source), "block": 32}
    return put(found, ("corpus", "prior_documents"), prior)


@pytest.fixture(scope="module")
def free(home):
    """The folder of the model that was trained on the prior documents."""
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(home)
        return train_on_prior(as_experiment(values()), home / "free", home / "runs" / "corpora")


def parts(split):
    return np.concatenate([split.train, split.validation, split.test])


# -- the split -------------------------------------------------------------------------------------------------------------


def test_they_are_in_no_part_of_the_split_and_do_not_depend_on_its_seed():
    corpora = [Corpus(prior_documents=200, split_seed=seed) for seed in (0, 1)]
    first, other = (draw_split(1000, corpus) for corpus in corpora)
    for split in (first, other):
        assert sorted([*split.prior, *parts(split)]) == list(range(1000)) and len(split.prior) == 200
        assert (len(split.train), len(split.validation)) == (600, 16), "shares are of what is left"
    assert first.prior.tolist() == other.prior.tolist() and first.train.tolist() != other.train.tolist()
    fewer = draw_split(1000, Corpus(prior_documents=50))
    assert fewer.prior.tolist() == first.prior[:50].tolist(), "fewer of them are among more of them"
    assert abs(np.mean(first.prior) - 500) < 60, "they are from everywhere"
    said = "200 documents removed at random (order of SHAKE-256 keys, without a seed), then 800 documents by"
    assert first.description.startswith(said)


def test_without_them_a_split_is_as_it_was():
    plain, none = draw_split(1000, Corpus()), Corpus().model_dump()
    assert len(plain.prior) == 0 and "prior_documents" not in none and sorted(parts(plain)) == list(range(1000))
    assert Corpus(prior_documents=3).model_dump()["prior_documents"] == 3


def test_too_many_of_them_are_refused_and_so_are_other_splits():
    for prior in (298, 300, 10**6):
        with pytest.raises(SubloraError, match="prior ones: a split .* needs at least 6; lower corpus.prior_documents"):
            draw_split(300, Corpus(prior_documents=prior))
    for split, source in (("positions", {}), ("paper", {"source": "openwebtext"})):
        with pytest.raises(SubloraError, match=f"prior_documents goes with split seeded, not with {split}; remove it"):
            as_experiment({"name": "x", "corpus": {"split": split, "prior_documents": 5, **source}})


def test_the_certificate_says_how_many_left_and_the_pool_is_what_is_left(free):
    run = Run(of_the_rest(free), "runs")
    certificate = run.certify()
    assert (certificate.corpus.prior, certificate.corpus.pool, certificate.corpus.documents) == (PRIOR, 300 - PRIOR, 108)
    assert {b.pool for b in certificate.statements} == {300 - PRIOR}
    assert f"108 of 180 to train on, by a random permutation from split seed 0, behind {PRIOR} that were removed at random" == (
        sentences.split(certificate)
    )
    store, split = run.problem.store, run.problem.split
    assert certificate.public.reference.shortest == store.lengths[parts(split)].min()
    path = run.folder / "certificate.json"
    assert verify(path, run.corpora) == []
    data = certificate.data()
    data["params"]["corpus"]["prior_documents"] = PRIOR - 1
    other = run.folder.parent / "other.json"
    other.write_text(json.dumps(data, indent=1) + "\n", "utf-8")
    with pytest.raises(SubloraError, match="corpus.prior is not params.corpus.prior_documents"):
        verify(other, run.corpora)
    data["corpus"]["prior"] = PRIOR - 1
    other.write_text(json.dumps(data, indent=1) + "\n", "utf-8")
    assert any(line.startswith("corpus.pool: the certificate says 180") for line in verify(other, run.corpora))


def test_the_shortest_document_is_the_pool_s(home):
    """Where the shortest of all left the pool."""
    problem = TextProblem.open(as_experiment(values()), home / "runs" / "corpora")
    lengths = problem.store.lengths.copy()
    problem.split.prior[0] = np.argmin(lengths)
    expected = int(np.delete(lengths, problem.split.prior).min())
    assert problem._shortest == expected


# -- the model -------------------------------------------------------------------------------------------------------------


def test_the_model_has_learnt_from_them_and_costs_no_bits_for_the_rest(free):
    """Its own level is better than that of the model that it started from, and its message as short."""
    trained, before = (Run(of_the_rest(source) | {"name": source.name}, "runs") for source in (free, free.with_name("base")))
    first, second = trained.certify(), before.certify()
    assert abs(first.message_bits - second.message_bits) <= 16
    level = [next(b for b in c.statements if b.reference and b.inequality == "betting") for c in (first, second)]
    assert level[0].bound < level[1].bound - 0.5 and level[0].reference_empirical < level[1].reference_empirical - 0.5


def test_no_document_of_the_pool_is_read_not_even_to_choose_a_checkpoint(home, free, monkeypatch):
    read = []
    from sublora.training import pretrain

    class Recorded(pretrain.Sampler):
        def __init__(self, store, documents, *others, **options):
            read.extend(documents.tolist())
            super().__init__(store, documents, *others, **options)

    monkeypatch.setattr(pretrain, "Sampler", Recorded)
    experiment = as_experiment(put(values(), ("training", "steps"), 10))
    train_on_prior(experiment, home / "short", home / "runs" / "corpora")
    prior = draw_split(300, experiment.corpus).prior
    assert sorted(set(read)) == sorted(read), "training and validation documents differ"
    assert set(read) <= set(prior.tolist()) and len(read) > 0.9 * len(prior) - experiment.training.validation_documents


def test_what_is_finished_is_kept_and_other_settings_make_it_anew(home, free):
    made = (free / "model.safetensors").stat().st_mtime_ns
    files = sorted(p.name for p in free.iterdir() if p.is_file())
    assert files == ["config.json", "made-by-sublora.txt", "model.safetensors", NOTE]
    again = train_on_prior(as_experiment(values()), free, home / "runs" / "corpora")
    assert (again / "model.safetensors").stat().st_mtime_ns == made
    short = home / "short2"
    for steps in (10, 11):
        train_on_prior(as_experiment(put(values(), ("training", "steps"), steps)), short, home / "runs" / "corpora")
        assert json.loads((short / NOTE).read_text())["settings"]["training"]["steps"] == steps
    (home / "mine").mkdir()
    (home / "mine" / "thesis.tex").write_text("work")
    with pytest.raises(SubloraError, match="holds files that no run made"):
        train_on_prior(as_experiment(values()), home / "mine", home / "runs" / "corpora")


def test_a_model_that_cannot_be_saved_as_a_base_is_refused(home):
    for kind in ("biases", "tinylora", "lora_b+biases"):
        with pytest.raises(SubloraError, match=f"parametrization {re.escape(kind)}: transformers cannot save its model"):
            train_on_prior(as_experiment({**values(), "subspace": {"parametrization": kind}}), home / "none", home / "corpora")
    assert not (home / "none").exists()


def test_a_base_of_documents_that_are_in_the_pool_is_refused(free):
    for prior in (PRIOR - 1, None):
        found = of_the_rest(free, prior)
        says = f"trained on {PRIOR} prior documents of this corpus.*set corpus.prior_documents to {PRIOR}"
        with pytest.raises(SubloraError, match=says):
            Run(found, "runs").problem  # noqa: B018
    assert Run(of_the_rest(free, PRIOR + 5), "runs").problem.split.prior[:PRIOR].tolist() == draw_split(
        300, Corpus(prior_documents=PRIOR)
    ).prior.tolist()


def test_another_number_of_documents_does_not_bring_them_back_into_the_pool(free, home):
    """Of fewer documents the store has another hash, and others leave the pool. The broken form knew the store's hash alone."""
    note = json.loads((free / NOTE).read_text())
    assert len(note["hashes"]) == PRIOR
    fewer = put(of_the_rest(free), ("corpus", "max_documents"), 299)
    experiment = as_experiment(put(fewer, ("corpus", "prior_documents"), PRIOR))
    store = prepare(experiment.corpus, home / "runs" / "corpora")
    assert store.sha256 != note["tokens"] and len(store) == 299
    with pytest.raises(SubloraError, match=rf"trained on {PRIOR} prior documents of another corpus, \d+ of which are in this pool"):
        TextProblem.open(experiment, home / "runs" / "corpora")
    others = home / "others"
    others.mkdir()
    for number in range(40):
        (others / f"{number}.txt").write_text(f"quite another text, number {number}\n", "utf-8")
    elsewhere = {"source": "text", "path": str(others), "train": 0.6}
    experiment = as_experiment({**of_the_rest(free), "corpus": elsewhere})
    assert len(TextProblem.open(experiment, home / "runs" / "corpora").store) == 40, "none of them is in that pool"


@pytest.mark.parametrize("targets", [["all"], ["q_proj"]])
def test_adapters_are_multiplied_out(home, targets):
    """Also on a head that shares its weight with the embedding, which LoRA leaves alone."""
    lora = {"parametrization": "lora", "rank": 2, "targets": targets, "lora_dropout": 0.0}
    experiment = as_experiment(values(subspace=lora))
    model = build(experiment.model, experiment.subspace, V).eval()
    with torch.no_grad():
        model.coordinates.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
        tokens = torch.arange(20)[None]
        expected, plain = model(tokens), base_model(experiment.model, V)(tokens)
        found = without_adapters(model.materialized())
        assert not any("lora" in name for name, _ in found.named_parameters())
        assert torch.allclose(found(tokens), expected, atol=1e-4) and (expected - plain).abs().max() > 1e-3
    source = train_on_prior(experiment, home / f"lora-{targets[0]}", home / "runs" / "corpora")
    made = base_model(experiment.model.model_copy(update={"source": str(source)}), V)
    assert ("base.lm_head.weight" in dict(made.named_parameters())) == (targets == ["all"])


def test_the_command_and_its_errors(home, sublora):
    status, out, err = sublora("prior", "free.yaml", "by-command", "--set", "training.steps=10")
    assert status == 0, err
    assert "finished: by-command; certify it on the rest with model.source: by-command and the same corpus.prior_documents" in out
    assert (home / "by-command" / "model.safetensors").is_file()
    write_params(home / "none.yaml", put(values(), ("corpus", "prior_documents"), KeyError))
    assert "corpus.prior_documents: set it to how many" in complaint(sublora("prior", "none.yaml", "x"))
    write_params(home / "zero.yaml", of_the_rest("base"))
    assert "kind zeroshot: kind finetune is what is trained" in complaint(sublora("prior", "zero.yaml", "x"))
    assert not (home / "x").exists()
