"""Fine-tuning on documents that left the pool before the split: what comes out is public for the rest, and costs no bits.

*Pool* and *unseen* speak of what is left of the pool, and *iid* holds because the documents were removed at random. A
tenth of them is for validation, so that no document of the pool has a say in which checkpoint is kept.
"""

import dataclasses
import hashlib
import json
from pathlib import Path

import torch

from sublora.atomic import read_text, replaced_atomically, write_text
from sublora.data import TokenStore, split_of
from sublora.data.files import given_path
from sublora.errors import SubloraError
from sublora.experiment import Experiment, Finetune, OnText, Pretrained
from sublora.models.lora import without_adapters
from sublora.own import claim, delete_all_but, noted
from sublora.progress import silence_transformers
from sublora.training import train_phase

NOTE = "prior.json"
"""In the model's folder, written last: which documents made it, each by a hash of its tokens, and by which settings."""
VALIDATION = 10
"""One of so many prior documents is for validation."""
WEIGHTS, MOST = "model.safetensors", 2**28


def train_on_prior(experiment: Experiment, folder: Path, corpora: Path) -> Path:
    """`folder` with the model that is fine-tuned on the prior documents, as `transformers` saves it: a `model.source` for the rest.

    The parametrization and the training are those of the experiment. Finished training is kept; interrupted, it is continued; with
    other settings the model is made anew. corpora: folder of prepared corpora.
    Raises SubloraError for an experiment without prior documents or of another kind, and for a folder that holds other files.
    """
    from sublora.problems.text import TextProblem  # which refuses bases of prior documents that are in the pool

    if not isinstance(experiment, Finetune):
        raise SubloraError(f"kind {experiment.kind}: kind finetune is what is trained on prior documents")
    if (kind := experiment.subspace.parametrization) in ("biases", "tinylora", "lora_b+biases"):
        raise SubloraError(f"subspace.parametrization {kind}: transformers cannot save its model; take lora or full")
    if (count := experiment.corpus.prior_documents) is None or count < 2:
        raise SubloraError("corpus.prior_documents: set it to how many documents leave the pool to be trained on, 2 or more")
    problem = TextProblem.open(experiment, corpora)
    store, prior = problem.store, problem.split.prior
    settings = {key: problem.experiment.parameters()[key] for key in ("corpus", "model", "subspace", "training")}
    settings["model"].pop("public_since", None)  # which is only said
    made_from = {"tokens": store.sha256, "documents": count, "torch": torch.__version__, "settings": settings}
    made_from["hashes"] = sorted(_hash(store, int(document)) for document in prior)
    text = json.dumps(made_from, indent=1) + "\n"
    claim(folder)
    note = folder / NOTE
    if note.is_file() and note.read_text("utf-8") == text:
        return folder
    if note.exists():
        delete_all_but(folder, [])
    few = max(1, len(prior) // VALIDATION)
    split = dataclasses.replace(problem.split, train=prior[few:], validation=prior[:few], test=prior[:0])
    model = problem.build()
    train_phase(model, store, split, problem.experiment, folder / "training", phase="pretrain")
    base = without_adapters(model.materialized().cpu()).base
    silence_transformers()
    with replaced_atomically(folder / WEIGHTS) as weights, replaced_atomically(folder / "config.json") as config:
        _save(base, weights, config)
    write_text(note, text)
    delete_all_but(folder, [name for name in noted(folder) if not name.endswith("pretrain.safetensors")])
    return folder


def refuse_base_of_the_pool(experiment: OnText, store: TokenStore) -> None:
    """Raises SubloraError for a base that `train_on_prior` made of documents that are in the experiment's pool.

    Of the same store, as many documents must have left as made it: equal ones that remain are the corpus's own. Of another store,
    as with another `max_documents`, none of them may be in the pool.
    """
    if not isinstance(model := experiment.model, Pretrained):
        return
    try:
        values = json.loads(read_text(given_path(model.source, "model.source") / NOTE, MOST, "a note of prior documents"))
        tokens, count, hashes = values["tokens"], int(values["documents"]), frozenset(values.get("hashes", ()))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, SubloraError):
        return  # a model of another making
    source = f"model.source: {model.source!r:.80} was trained on {count:,} prior documents of"
    if tokens == store.sha256:
        if count > (experiment.corpus.prior_documents or 0):
            raise SubloraError(f"{source} this corpus, which must not be in its pool; set corpus.prior_documents to {count}")
        return
    left = set(split_of(store, experiment.corpus).prior.tolist()) if hashes else set(range(len(store)))
    if inside := sum(_hash(store, document) in hashes for document in range(len(store)) if document not in left):
        cure = f"take that corpus as it was, with corpus.prior_documents {count}"
        raise SubloraError(f"{source} another corpus, {inside:,} of which are in this pool; {cure}")


def _hash(store: TokenStore, document: int) -> str:
    """Of a document's tokens, whatever the numbers that a store keeps them in."""
    return hashlib.blake2b(store.document(document).astype("<u4").tobytes(), digest_size=8).hexdigest()


def _save(base, weights: Path, config: Path) -> None:
    """The weights, each once, and the configuration, as `transformers` reads them."""
    from safetensors.torch import save_file

    named = {name: weight.detach().contiguous() for name, weight in base.named_parameters()}
    save_file(named, weights, metadata={"format": "pt"})
    config.write_text(base.config.to_json_string(use_diff=True), "utf-8")
