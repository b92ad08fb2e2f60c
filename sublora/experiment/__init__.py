"""What one params file says: an experiment, validated and immutable."""

from sublora.experiment.groups import (
    ALPHA_GRID,
    BASES,
    LAYERS,
    OWN_TOKENIZERS,
    PARAMETRIZATIONS,
    PROJECTORS,
    TOP_K,
    Bounds,
    Compression,
    Corpus,
    Counting,
    Counts,
    Encoder,
    Exact,
    FinetuneSubspace,
    Gpt,
    Level,
    Pretrained,
    Reference,
    Rounding,
    Subspace,
    Task,
    TaskSubspace,
    TaskTraining,
    Training,
    Words,
    class_name,
    is_table,
)
from sublora.experiment.kinds import Classify, Experiment, Finetune, Ngram, OnText, Pretrain, Round, Zeroshot, as_experiment
from sublora.experiment.params import load_experiment, load_experiments
