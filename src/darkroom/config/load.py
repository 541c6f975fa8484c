"""Reading the configuration: YAML files that extend each other, checked before any job starts."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from darkroom.config.components import Component, Components
from darkroom.config.dataset import SOURCE_KINDS, Dataset, DreamBoothSource
from darkroom.config.model import DEFAULT_FAMILY, LORA_TARGETS
from darkroom.config.phases import check_phase
from darkroom.config.run import Run
from darkroom.config.sizes import check_sizes

SectionT = TypeVar("SectionT", bound=BaseModel)


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
    """A run with everything it names: its dataset, its components, and where its cache belongs."""

    name: str
    run: Run
    dataset: Dataset
    components: dict[str, Component]
    cache_owner: str

    def component(self, name: str) -> Component:
        """The component of that name (checked when the project was loaded)."""
        return self.components[name]


def load_project(name: str, root: str | Path = ".") -> Project:
    """Load run `name` from `root`/config, with its dataset and components.

    Raises:
        ConfigError: a file, key, value or name is wrong.
    """
    folder = Path(root) / "config"
    layers = _chain(folder / "runs", name, "run")
    run = _validate(Run, layers)
    dataset = load_dataset(run.dataset, root, named_by=f"{layers[-1].path}: dataset")
    components = load_components(folder / "components.yaml")
    _check_component(components, run.cache.vae, "vae", layers, "cache.vae")
    key = "cache.text_encoder" if run.cache.text_encoder else "cache.text_encoders"
    for encoder in run.cache.encoders:
        _check_component(components, encoder.name, "text_encoder", layers, key)
    if run.model.pretrained is not None:
        _check_component(components, run.model.pretrained, "model", layers, "model.pretrained")
    _check_component(components, run.evaluate.clip, "clip", layers, "evaluate.clip")
    try:
        check_sizes(run, components[run.cache.vae], Path(root))
    except ValueError as error:
        raise ConfigError(f"{layers[-1].path}: {error}") from None
    dataset_layers = _chain(folder / "datasets", run.dataset, "dataset")
    if dataset.recaption is not None:
        captioner = dataset.recaption.captioner
        _check_component(components, captioner, "captioner", dataset_layers, "recaption.captioner")
    _check_priors(run, dataset, layers)
    if run.train.initial_run is not None:
        _check_phases(name, run, folder / "runs", layers)
    return Project(name, run, dataset, components, _cache_owner(layers))


def _check_priors(run: Run, dataset: Dataset, layers: list[Layer]) -> None:
    """Class pictures and the weight of their loss come together."""
    source, where = dataset.source, f"{_file_of(['train', 'prior_weight'], layers)}: train.prior_weight"
    has_class = isinstance(source, DreamBoothSource) and source.class_folder is not None
    if has_class and run.train.prior_weight is None:
        raise ConfigError(
            f"{where}: the dataset {run.dataset} has class pictures; write 1.0, or leave its class_folder out"
        )
    if run.train.prior_weight is not None and not has_class:
        raise ConfigError(
            f"{where}: the dataset {run.dataset} has no class pictures; give its source class_folder and"
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
        before = _validate(Run, _chain(folder, earlier, "run", where))
        try:
            check_phase(earlier, run, before)
        except ValueError as error:
            raise ConfigError(f"{folder / seen[-1]}.yaml: {error}") from None
        seen, run = [*seen, earlier], before


def load_dataset(name: str, root: str | Path = ".", named_by: str = "dataset") -> Dataset:
    """Load dataset `name` from `root`/config/datasets; `named_by` says who asked for it."""
    return _validate(Dataset, _chain(Path(root) / "config" / "datasets", name, "dataset", named_by))


def _chain(folder: Path, name: str, kind: str, named_by: str = "") -> list[Layer]:
    """The files of `name` and of what it extends, the base first."""
    layers: list[Layer] = []
    while name:
        if name in [layer.name for layer in layers]:
            raise ConfigError(f"{layers[-1].path}: extends {name!r}, which extends this {kind} again")
        path = folder / f"{name}.yaml"
        if not path.exists():
            known = sorted(p.stem for p in folder.glob("*.yaml"))
            asked = f"{layers[-1].path}: extends" if layers else named_by or kind
            raise ConfigError(f"{asked}: no {kind} {name!r} in {folder}{_nearest(name, known)}")
        values = _read_yaml(path)
        parent = values.pop("extends", "")
        if not isinstance(parent, str):
            raise ConfigError(f"{path}: extends: {parent!r} is not the name of a {kind}")
        layers.append(Layer(name, path, values))
        name = parent
    return layers[::-1]


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds {type(values).__name__}, not a mapping of keys to values")
    return values


class _UniqueKeyLoader(yaml.SafeLoader):
    """Plain YAML, but a key given twice is an error instead of a silent loss."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"key {key!r} stands twice{node.start_mark}")
        return super().construct_mapping(node, deep)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`, key by key; lists and scalars are replaced whole.

    So is a model of another family, whose keys are others.
    """
    if "family" in over and over["family"] != base.get("family", DEFAULT_FAMILY):
        return dict(over)
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _validate(model: type[SectionT], layers: list[Layer]) -> SectionT:
    values: dict[str, Any] = {}
    for layer in layers:
        values = merge(values, layer.values)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [_explain(problem, model, layers) for problem in error.errors()]
        raise ConfigError("\n".join(lines)) from None


def _explain(problem: Any, model: type[BaseModel], layers: list[Layer]) -> str:
    # Inside a tagged union pydantic puts the tag into the location; it is no key of the file.
    tags = (*SOURCE_KINDS, *LORA_TARGETS)
    location = [str(key) for key in problem["loc"] if key not in tags]
    # What concerns several sections has no place, and names its key itself.
    where = ": ".join([str(_file_of(location, layers)), *([".".join(location)] if location else [])])
    if problem["type"] == "extra_forbidden":
        known = _fields(model, problem["loc"][:-1])
        return f"{where}: unknown key{_nearest(location[-1], known)}"
    if problem["type"] == "missing":
        return f"{where}: is required and missing"
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


def _fields(model: Any, location: tuple[Any, ...]) -> list[str]:
    """The keys that the section at `location` knows."""
    for key in location:
        if isinstance(model, type) and issubclass(model, BaseModel) and key in model.model_fields:
            model = model.model_fields[key].annotation
        else:
            choices = [m for m in getattr(model, "__args__", ()) if hasattr(m, "model_fields")]
            choices += [m.__origin__ for m in getattr(model, "__args__", ()) if hasattr(m, "__metadata__")]
            tagged = [
                m for m in choices if any(f"'{key}'" in str(m.model_fields.get(tag, "")) for tag in _TAGS)
            ]
            # The sections of a list are all of one kind.
            model = tagged[0] if tagged else choices[0] if isinstance(key, int) and choices else model
    return list(getattr(model, "model_fields", {}))


def load_components(path: Path) -> dict[str, Component]:
    """The pretrained components by name, from components.yaml."""
    return _validate(Components, [Layer("components", path, _read_yaml(path))]).root


def _check_component(
    components: dict[str, Component], name: str, kind: str, layers: list[Layer], key: str
) -> None:
    where = f"{_file_of(key.split('.'), layers)}: {key}"
    known = sorted(n for n, component in components.items() if component.kind == kind)
    if name not in components:
        raise ConfigError(f"{where}: no {kind} {name!r} in config/components.yaml{_nearest(name, known)}")
    if name not in known:
        other = components[name].kind
        raise ConfigError(f"{where}: {name!r} is a {other}, not a {kind}{_nearest(name, known)}")


def _cache_owner(layers: list[Layer]) -> str:
    """The furthest ancestor with the same dataset, buckets and encoders: runs share its cache."""
    values: dict[str, Any] = {}
    resolved = []
    for layer in layers:
        values = merge(values, layer.values)
        resolved.append((layer.name, [values.get(key) for key in ("dataset", "bucket", "cache")]))
    owner, made_from = resolved[-1]
    for name, sections in reversed(resolved):
        if sections != made_from:
            break
        owner = name
    return owner


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(known)}" if known else ""
