"""The command line. Every command is one call of the package; errors are one line, and a non-zero exit."""

import os
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from sublora.errors import SubloraError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__.splitlines()[0])

HOME = Path(__file__).resolve().parent.parent
Runs = Annotated[Path, typer.Option(help="Folder of runs; prepared corpora are in its folder `corpora`.")]


@app.command()
def run(
    params: Annotated[list[Path], typer.Argument(help="Params files, one experiment each.")],
    runs: Runs = Path("runs"),
    notebooks: Annotated[Path | None, typer.Option(help="Folder of notebooks [default: ./notebooks, else the package's]")] = None,
    force: Annotated[bool, typer.Option(help="Run finished steps again, from the beginning.")] = False,
) -> None:
    """Execute experiments with papermill into RUNS/<name>/; finished steps are kept."""
    from sublora import pipeline

    for file in params:
        try:
            folder = pipeline.run(file, runs, notebooks or beside_or_home("notebooks"), force)
        except KeyboardInterrupt:
            print("\nsublora: interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
            raise typer.Exit(130) from None
        print(f"finished: {folder}")


@app.command()
def verify(
    certificates: Annotated[list[Path], typer.Argument(help="certificate.json files.")],
    runs: Runs = Path("runs"),
) -> None:
    """Decode the embedded model, score it again, recompute every bound; exit 0 only if all agree."""
    from sublora.bounds.verify import verify

    failed = False
    for path in certificates:
        try:
            wrong = [f"{path}: {line}" for line in verify(path, runs / "corpora")]
        except SubloraError as error:  # this one cannot be checked; others may be
            wrong = [f"sublora: {error}"]
        failed |= bool(wrong)
        for line in wrong:
            print(line, file=sys.stderr)
        print(f"{path}: " + ("NOT verified" if wrong else "verified: the model and every bound agree"))
    if failed:
        raise typer.Exit(1)


@app.command()
def optimize(
    params: Annotated[Path, typer.Argument(help="The params file of a run; training goes on first if it is not finished.")],
    quantizers: Annotated[str, typer.Option(help="Which to try, separated by commas.")] = "uniform,kmeans,normal_float,ecsq",
    levels: Annotated[str, typer.Option(help="How many levels to try, separated by commas.")] = "2,3,4,5,7,9,11,15",
    finetune: Annotated[bool, typer.Option(help="Let the model adapt to each, for the params' finetune_steps.")] = True,
    runs: Runs = Path("runs"),
) -> None:
    """Try quantizers and levels on one trained model, and certify the one with the smallest bound as RUNS/<name>-optimized/."""
    from sublora.atomic import replaced_atomically
    from sublora.bounds.optimize import optimize_run
    from sublora.config import Experiment
    from sublora.reporting.figures import trade_off

    experiment = Experiment.from_file(params)
    if not finetune:
        compression = experiment.compression.model_copy(update={"finetune_steps": 0})
        experiment = experiment.model_copy(update={"compression": compression})
    try:
        counts = [int(count) for count in levels.split(",")]
    except ValueError:
        raise SubloraError(f"--levels: {levels!r} is not a list of integers such as 3,4,5") from None
    folder, ways = optimize_run(experiment, runs, quantizers.split(","), counts)
    with replaced_atomically(folder / "trade-off.svg") as temporary:
        trade_off(ways).savefig(temporary, format="svg")
    print(ways.sort_values("bound").to_string(index=False, float_format=lambda value: f"{value:.4f}"))
    print(f"finished: {folder}, with certificate.json, trade-off.csv and trade-off.svg")


@app.command()
def report(
    runs: Runs = Path("runs"),
    project: Annotated[Path | None, typer.Option(help="Folder of the pages [default: ./report, else the package's]")] = None,
) -> None:
    """Render the report's pages to report/_site/index.html, with Quarto where it is installed."""
    from sublora.reporting.render import render_report

    index, way = render_report(project or beside_or_home("report"), runs)
    print(f"rendered with {way}: {index}")


@app.command()
def data(
    source: Annotated[str, typer.Argument(help="python-stdlib, text, file, openwebtext, or a Hugging Face data set's name.")],
    path: Annotated[Path | None, typer.Option(help="text: a folder; file: .jsonl, .csv, .tsv or .parquet.")] = None,
    field: Annotated[str, typer.Option(help="Column or key that holds the text.")] = "text",
    subset: Annotated[str | None, typer.Option(help="Hugging Face: name of the configuration.")] = None,
    tokenizer: Annotated[str, typer.Option(help="bytes, gpt2, a tokenizer's ./folder or hub name, or a .bin file.")] = "bytes",
    max_documents: Annotated[int | None, typer.Option(help="Keep a fixed uniform sample of the documents.")] = None,
    runs: Runs = Path("runs"),
) -> None:
    """Prepare a corpus: documents to tokens on disk, where experiments with the same settings find it."""
    from sublora.config import Experiment
    from sublora.data import prepare

    corpus = {"source": source, "path": path and str(path), "field": field, "subset": subset, "tokenizer": tokenizer}
    corpus["max_documents"] = max_documents
    store = prepare(Experiment.from_parameters({"name": "data", "corpus": corpus}, "sublora data").corpus, runs / "corpora")
    print(f"{store.path}: {len(store):,} documents, {len(store.tokens):,} tokens, V = {store.vocab_size}, sha256 {store.sha256}")


@app.command()
def sample(
    checkpoint: Annotated[Path, typer.Argument(help="A certificate.json, or a .safetensors checkpoint of a run.")],
    prompt: Annotated[str, typer.Option(help="How the text begins.")] = "",
    tokens: Annotated[int, typer.Option(min=1, help="How many tokens to generate.")] = 200,
    smoothing: Annotated[float, typer.Option(help="Weight of the uniform distribution, from 0 to below 1.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0,
) -> None:
    """Generate text, with or without smoothing."""
    from sublora.sampling import load_model, sample_text

    model, tokenizer = load_model(checkpoint)
    text = sample_text(model, tokenizer, prompt, tokens, smoothing, seed)
    if sys.stdout.isatty():  # a model of bytes may well say what would turn the terminal's colours
        text = "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)
    print(text)


def beside_or_home(name: str) -> Path:
    """`./name` where there is one, else the one beside the package (an editable installation)."""
    return Path(name) if Path(name).is_dir() else HOME / name


def main() -> None:
    """Entry point: what the user can put right is one line on standard error and exit status 1."""
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # a full disk is noticed here, not when the interpreter has ended
    except SubloraError as error:
        why = str(error)
    except BrokenPipeError:  # `sublora sample ... | head`
        why = None
    except OSError as error:
        why = f"{error.filename or 'standard output'}: {error.strerror or error}; free space or choose another place"
    # Printed when the error and its frames are gone: a progress bar that they held has ended its line by now.
    if why is not None:
        print(f"sublora: {why}", file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what could not be written is not tried again at exit
    sys.exit(1)
