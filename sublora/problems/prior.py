"""Fine-tuning on documents that left the pool before the split: what comes out is public for the rest, and costs no bits.

*Pool* and *unseen* speak of what is left of the pool, and *iid* holds because the documents were removed at random. A
tenth of them is for validation, so that no document of the pool has a say in which checkpoint is kept.
"""

import dataclasses
import json
from pathlib import Path

import torch

from sublora.atomic import read_text, replaced_atomically, write_text
from sublora.data import TokenStore
from sublora.data.files import given_path
from sublora.errors import SubloraError
from sublora.experiment import Experiment, Finetune, OnText, Pretrained
from sublora.models.lora import without_adapters
from sublora.own import claim, delete_all_but, noted
from sublora.progress import silence_transformers
from sublora.training import train_phase

NOTE = "prior.json"
"""In the model's folder, written last: which documents made it, and by which settings."""
VALIDATION = 10
"""One of so many prior documents is for validation."""
WEIGHTS, MOST = "model.safetensors", 2**20


def train_on_prior(experiment: Experiment, folder: Path, corpora: Path) -> Path:
    """`folder` with the model that is fine-tuned on the prior documents, as `transformers` saves it: a `model.source` for the rest.

    The parametrization and the training are those of the experiment. Finished training is kept; interrupted, it is continued; with
    other settings the model is made anew. corpora: folder of prepared corpora.
    Raises SubloraError for an experiment without prior documents or of another kind, and for a folder that holds other files.
    """
    from sublora.problems.text import TextProblem  # which refuses bases of prior documents that are in the pool

    if not isinstance(experiment, Finetune):
        raise SubloraError(f"kind {experiment.kind}: kind finetune is what is trained on prior documents")
    if (count := experiment.corpus.prior_documents) is None or count < 2:
        raise SubloraError("corpus.prior_documents: set it to how many documents leave the pool to be trained on, 2 or more")
    problem = TextProblem.open(experiment, corpora)
    store, prior = problem.store, problem.split.prior
    settings = {key: problem.experiment.parameters()[key] for key in ("corpus", "model", "subspace", "training")}
    settings["model"].pop("public_since", None)  # which is only said
    made_from = {"tokens": store.sha256, "documents": count, "torch": torch.__version__, "settings": settings}
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
    """Raises SubloraError for a base that `train_on_prior` made of documents of this store that are in the experiment's pool."""
    if not isinstance(model := experiment.model, Pretrained):
        return
    try:
        values = json.loads(read_text(given_path(model.source, "model.source") / NOTE, MOST, "a note of prior documents"))
        tokens, count = values["tokens"], int(values["documents"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError, SubloraError):
        return  # a model of another making
    if tokens == store.sha256 and count > (experiment.corpus.prior_documents or 0):
        why = f"trained on {count:,} prior documents of this corpus, which must not be in its pool"
        raise SubloraError(f"model.source: {model.source!r:.80} was {why}; set corpus.prior_documents to {count}")


def _save(base, weights: Path, config: Path) -> None:
    """The weights, each once, and the configuration, as `transformers` reads them."""
    from safetensors.torch import save_file

    named = {name: weight.detach().contiguous() for name, weight in base.named_parameters()}
    save_file(named, weights, metadata={"format": "pt"})
    config.write_text(base.config.to_json_string(use_diff=True), "utf-8")
