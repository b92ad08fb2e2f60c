"""A run: an experiment and its folder. Each step is lazy and kept, so a run continues where it was interrupted."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from sublora.atomic import write_text
from sublora.certificate.build import certify
from sublora.certificate.schema import Certificate
from sublora.errors import SubloraError
from sublora.experiment import Experiment, as_experiment, load_experiment
from sublora.experiment.kinds import CORPORA
from sublora.experiment.params import as_yaml, read_yaml
from sublora.models import Subspace
from sublora.own import claim, delete_all_but, noted
from sublora.problems import Problem, problem_class
from sublora.processes import asked_for, together
from sublora.progress import notice
from sublora.reporting.reading import headline, held_out_value, possible
from sublora.reporting.runs import load_runs as kept_runs
from sublora.training.precision import FILE, kept_precision

HELD = "SUBLORA_HELD"
"""In the environment: the folder of a run that this process, or the one that started it, is at work in (`alone`)."""
STEPS = {"train": "_trained", "compress": "_compressed", "evaluate": "evaluation"}
"""Steps that several processes can do together, in order, and what a Run calls their results."""
NOT_TRAINED = {f"reference.{key}" for key in ("beta", "gamma", "offset", "excess", "tau")} | {"model.public_since"}
"""Settings that training does not depend on, beside all of the group `bounds`: they change bounds or words alone."""


class Run:
    """An experiment in its folder `<runs>/<name>/`.

        run = Run("params/quick.yaml")
        run.train(); run.compress()
        certificate = run.certify()

    Every step does the steps before it that are not done, and reads what is in the folder. Training continues from its checkpoint,
    and scores are kept. The same run ends with the same certificate. A run with other settings in the same folder replaces what
    depends on them, and says so. A folder that is neither empty nor a run's is refused.
    """

    def __init__(
        self, params: str | Path | Mapping[str, Any] | Experiment, runs: str | Path = "runs", overrides: Iterable[str] = ()
    ):
        """params: a params file, plain data, or an experiment. overrides: `key=value` for a params file.

        Raises SubloraError for what is not a valid experiment.
        """
        if isinstance(params, str | Path):
            self.settings = load_experiment(params, overrides)
        else:
            self.settings = as_experiment(params) if isinstance(params, Mapping) else params
        self.folder, self.corpora = Path(runs) / self.settings.name, Path(runs) / CORPORA
        self._steps_together = 0  # how many of STEPS several processes have done

    @property
    def experiment(self) -> Experiment:
        """The settings, with the architecture filled in that a pretrained model states."""
        return self.problem.experiment

    @functools.cached_property
    def problem(self) -> Problem:
        """Data and split; the corpus is prepared below `<runs>/corpora/` if it is not there."""
        return problem_class(self.settings).open(self.settings, self.corpora)

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        """Alone in the folder, without what other settings have made there. With other bounds the training remains.

        Raises SubloraError when another process is at work in it.
        """
        _ = self.problem  # what is wrong with data or base is said before anything is written
        if os.environ.get("RANK", "0") != "0":  # `accelerate launch`: its first process does that for all
            yield
            return
        with alone(self.folder) as first:
            claim(self.folder)
            changed = changed_settings(self.folder, self.settings) if first else {}
            changed.pop("notebooks", None)
            if changed:
                print(f"{self.settings.name}: {in_words(changed)}; replacing what depends on them", flush=True)
                trained = all(key.startswith("bounds.") or key in NOT_TRAINED for key in changed)
                delete_all_but(self.folder, [name for name in noted(self.folder) if trained and of_training(name)])
            if changed or not (self.folder / "params.yaml").exists():
                write_params(self.folder, self.settings)
            yield

    def step(self, name: str) -> Any:
        """Do the step (`STEPS`) and those before it: `accelerate launch -m sublora step` calls this in every process."""
        return getattr(self, STEPS[name])

    def _together(self, name: str) -> None:
        """Let the processes that `sublora run --processes` asks for do this step first. Here it is then read, not done."""
        steps = list(STEPS)
        if asked_for() > 1 and steps.index(name) >= self._steps_together:
            together(name, self.folder)
            self._steps_together = steps.index(name) + 1

    @functools.cached_property
    def _trained(self) -> tuple[Any, pd.DataFrame]:
        with self._at_work():
            self._together("train")
            return self.problem.train(self.folder)

    @property
    def model(self) -> Subspace | None:
        """The trained model, before compression as after it; None where nothing is trained."""
        return self._trained[0]

    def train(self) -> pd.DataFrame:
        """Train the coordinates. Returns the log: losses in bits per token (for a classifier, per example) by step."""
        return self._trained[1]

    @functools.cached_property
    def _compressed(self) -> tuple[bytes, pd.DataFrame | None]:
        with self._at_work():
            self._together("compress")
            return self.problem.compress(self.folder, self._trained[0])

    def compress(self) -> pd.DataFrame | None:
        """Quantize the coordinates and let them adapt. Returns the log of the adaptation, or None without one.

        Where a pretrained model is rounded: the table of all ways, with the bounds that pilot units promise.
        """
        return self._compressed[1]

    @property
    def draft(self) -> bytes:
        """The model file before its smoothing weight is chosen: it has the grid's first."""
        return self._compressed[0]

    @functools.cached_property
    def message(self) -> bytes:
        """The model file, with the smoothing weight that pilot units chose."""
        with self._at_work():
            self._together("evaluate")  # they seal on the way
            return self.problem.seal(self.draft, self.folder)

    @functools.cached_property
    def evaluation(self) -> Any:
        """What the decoded model predicts of the evaluated, pilot and held-out units."""
        with self._at_work():
            self._together("evaluate")
            return self.problem.evaluate(self.message, self.folder)

    def certify(self) -> Certificate:
        """The certificate, also written to `<folder>/certificate.json`; beside it what the problem measures beside."""
        with self._at_work():
            evaluation = self.evaluation
            seconds = {**self.problem.seconds(self.folder), "score": evaluation.seconds}
            certificate = certify(self.problem, self.message, evaluation, seconds, kept_precision(self.folder))
            certificate.save(self.folder / "certificate.json")
            self.problem.measure_beside(self.folder)
            return certificate

    def __repr__(self) -> str:
        return f"<run {self.settings.name} in {self.folder}>"


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[bool]:
    """Two processes at work in one folder would spoil each other's files. True if this process was not at work in it before.

    What runs inside, and the processes that it starts, are at work there, too. Raises SubloraError when another process is.
    """
    place, before = str(folder.resolve()), os.environ.get(HELD)
    if before == place:
        yield False
        return
    lock = FileLock(folder.with_name(f".{folder.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise SubloraError(f"{folder}: another run is at work here; wait for it, or choose another name") from None
    os.environ[HELD] = place
    try:
        yield True
    finally:
        os.environ.pop(HELD)
        os.environ.update({HELD: before} if before else {})
        lock.release()


def changed_settings(folder: Path, experiment: Experiment) -> dict[str, str]:
    """The keys in which an earlier run in the folder differs, with both values; empty if there was none or nothing differs."""
    old, new = flat_settings(read_kept(folder / "params.yaml", read_yaml)), flat_settings(experiment.parameters())
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)] if old else []
    return {key: f"{old.get(key)} -> {new.get(key)}" for key in changed}


def in_words(changed: Mapping[str, str]) -> str:
    """Changed settings as the beginning of a line."""
    some = [f"{key} {values}" for key, values in changed.items()][:5]
    return "settings changed: " + ", ".join([*some, "..."] if len(changed) > 5 else some)


def write_params(folder: Path, experiment: Experiment) -> None:
    """Note in a run's folder of which experiment it is."""
    write_text(folder / "params.yaml", as_yaml(experiment.parameters()))


def read_kept(path: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    """What a run wrote down; nothing if it never did, or if that cannot be relied on."""
    try:
        values = parse(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def of_training(name: str) -> bool:
    """Whether a file of a run is one that other bounds leave as it is."""
    return ("/" not in name and name.endswith(".safetensors")) or name.split("/")[0] in ("metrics.csv", "tensorboard", FILE)


def load_runs(folder: str | Path = "runs") -> pd.DataFrame:
    """One row for each finished run in a folder: settings, message, headline, held-out value and time.

    Columns: name, the settings that differ between the runs (dotted keys), message_bits, metric, assumption, inequality, bound (at
    most the largest loss), vacuous_at, nonvacuous, held_out, seconds; reference, reference_empirical and gain of runs with a public
    reference. A folder whose certificate cannot be read is left out, and named on standard error.
    """
    runs, skipped = kept_runs(folder)
    for line in skipped:
        notice(line)
    settings = [flat_settings(run.certificate.params) for run in runs]
    keys = dict.fromkeys(key for each in settings for key in each)
    varying = [key for key in keys if len({repr(each.get(key)) for each in settings}) > 1]
    rows = []
    for run, stated in zip(runs, settings, strict=True):
        certificate, bound = run.certificate, headline(run.certificate)
        differing = {key: stated.get(key) for key in varying if key != "name"}
        shown = {"metric", "assumption", "inequality", "bound", "vacuous_at", "nonvacuous"}
        beside = {"reference", "reference_empirical", "gain"}
        said = bound.model_dump(include=shown | beside) | {"bound": possible(bound)}
        measured = {"held_out": held_out_value(certificate, bound), "seconds": sum(certificate.environment.seconds.values())}
        rows.append({"name": run.name, **differing, "message_bits": certificate.message_bits, **said, **measured})
    return pd.DataFrame(rows)


def flat_settings(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flat_settings(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat
