"""Reading the configuration: YAML files that extend each other, checked before any job starts."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, RootModel, ValidationError

from darkroom.components.base import Component, Components, Named, named_components
from darkroom.config.captions import caption_problems
from darkroom.config.dataset import Dataset
from darkroom.config.fits import check_fits
from darkroom.config.model import DEFAULT_FAMILY
from darkroom.config.names import nearest
from darkroom.config.phases import check_phase
from darkroom.config.retries import Retries, retries_path
from darkroom.config.run import Run
from darkroom.config.sizes import check_sizes
from darkroom.config.yaml_files import YamlError, read_yaml
from darkroom.sources.table import spec_of

SectionT = TypeVar("SectionT", bound=BaseModel)

# What a run or a dataset may be called: a name is part of paths and of commands of a shell.
NAME = r"\w[\w.-]*"
NUM_CACHE_DIGITS = 12


class ConfigError(ValueError):
    """A mistake in a configuration file; the message names file, key, value and what would be right."""


@dataclass(frozen=True)
class Layer:
    """One YAML file of a chain of `extends:`."""

    name: str
    path: Path
    values: dict[str, Any]


@dataclass(frozen=True)
class Project:
    """A run with everything it names: its datasets, and its components.

    datasets: name -> dataset, in the order of the configuration.
    rounds: name -> the rounds in which rows of the dataset are fetched again.

    What is made of one dataset alone knows a run by one of its members: the same run with that dataset as its
    only one. `dataset_name`, `dataset`, `retries` and `cache` are those of such a run, as of any that names one.
    """

    name: str
    run: Run
    datasets: dict[str, Dataset]
    components: dict[str, Component]
    rounds: dict[str, Retries] = field(default_factory=dict)

    @cached_property
    def members(self) -> tuple["Project", ...]:
        """The run as each of its datasets knows it; the run itself, where it has one."""
        if len(self.datasets) == 1:
            return (self,)
        return tuple(
            replace(
                self,
                run=self.run.model_copy(update={"dataset": name, "datasets": ()}),
                datasets={name: dataset},
                rounds={name: self.rounds.get(name, Retries())},
            )
            for name, dataset in self.datasets.items()
        )

    @cached_property
    def dataset_name(self) -> str:
        """The name of the dataset.

        Raises:
            ConfigError: the run has several.
        """
        if len(self.datasets) > 1:
            raise ConfigError(f"the run {self.name} has the datasets {', '.join(self.datasets)}, not one")
        return next(iter(self.datasets))

    @cached_property
    def dataset(self) -> Dataset:
        """The dataset, where there is one: see `dataset_name`."""
        return self.datasets[self.dataset_name]

    @cached_property
    def retries(self) -> Retries:
        """The rounds of retries of the dataset, where there is one."""
        return self.rounds.get(self.dataset_name, Retries())

    @cached_property
    def cache(self) -> str:
        """The name of the cache's folder: runs with the same dataset, buckets and encoders have the same."""
        return _cache_name(self.dataset_name, self.run)

    def component(self, name: str) -> Component:
        """The component of that name (checked when the project was loaded)."""
        return self.components[name]


def load_project(name: str, root: str | Path = ".", config: str | Path | None = None) -> Project:
    """Load run `name` from the folder `config`, by default `root`/config, with its dataset and components.

    Paths in the configuration start from `root`, wherever the configuration itself lies.

    Raises:
        ConfigError: a file, key, value or name is wrong.
    """
    folder = Path(root) / "config" if config is None else Path(config)
    layers = read_layers(folder / "runs", name, "run")
    run = validated(Run, layers)
    named_by = f"{layers[-1].path}: {'datasets' if run.datasets else 'dataset'}"
    datasets = {of: read_dataset(folder, of, named_by) for of in run.dataset_names}
    components = load_components(folder / "components.yaml")
    for named in named_components(run):
        check_component_name(components, named, layers)
    try:
        check_sizes(run, components[run.cache.vae], Path(root))
        check_fits(run, components, Path(root))
    except ValueError as error:
        raise ConfigError(f"{layers[-1].path}: {error}") from None
    for of, dataset in datasets.items():
        dataset_layers = read_layers(folder / "datasets", of, "dataset")
        for named in named_components(dataset):
            check_component_name(components, named, dataset_layers)
        _check_priors(run, of, dataset, layers)
    if run.train.initial_run is not None:
        _check_phases(name, run, folder / "runs", layers)
    for key, problem in caption_problems(run, datasets):
        raise ConfigError(f"{_file_of(key.split('.'), layers)}: {problem}")
    rounds = {of: _read_rounds(folder, of) for of in datasets}
    return Project(name, run, datasets, components, rounds)


def _read_rounds(folder: Path, dataset: str) -> Retries:
    path = retries_path(dataset, folder)
    return read_section(Retries, path) if path.exists() else Retries()


def _check_priors(run: Run, name: str, dataset: Dataset, layers: list[Layer]) -> None:
    """Class pictures and the weight of their loss come together."""
    where = f"{_file_of(['train', 'prior_weight'], layers)}: train.prior_weight"
    has_class = spec_of(dataset.source).has_class_pictures(dataset.source)
    if has_class and run.train.prior_weight is None:
        raise ConfigError(
            f"{where}: the dataset {name} has class pictures; write 1.0, or leave its class_folder out"
        )
    if run.train.prior_weight is not None and not has_class:
        raise ConfigError(
            f"{where}: the dataset {name} has no class pictures; give its source class_folder and"
            " class_prompt, or leave this out"
        )


def _check_phases(name: str, run: Run, folder: Path, layers: list[Layer]) -> None:
    """Every phase before this run exists, goes on to the next, and is none that comes later."""
    seen, where = [name], f"{_file_of(['train', 'initial_run'], layers)}: train.initial_run"
    while run.train.initial_run is not None:
        earlier = run.train.initial_run
        if earlier in seen:
            chain = " -> ".join([earlier, *reversed(seen)])
            raise ConfigError(
                f"{where}: {earlier!r} comes after itself ({chain}); the first phase of a chain writes"
                " initial_run: null"
            )
        before = validated(Run, read_layers(folder, earlier, "run", where))
        try:
            check_phase(earlier, run, before)
        except ValueError as error:
            raise ConfigError(f"{folder / seen[-1]}.yaml: {error}") from None
        seen, run = [*seen, earlier], before


def load_run(name: str, root: str | Path = ".") -> Run:
    """Load run `name` from `root`/config/runs, without its dataset and components."""
    return validated(Run, read_layers(Path(root) / "config/runs", name, "run"))


def load_dataset(name: str, root: str | Path = ".", named_by: str = "dataset") -> Dataset:
    """Load dataset `name` from `root`/config/datasets; `named_by` says who asked for it."""
    return read_dataset(Path(root) / "config", name, named_by)


def read_dataset(folder: Path, name: str, named_by: str) -> Dataset:
    """The dataset of a configuration's folder; `named_by` says who asked for it."""
    return validated(Dataset, read_layers(folder / "datasets", name, "dataset", named_by))


def layers_of(kind: str, name: str, root: str | Path = ".", named_by: str = "") -> list[Layer]:
    """The files of a `run` or a `dataset` and of what it extends, the base first; `named_by` asked for it."""
    return read_layers(Path(root) / "config" / f"{kind}s", name, kind, named_by)


def read_section(model: type[SectionT], path: Path) -> SectionT:
    """The one file that holds a section whole.

    Raises:
        ConfigError: it is missing or wrong; names the key.
    """
    if not path.exists():
        raise ConfigError(f"{path}: missing")
    return validated(model, [Layer(path.stem, path, _read_yaml(path))])


def read_layers(folder: Path, name: str, kind: str, named_by: str = "") -> list[Layer]:
    """The files of `name` and of what it extends, the base first."""
    layers: list[Layer] = []
    a_kind = f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
    while name:
        if name in [layer.name for layer in layers]:
            raise ConfigError(f"{layers[-1].path}: extends {name!r}, which extends this {kind} again")
        asked = f"{layers[-1].path}: extends" if layers else named_by or kind
        if not re.fullmatch(NAME, name, re.ASCII):
            raise ConfigError(
                f"{asked}: {name!r} cannot be the name of {a_kind}: letters, digits, '.', '_' and '-' make one, "
                "and it does not begin with '.' or '-'"
            )
        path = folder / f"{name}.yaml"
        if not path.exists():
            known = sorted(p.stem for p in folder.glob("*.yaml"))
            raise ConfigError(f"{asked}: no {kind} {name!r} in {folder}{nearest(name, known)}")
        values = _read_yaml(path)
        parent = values.pop("extends", "")
        if not isinstance(parent, str):
            raise ConfigError(f"{path}: extends: {parent!r} is not the name of {a_kind}")
        layers.append(Layer(name, path, values))
        name = parent
    return layers[::-1]


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = read_yaml(path)
    except YamlError as error:
        raise ConfigError(str(error)) from None
    if not isinstance(values, dict):
        holds = "nothing" if values is None else f"a {type(values).__name__}"
        raise ConfigError(f"{path}: holds {holds}, not a mapping of keys to values")
    return values


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`, key by key; lists and scalars are replaced whole.

    So is a model of another family, and a section of another kind, whose keys are others.
    """
    if "family" in over and over["family"] != base.get("family", DEFAULT_FAMILY):
        return dict(over)
    if "kind" in over and over["kind"] != base.get("kind", over["kind"]):
        return dict(over)
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def validated(model: type[SectionT], layers: list[Layer]) -> SectionT:
    """The section that a chain of files says.

    Raises:
        ConfigError: it is wrong; names file, key and value.
    """
    values: dict[str, Any] = {}
    for layer in layers:
        values = merge(values, layer.values)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [_explain(problem, model, layers) for problem in error.errors()]
        raise ConfigError("\n".join(lines)) from None


def _explain(problem: Any, model: type[BaseModel], layers: list[Layer]) -> str:
    location = _keys(model, problem["loc"])
    # What concerns several sections has no place, and names its key itself.
    where = ": ".join([str(_file_of(location, layers)), *([".".join(location)] if location else [])])
    if problem["type"] == "extra_forbidden":
        known = _fields(model, problem["loc"][:-1])
        return f"{where}: unknown key{nearest(location[-1], known)}"
    if problem["type"] == "missing":
        return f"{where}: is required and missing"
    if problem["type"] == "union_tag_invalid":
        tag, named = problem["ctx"]["tag"], problem["ctx"]["discriminator"].strip("'")
        known = re.findall(r"'([^']+)'", problem["ctx"]["expected_tags"])
        return f"{where}.{named}: no {named} {tag!r}{nearest(tag, known)}"
    message = problem["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    return f"{where}: {message}" + (
        "" if isinstance(problem["input"], dict) else f"; it is {problem['input']!r}"
    )


def _file_of(location: list[str], layers: list[Layer]) -> Path:
    """The last file of the chain that sets the key at `location`, else the last file."""
    for layer in reversed(layers):
        values: Any = layer.values
        for key in location:
            values = values.get(key) if isinstance(values, dict) and key in values else _ABSENT
        if values is not _ABSENT:
            return layer.path
    return layers[-1].path


_ABSENT = object()
_TAGS = ("kind", "family")  # the keys that tell the members of a union apart


def _keys(model: Any, location: tuple[Any, ...]) -> list[str]:
    """The keys of the file at a problem's location.

    Inside a tagged union pydantic puts the tag into the location, which is no key of the file.
    """
    keys = []
    for key in location:
        model, is_tag = _step(model, key)
        if not is_tag:
            keys.append(str(key))
    return keys


def _fields(model: Any, location: tuple[Any, ...]) -> list[str]:
    """The keys that the section at `location` knows."""
    for key in location:
        model, _ = _step(model, key)
    return list(getattr(model, "model_fields", {}))


def _step(model: Any, key: Any) -> tuple[Any, bool]:
    """What stands at a key of a section or a list, and whether the key is the tag of a union's member."""
    if isinstance(model, type) and issubclass(model, RootModel):
        # Names of one's own choosing, all of the same kind.
        return get_args(model.model_fields["root"].annotation)[1], False
    if get_origin(model) is dict:
        return get_args(model)[1], False
    if get_origin(model) is tuple and isinstance(key, int):
        return get_args(model)[0], False
    if isinstance(model, type) and issubclass(model, BaseModel) and key in model.model_fields:
        return _section_or_null(model.model_fields[key].annotation), False
    choices = [m for m in _members(model) if hasattr(m, "model_fields")]
    tagged = [m for m in choices if any(f"'{key}'" in str(m.model_fields.get(tag, "")) for tag in _TAGS)]
    # The sections of a list are all of one kind.
    listed = choices[0] if isinstance(key, int) and choices else model
    return (tagged[0], True) if tagged else (listed, False)


def _members(annotation: Any) -> list[Any]:
    """What an annotation is made of, at the ends of unions in unions, lists and `Annotated`."""
    inner = getattr(annotation, "__args__", ())
    return [member for part in inner for member in _members(part)] if inner else [annotation]


def _section_or_null(annotation: Any) -> Any:
    """The section of `Section | None`; other annotations as they are."""
    choices = [a for a in getattr(annotation, "__args__", ()) if a is not type(None)]
    return choices[0] if len(choices) == 1 and hasattr(choices[0], "model_fields") else annotation


def load_components(path: Path) -> dict[str, Component]:
    """The pretrained components by name, from components.yaml."""
    return validated(Components, [Layer("components", path, _read_yaml(path))]).root


def check_component_name(components: dict[str, Component], named: Named, layers: list[Layer]) -> None:
    """Refuse the name of a component that there is not, or is of another kind."""
    key, name, kind, others = named
    where = f"{_file_of(key.split('.'), layers)}: {key}"
    known = sorted(n for n, component in components.items() if component.kind == kind)
    if name not in components:
        near = nearest(name, sorted([*known, *others]))
        raise ConfigError(f"{where}: no {kind} {name!r} in config/components.yaml{near}")
    if name not in known:
        other = components[name].kind
        raise ConfigError(f"{where}: {name!r} is a {other}, not a {kind}{nearest(name, known)}")


def _cache_name(dataset: str, run: Run) -> str:
    """Hexadecimal digits of the SHA-256 of the dataset's name and of the sections `bucket` and `cache`.

    What has its default is left out: an option that a later version adds gives no cache another name.
    """
    sections = {
        name: getattr(run, name).model_dump(mode="json", exclude_defaults=True)
        for name in ("bucket", "cache")
    }
    text = json.dumps({"dataset": dataset, **sections}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:NUM_CACHE_DIGITS]
