"""Params files: YAML to experiments. One file may describe several (`grid:`), and the command line may override keys."""

import copy
import itertools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from sublora.atomic import read_text
from sublora.errors import SubloraError
from sublora.experiment.kinds import Experiment, as_experiment

LARGEST = 2**20  # bytes of a params file
DEEPEST = 20  # levels of nesting
MOST_RUNS = 1000  # of a grid
LONGEST_NAME = 100  # letters; it names a folder


class _Loader(yaml.SafeLoader):
    """YAML as it looks: 1e-3 is a number; 0100, 1:30, yes and dates are text; a key may occur once."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise ValueError(f"line {line}: a key must be a word, not a list or a group")
            if key.value in seen:
                raise ValueError(f"line {line}: the key {key.value!r} is there twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def compose_node(self, parent, index):
        if self.check_event(yaml.events.AliasEvent):  # a few lines could expand to gigabytes
            raise ValueError("aliases (*name) are not supported; write the value out")
        if (event := self.peek_event()).tag is not None:  # !!int makes 64 of 0100
            line, tag = event.start_mark.line + 1, event.tag.replace("tag:yaml.org,2002:", "!!")
            raise ValueError(f"line {line}: tags such as {tag!r:.60} are not supported; remove it")
        self.depth = getattr(self, "depth", 0) + 1
        if self.depth > DEEPEST:
            raise ValueError(f"nested more than {DEEPEST} levels deep")
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9]{0,30})", "-+0123456789"),
    ("float", r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))
_Loader.add_constructor("tag:yaml.org,2002:float", lambda loader, node: float(node.value))


def read_yaml(text: str) -> Any:
    """The data of a YAML text. Raises ValueError, in one line, for what is not YAML data, and for a key that occurs twice."""
    try:
        return yaml.load(text, _Loader)  # noqa: S506  a subclass of SafeLoader
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the last: a character's number
        raise ValueError(" ".join(str(getattr(error, "problem", None) or error).split())[:200]) from None


class _Dumper(yaml.SafeDumper):
    """YAML that means the same to `_Loader` and to YAML 1.1: text that one of them would take for something else is quoted."""

    yaml_implicit_resolvers = {
        first: [*yaml.SafeDumper.yaml_implicit_resolvers.get(first, []), *_Loader.yaml_implicit_resolvers.get(first, [])]
        for first in yaml.SafeDumper.yaml_implicit_resolvers.keys() | _Loader.yaml_implicit_resolvers.keys()
    }


def as_yaml(values: Mapping[str, Any]) -> str:
    """Plain data as a YAML text that `read_yaml` reads back."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False)


def load_experiments(path: str | Path, overrides: Iterable[str] = ()) -> list[Experiment]:
    """The experiments of a params file, in the order of its grid; one if it has none.

    overrides: `key=value` with the value in YAML, such as `training.steps=100`; they apply to all experiments. A `grid` maps dotted
    keys to lists of values; keys with commas between them, as `model.seed, training.seed`, get the same value. Every combination
    becomes an experiment whose name ends with its values. No key is both set and in it.
    Raises SubloraError, in one line with the file and the key.
    """
    values = _mapping(path)
    given = set()
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise SubloraError(f"--set {text!r}: write it as key=value, such as training.steps=100")
        try:
            _set(values, key, read_yaml(value))
        except ValueError as error:
            raise SubloraError(f"--set {text!r}: {error}") from None
        given.add(key)
    grid = values.pop("grid", None)
    for one, other in itertools.product(given, itertools.chain(*map(_keys, grid)) if isinstance(grid, dict) else ()):
        if f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}."):
            raise SubloraError(f"--set {one}: the grid of {path} sets {other}; set grid={{{other}: [...]}} instead")
    combinations = [values] if grid is None else _expanded(values, grid, str(path))
    return [as_experiment(each, str(path)) for each in combinations]


def load_experiment(path: str | Path, overrides: Iterable[str] = ()) -> Experiment:
    """The one experiment of a params file. Raises SubloraError, also for a file with a grid of several."""
    found = load_experiments(path, overrides)
    if len(found) != 1:
        raise SubloraError(f"{path}: its grid describes {len(found)} experiments; give a file that describes one")
    return found[0]


def _mapping(path: str | Path) -> dict[str, Any]:
    try:
        text = read_text(path, LARGEST, "a params file")
    except (OSError, UnicodeDecodeError) as error:
        raise SubloraError(f"{path}: cannot read the params file ({error}); give the path of a YAML file") from None
    try:
        values = read_yaml(text)
    except ValueError as error:
        raise SubloraError(f"{path}: not valid YAML ({error})") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise SubloraError(f"{path}: a params file holds keys and values, at least `name: ...`")
    return values


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *groups, last = key.split(".")
    for group in groups:
        if values.get(group) is None:  # not there, or there without keys
            values[group] = {}
        values = values[group]
        if not isinstance(values, dict):
            raise ValueError(f"{group!r} is not a group of keys")
    values[last] = value


def _expanded(values: Mapping[str, Any], grid: Any, origin: str) -> Iterable[dict[str, Any]]:
    if not isinstance(grid, dict) or not grid or not all(isinstance(v, list) and v for v in grid.values()):
        raise SubloraError(f"{origin}: key 'grid' maps keys to lists of values, such as subspace.dimension: [1000, 5000]")
    if not isinstance(values.get("name"), str):
        raise SubloraError(f"{origin}: key 'name' is missing or no text: the names of a grid's experiments begin with it")
    combinations = list(itertools.islice(itertools.product(*grid.values()), MOST_RUNS + 1))
    if len(combinations) > MOST_RUNS:
        raise SubloraError(f"{origin}: key 'grid' describes more than {MOST_RUNS:,} experiments")
    names = set()
    for combination in combinations:
        one = copy.deepcopy(dict(values))
        try:
            for keys, value in zip(grid, combination, strict=True):
                for key in _keys(keys):
                    _set(one, key, value)
        except ValueError as error:
            raise SubloraError(f"{origin}: key 'grid': {error}") from None
        one["name"] = "-".join([values["name"], *map(_in_a_name, combination)])
        if one["name"] in names or len(one["name"]) > LONGEST_NAME:
            why = "would name two experiments" if one["name"] in names else f"is longer than {LONGEST_NAME} letters"
            raise SubloraError(f"{origin}: key 'grid': the name {one['name']:.120}, made of the values, {why}; change the values")
        names.add(one["name"])
        yield one


def _keys(keys: Any) -> list[str]:
    """The dotted keys that a key of a grid names: one, or several with commas, which get the same value."""
    return [key.strip() for key in str(keys).split(",")]


def _in_a_name(value: Any) -> str:
    """A value of a grid as it stands in a folder's name: letters, digits, '.', '_' and '-'."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", str(value)).strip("-")
