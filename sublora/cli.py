"""Train small language models, compress them, and certify how well they predict text they have not seen."""

# Every command is one call of the package. Errors are one line and a non-zero exit.
# What takes seconds to import is imported by the command that needs it.

import io
import json
import os
import shlex
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any, TextIO, get_args

import typer

from sublora import study
from sublora.atomic import replaced_atomically, write_text
from sublora.certificate.comparison import UnitsFrom, load_comparison
from sublora.certificate.schema import SEARCH, load_certificate
from sublora.errors import FULL, SubloraError, one_line, printable
from sublora.experiment import Pretrain, as_experiment, load_experiment, load_experiments
from sublora.limits import DEFAULT, MOST, Limits, limited
from sublora.reporting import comparisons, reading, terminal

LONGEST = 2000
"""The most characters of an error or a warning."""
MOST_LINES = 10
"""The most lines about one certificate: other heads or layers, say, move every number."""

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__.splitlines()[0])


def _of_the_study(path: Path | None) -> Path | None:
    """A relative path leads to the study, as it does in notebooks: in its folder `notebooks`, `runs` is the folder beside it."""
    here = study.study_folder()
    return path if path is None or here == Path.cwd() else Path(os.path.relpath(here / path))


Runs = Annotated[
    Path, typer.Option(help="Folder for runs. Its subfolder `corpora` holds prepared corpora.", callback=_of_the_study)
]

Memory = Annotated[float, typer.Option(min=0.1, max=MOST.memory, help="The most memory that one check may take, in GiB.")]
Minutes = Annotated[float, typer.Option(min=0.1, max=MOST.minutes, help="The most minutes that one check may take.")]


@app.command()
def init(folder: Annotated[Path, typer.Argument(help="A new or an empty folder.")]) -> None:
    """Begin a study: copy the package's notebooks, params files and report pages to FOLDER."""
    study.new_study(folder)
    _say(f"begun: {folder}, with {', '.join(study.PARTS)}")
    _say(f"next: cd {shlex.quote(str(folder))} && sublora run params/quick.yaml")


@app.command()
def run(
    params: Annotated[list[Path], typer.Argument(help="Params files. Each describes one experiment, or several with a grid.")],
    runs: Runs = Path("runs"),
    notebooks: Annotated[
        Path | None, typer.Option(help="Folder of notebooks. Default: ./notebooks, else the package's.", callback=_of_the_study)
    ] = None,
    force: Annotated[bool, typer.Option(help="Run everything again, finished steps included.")] = False,
    *,
    set: Annotated[list[str] | None, typer.Option("--set", help="Override a key, such as training.steps=100. Repeatable.")] = None,
    beacon: Annotated[
        str | None, typer.Option(metavar="HEX", help="Draw evaluated subsamples from this public value, not from the message.")
    ] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="Train and score with this many processes, a GPU for each.")] = None,
    executor: Annotated[
        str | None, typer.Option(help="Submit a job for each params file: slurm, or local for processes of this machine.")
    ] = None,
    set_executor: Annotated[
        list[str] | None, typer.Option(help="A parameter of the jobs, such as timeout_min=600 or slurm_partition=gpu. Repeatable.")
    ] = None,
) -> None:
    """Run experiments: papermill executes their notebooks into RUNS/<name>/. Finished steps are kept."""
    from sublora import pipeline
    from sublora.processes import PROCESSES

    if processes is not None:
        os.environ[PROCESSES] = str(processes)
    if set_executor and executor is None:
        raise SubloraError("--set-executor: has no effect without --executor; remove it or add --executor")

    if notebooks is None:
        beside = study.study_folder() / "notebooks"
        notebooks = beside if beside.is_dir() else study.packaged("notebooks")
    overrides = [*(set or ()), *([] if beacon is None else [f"bounds.beacon={json.dumps(beacon)}"])]
    if executor is not None:
        from sublora import jobs

        for file in params:
            list(load_experiments(file, overrides))  # what is wrong with it is said now
        common: dict[str, Any] = {"runs": runs, "notebooks": notebooks, "force": force, "overrides": tuple(overrides)}
        common["here"] = Path.cwd()
        count = os.environ.get(PROCESSES, "1")
        ids = jobs.submit(executor, [jobs.Job(params=file, processes=count, **common) for file in params], set_executor or ())
        for file, job in zip(params, ids, strict=True):
            _say(f"submitted: {file}, job {job}")
        _say("next: sublora status")
        return
    for file in params:
        try:
            for folder in pipeline.run(file, runs, notebooks, force, overrides):
                path = folder / "certificate.json"
                _say(f"finished: {folder}")
                if path.is_file():  # a run of training alone makes none
                    print(terminal.summary(load_certificate(path), path))
        except KeyboardInterrupt:
            print("\nsublora: interrupted; the same command continues from the last checkpoint", file=sys.stderr)
            raise typer.Exit(130) from None


@app.command()
def status(runs: Runs = Path("runs")) -> None:
    """Print what became of the params files that `sublora run --executor` submitted: waiting, running, finished, failed and why."""
    import pandas as pd

    from sublora import jobs

    rows = jobs.states(runs)
    if not rows:
        raise SubloraError(f"{runs / jobs.JOBS}: no job; submit one with `sublora run --executor local params/quick.yaml`")
    print(pd.DataFrame(rows).map(printable).to_string(index=False))


@app.command()
def step(
    name: Annotated[str, typer.Argument(help="train, compress or evaluate: each does the steps before it, too.")],
    params: Annotated[Path, typer.Argument(help="A params file of one experiment.")],
    runs: Runs = Path("runs"),
    log: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Do one step of a run as one of several processes: `accelerate launch -m sublora step NAME PARAMS`, on one node or more."""
    import torch
    from accelerate import PartialState

    from sublora.processes import as_one_of_several
    from sublora.run import STEPS, Run

    if name not in STEPS:
        raise SubloraError(f"step: {name!r:.40} is none of {', '.join(STEPS)}")

    def work() -> None:
        PartialState(cpu=not torch.cuda.is_available())
        Run(params, runs).step(name)

    if log is None:
        work()
    else:
        as_one_of_several(work, log)


@app.command()
def verify(
    certificates: Annotated[list[Path], typer.Argument(help="certificate.json files.")],
    *,
    runs: Runs = Path("runs"),
    arithmetic: Annotated[
        bool, typer.Option(help="Without the data: check message, settings and inequalities, not the losses. Exit 3 if they agree.")
    ] = False,
    corpus: Annotated[
        Path | None, typer.Option(help="The file or folder with the certificate's data: its own path leads nowhere here.")
    ] = None,
    limit_memory: Memory = DEFAULT.memory,
    limit_minutes: Minutes = DEFAULT.minutes,
) -> None:
    """Check certificates: decode the model, score it again, recompute every bound. Exit 0 only if all agree."""
    limits = Limits(limit_memory, limit_minutes)
    failed, verified = False, "arithmetic agrees, losses not checked" if arithmetic else "verified: the model and every bound agree"
    for path in certificates:
        try:
            check, given = ("verify_arithmetic", (path, corpus)) if arithmetic else ("verify", (path, runs / "corpora", corpus))
            found = limited(f"sublora.verification:{check}", *given, what=str(path), limits=limits)
            wrong = [f"{path}: {line}" for line in found]
        except SubloraError as error:  # this one cannot be checked; others may be
            wrong = [f"sublora: {error}" if str(path) in str(error) else f"sublora: {path}: {error}"]
        failed |= bool(wrong)
        for line in wrong[:MOST_LINES]:
            _say(line, sys.stderr)
        if len(wrong) > MOST_LINES:
            _say(f"{path}: ... and {len(wrong) - MOST_LINES} more", sys.stderr)
        _say(f"{path}: " + ("NOT verified" if wrong else verified))
        if not wrong:
            certificate = load_certificate(path)
            print(terminal.summary(certificate, path, verified=not arithmetic))
            unchecked = terminal.unchecked(certificate, arithmetic, corpus is not None)
            print(f"  unchecked    {unchecked}; of params: {', '.join(SEARCH)}")
    if failed or arithmetic:
        raise typer.Exit(1 if failed else 3)


@app.command()
def compare(
    certificates: Annotated[list[Path], typer.Argument(help="certificate.json files: the first is compared with the others.")],
    *,
    set_of: Annotated[
        str, typer.Option("--set-of", help="The units that the limits come from: held-out, or training.")
    ] = "held-out",
    out: Annotated[Path | None, typer.Option(help="Write the comparison to this .json file.")] = None,
    verify: Annotated[
        Path | None, typer.Option(help="Check this comparison of the certificates instead. Exit 0 only if all of it agrees.")
    ] = None,
    runs: Runs = Path("runs"),
    corpus: Annotated[
        Path | None, typer.Option(help="The file or folder with the certificates' data: their own paths lead nowhere here.")
    ] = None,
    limit_memory: Memory = DEFAULT.memory,
    limit_minutes: Minutes = DEFAULT.minutes,
) -> None:
    """Compare certified models on the same units: by how much the first is proven to be better, or worse, than each other."""
    if set_of not in get_args(UnitsFrom):
        raise SubloraError(f"--set-of: {set_of!r:.60} is none of {', '.join(get_args(UnitsFrom))}")
    if verify is not None and out is not None:
        raise SubloraError("--out: nothing is written with --verify; leave one of them out")
    limits, given = Limits(limit_memory, limit_minutes), (certificates, runs / "corpora", corpus)
    if out is not None:
        _refuse_what_is_no_comparison(out)
    if verify is None:
        arguments = (certificates, set_of, *given[1:])
        found = limited("sublora.comparing:compare", *arguments, what=str(certificates[0]), limits=limits)
        if out is not None:
            found.save(out)
            _say(f"finished: {out}")
    else:
        wrong = limited("sublora.comparing:verify_comparison", verify, *given, what=str(verify), limits=limits)
        for line in wrong[:MOST_LINES]:
            _say(f"{verify}: {line}", sys.stderr)
        _say(f"{verify}: {'NOT ' * bool(wrong)}verified")
        if wrong:
            raise typer.Exit(1)
        found = load_comparison(verify)
    print(comparisons.summary(found))


def _refuse_what_is_no_comparison(out: Path) -> None:
    """A file that exists is replaced only by another comparison: a slip must not cost a certificate."""
    if out.suffix != ".json":
        raise SubloraError(f"--out: {out}: a comparison is a .json file; name one")
    if out.exists():
        try:
            load_comparison(out)
        except SubloraError:
            raise SubloraError(f"--out: {out}: exists, and is no comparison; choose another name") from None


@app.command()
def show(
    certificates: Annotated[list[Path], typer.Argument(help="certificate.json files.")],
) -> None:
    """Print what certificates state. This checks nothing: `sublora verify` does."""
    print("\n\n".join(terminal.details(load_certificate(path), path) for path in certificates))


@app.command()
def optimize(
    params: Annotated[Path, typer.Argument(help="The params file of a run. An unfinished run is trained first.")],
    quantizers: Annotated[str, typer.Option(help="Quantizers to try, separated by commas.")] = "uniform,kmeans,normal_float,ecsq",
    levels: Annotated[str, typer.Option(help="Numbers of levels to try, separated by commas.")] = "2,3,4,5,7,9,11,15",
    finetune: Annotated[bool, typer.Option(help="Adapt the model to each quantizer for finetune_steps.")] = True,
    runs: Runs = Path("runs"),
) -> None:
    """Try quantizers and levels on one trained model. Certify the one with the smallest bound as RUNS/<name>-optimized/."""
    from sublora.reporting.figures import trade_off
    from sublora.search import search_run

    without = ("finetune_steps=0", "finetune_learning_rate=1e-3", "rate_penalty=auto")  # defaults: they have no effect then
    experiment = load_experiment(params, [] if finetune else [f"compression.{setting}" for setting in without])
    try:
        counts = [int(count) for count in levels.split(",")]
    except ValueError:
        raise SubloraError(f"--levels: {levels!r} is not a list of integers such as 3,4,5") from None
    folder, ways = search_run(experiment, runs, quantizers.split(","), counts)
    with replaced_atomically(folder / "trade-off.svg") as temporary:
        unit = load_certificate(folder / "certificate.json").corpus.unit
        trade_off(ways, unit=f"bits per {unit}").savefig(temporary, format="svg")
    _print_table(ways.sort_values("bound"))
    _say(f"finished: {folder}, with certificate.json, trade-off.csv and trade-off.svg")


def _print_table(frame) -> None:
    """Prints a data frame: what is measured or proven rounded up, a gain rounded down, settings as they are."""
    made = [name for name in frame.select_dtypes("float") if "." not in name]  # a setting is named group.key
    frame = frame.assign(**{name: [reading.number(value, 4) for value in frame[name]] for name in made if name != "gain"})
    if "gain" in frame:
        frame = frame.assign(gain=[f"{-reading.rounded_up(-value, 4):.4f}" for value in frame["gain"].astype(float)])
    print(frame.to_string(index=False, float_format=lambda value: f"{value:g}"))


@app.command()
def table(runs: Runs = Path("runs")) -> None:
    """Print one row for each finished run: the settings that differ, message, headline bound, held-out value, seconds."""
    from sublora.run import load_runs

    frame = load_runs(runs)
    if frame.empty:
        raise SubloraError(f"{runs}: no finished run; run `sublora run params/quick.yaml` first")
    _print_table(frame.map(lambda value: printable(value) if isinstance(value, str) else value).rename(columns=printable))


@app.command()
def report(
    chosen: Annotated[
        list[Path] | None,
        typer.Argument(metavar="RUN", help="Folders of runs: a report of these, without the pages about the paper."),
    ] = None,
    runs: Runs = Path("runs"),
    project: Annotated[Path, typer.Option(help="Folder of the pages.", callback=_of_the_study)] = Path("report"),
) -> None:
    """Render the report to report/_site/index.html, with Quarto if it is installed, else with pandoc."""
    from sublora.reporting.render import render_report

    index, way = render_report(project, runs, chosen=chosen or ())
    _say(f"rendered with {way}: {index}")


@app.command()
def data(
    source: Annotated[
        str, typer.Argument(help="python-packages, python-stdlib, text, file, openwebtext, or the name of a Hugging Face data set.")
    ],
    *,
    package: Annotated[
        list[str] | None, typer.Option(help="python-packages: a wheel, such as networkx==3.6.1. Repeatable. Default: all.")
    ] = None,
    path: Annotated[Path | None, typer.Option(help="text: a folder. file: a .jsonl, .csv, .tsv or .parquet file.")] = None,
    split_on: Annotated[str, typer.Option(help="text: a document for each file, blank-line, or regex:PATTERN.")] = "file",
    field: Annotated[str, typer.Option(help="Column or key of the text.")] = "text",
    group: Annotated[str | None, typer.Option(help="Column of a document's group, such as customer or author.")] = None,
    subset: Annotated[str | None, typer.Option(help="Hugging Face: the configuration.")] = None,
    tokenizer: Annotated[
        str, typer.Option(help="bytes, bits, gpt2, a tokenizer's ./folder or hub name, or a llama2.c .bin file.")
    ] = "bytes",
    tokenizer_from: Annotated[str | None, typer.Option(help="Where another tokenizer was made: elsewhere, or pool.")] = None,
    max_documents: Annotated[int | None, typer.Option(help="Keep a random sample of this many documents.")] = None,
    runs: Runs = Path("runs"),
) -> None:
    """Prepare a corpus: turn documents into tokens on disk. Experiments with the same corpus settings use it.

    Counts near-duplicates across the split that experiments have by default.
    """
    from sublora.data import prepare, split_of
    from sublora.data.duplicates import near_duplicates
    from sublora.reporting.beside import duplicates_in_words

    files = {"source": source, "packages": package or None, "path": path and str(path), "field": field, "subset": subset}
    files["split_on"] = split_on
    corpus = {**files, "tokenizer": tokenizer, "tokenizer_from": tokenizer_from, "max_documents": max_documents}
    corpus |= {} if group is None else {"group": group}
    levels = {} if group is None else {"bounds": {"levels": ["group"]}}
    experiment = as_experiment({"name": "data", "corpus": corpus, **levels}, "sublora data")
    assert isinstance(experiment, Pretrain)  # the kind that is meant where none is named
    store = prepare(experiment.corpus, runs / "corpora")
    grouped = "" if store.groups is None else f" in {int(store.groups.max()) + 1:,} groups"
    size = f"{len(store):,} documents{grouped}, {len(store.tokens):,} tokens"
    _say(f"{store.path}: {size}, V = {store.vocab_size}, sha256 {store.sha256}")
    if store.sizes is not None:
        text, most = int(store.sizes.sum()), (store.lengths / store.sizes).max()
        told = f"; {store.altered:,} documents do not come back from the tokenizer as they were" if store.altered else ""
        mean = len(store.tokens) / text
        _say(f"{text:,} bytes with one more for each end; tokens per byte: {mean:.3f}, at most {most:.3f}{told}")
    try:
        counted = duplicates_in_words(near_duplicates(store, split_of(store, experiment.corpus)))
    except SubloraError as error:  # of too few documents there is no split
        counted = str(error)
    if counted:
        _say(counted)


@app.command()
def tokenizer(
    path: Annotated[Path, typer.Argument(help="A folder of text files, or a .jsonl, .csv, .tsv or .parquet file.")],
    vocab_size: Annotated[int, typer.Option(help="Tokens, with the 256 bytes and the end of text.")] = 32_000,
    field: Annotated[str, typer.Option(help="A file's column or key of the text.")] = "text",
    out: Annotated[Path | None, typer.Option(help="The new folder. Default: tokenizers/NAME-SIZE.")] = None,
) -> None:
    """Train a byte-level BPE tokenizer. If bounds are to hold under iid or martingale, its documents must not be of the pool."""
    from sublora.data.bpe import train_bpe

    corpus = {"source": "text", "path": str(path)} if path.is_dir() else {"source": "file", "path": str(path), "field": field}
    experiment = as_experiment({"name": "tokenizer", "corpus": corpus}, "sublora tokenizer")
    assert isinstance(experiment, Pretrain)
    out = out or Path("tokenizers") / f"{path.name.split('.')[0] or 'text'}-{vocab_size}"
    size = train_bpe(experiment.corpus, vocab_size, out)
    named = out if out.is_absolute() else f"./{out}"
    _say(f"{out}: {size:,} tokens; set corpus.tokenizer: {named}")
    _say("and corpus.tokenizer_from: elsewhere, if none of these documents is of the pool, else pool (then without iid)")


@app.command()
def plan(
    documents: Annotated[int, typer.Option(help="Documents of the corpus, or labelled examples.")],
    tokens: Annotated[int, typer.Option(help="Tokens of all documents together, each document's end of text included.")],
    vocab: Annotated[int, typer.Option(help="Size of the vocabulary: 257 for bytes, 50257 for gpt2.")] = 257,
    *,
    classes: Annotated[int | None, typer.Option(help="Of a classifier: the number of classes.")] = None,
    loss: Annotated[
        list[float] | None, typer.Option(help="A mean training loss, in bits per token or as a share of errors. Repeatable.")
    ] = None,
    reference: Annotated[float | None, typer.Option(help="The mean loss of a public document code, in bits per token.")] = None,
    minutes: Annotated[float, typer.Option(min=1, max=MOST.minutes, help="What the run may take, about.")] = 30,
    data: Annotated[Path | None, typer.Option(help="Of the params file: the table file with documents or examples.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Of the params file: the tokenizer, if not bytes or gpt2.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write a params file that runs.")] = None,
) -> None:
    """Say which messages can be non-vacuous for a corpus of a size, and suggest an experiment. Nothing is read."""
    from sublora import plan as planning
    from sublora.reporting import plans

    if classes is not None and reference is not None:
        raise SubloraError("--reference: has no effect for --classes; remove it")
    corpus = planning.checked(documents, tokens, vocab, classes)
    zero = planning.to_beat(corpus, reference)
    losses = tuple(loss or (round(zero * share, 3) for share in ((0.25, 0.5, 0.75) if reference is None else (0.8, 0.9, 0.95))))
    rows = planning.table(corpus, losses, reference)
    known = plans.places(vocab, classes is not None, reference is not None, data=data, tokenizer=tokenizer)
    found = planning.suggest(corpus, rows, losses, reference, minutes=minutes, data=known)
    print(plans.as_text(corpus, rows, losses, reference, found))
    if output is not None and found is None:
        raise SubloraError(f"{output}: not written, since nothing can be suggested; give lower losses, or more documents")
    if output is not None and found is not None:
        if output.exists():
            raise SubloraError(f"{output}: exists; choose another name")
        write_text(output, plans.params_file(found))
        _say(f"written: {output}; next: sublora run {shlex.quote(str(output))}")


@app.command()
def prior(
    params: Annotated[Path, typer.Argument(help="A params file of kind finetune with corpus.prior_documents.")],
    folder: Annotated[Path, typer.Argument(help="Where the model goes: a new or an empty folder.")],
    runs: Runs = Path("runs"),
    *,
    set: Annotated[list[str] | None, typer.Option("--set", help="Override a key, such as training.steps=100. Repeatable.")] = None,
) -> None:
    """Fine-tune on the documents that corpus.prior_documents removes from the pool. The model is a public base for the rest."""
    from sublora.problems.prior import train_on_prior

    train_on_prior(load_experiment(params, set or ()), folder, runs / "corpora")
    _say(f"finished: {folder}; certify it on the rest with model.source: {folder} and the same corpus.prior_documents")


@app.command()
def sample(
    checkpoint: Annotated[Path, typer.Argument(help="A certificate.json, or a run's .safetensors checkpoint.")],
    prompt: Annotated[str, typer.Option(help="The beginning of the text.")] = "",
    tokens: Annotated[int, typer.Option(min=1, help="Number of tokens to generate.")] = 200,
    smoothing: Annotated[float, typer.Option(help="Weight of the uniform distribution, at least 0 and below 1.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
) -> None:
    """Generate text from a certificate or a checkpoint, with or without smoothing."""
    from sublora.sampling import load

    text = load(checkpoint).generate(prompt, tokens, smoothing, seed)
    if sys.stdout.isatty():  # a byte model may write control characters
        text = printable(text, "\n\t")
    print(text)


def _say(line: str, to: TextIO | None = None) -> None:
    """Print one line, which may name what a certificate or a path names, and cannot steer the terminal."""
    print(printable(line), file=to)


def main() -> None:
    """Entry point. Errors that a user can correct are one line on standard error and exit status 1."""
    warnings.showwarning = lambda message, *_, **__: _say(f"warning: {one_line(message, LONGEST)}", sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal's encoding may lack a character
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # so that a full disk is noticed here and not after the interpreter has ended
    except SubloraError as error:
        why = one_line(error, LONGEST)
    except BrokenPipeError:  # `sublora sample ... | head`
        why = None
    except OSError as error:
        cure = "free space or choose another place" if error.errno in FULL else "correct that or choose another place"
        why = one_line(f"{error.filename or 'standard output'}: {error.strerror or error}; {cure}", LONGEST)
    except UnicodeError as error:
        why = f"{one_line(error)}; a name is not UTF-8: rename it, or set PYTHONUTF8=1"
    # The error and its frames are gone here, so a progress bar that they held has ended its line.
    if why is not None:
        print(f"sublora: {why}", file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # otherwise Python would try to write again at exit
    sys.exit(1)
