"""A run's results and copies compared with `dvc.lock`, and `dvc.lock` with the configuration and with itself."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from darkroom.differences import told
from darkroom.publish.dvclock import LOCK, PIPELINE, Content, Held, read_pipeline
from darkroom.publish.looked_at import Looked
from darkroom.publish.recorded import current_options
from darkroom.publish.stages import out_paths
from darkroom.store.checks import MANIFEST
from darkroom.store.found import digests, entries, is_snakemakes_mark, kind_of, shown


def check_recorded(
    stages: Iterable[Looked], wanted: Mapping[str, dict[str, Any]], locked: Mapping[str, Held]
) -> None:
    """Add to each stage what differs from dvc.lock, and what of dvc.lock is not of the configuration.

    Args:
        stages: those of a published run, in order.
        wanted: DVC's name -> the stage's entry of dvc.yaml, as the configuration gives it.
        locked: DVC's name -> what dvc.lock holds.
    """
    declared, makers = read_pipeline(), {path: name for name, held in locked.items() for path in held.outs}
    components: dict[str, Content | str] = {}
    for looked in stages:
        entry, held = wanted.get(looked.name), looked.held
        if entry is not None and declared.get(looked.name) != entry:
            looked.wrong.append(
                f"{PIPELINE}: {looked.name}: is not as the configuration gives it; give `darkroom publish --write`"
            )
        if held is None:
            if looked.body:
                looked.wrong.append(
                    f"{LOCK}: {looked.name}: missing, though the run is published and"
                    f" {shown(looked.manifest.path)} is here"
                )
            continue
        if entry is not None:
            looked.wrong += _unlike_entry(looked.name, entry, held)
        looked.wrong += _unlike_results(looked, held)
        looked.wrong += _unlike_copies(looked, held)
        for path, content in held.deps.items():
            if path in makers:
                above = locked[makers[path]].outs[path]
                if above != content:
                    looked.wrong.append(
                        f"{LOCK}: {looked.name}: was made from another {path} ({content}) than {makers[path]} left"
                        f" ({above})"
                    )
            elif path.endswith(f"/{MANIFEST}"):
                looked.wrong.append(
                    f"{LOCK}: {looked.name}: was made from {path}, which no stage there leaves"
                )
            else:
                looked.wrong += _unlike_component(path, content, components)


def _unlike_entry(name: str, entry: Mapping[str, Any], held: Held) -> list[str]:
    """What dvc.lock says a stage was made with and of, against the configuration."""
    wrong = []
    if held.cmd != entry["cmd"]:
        wrong.append(f"{LOCK}: {name}: was recorded of `{held.cmd}`, not of `{entry['cmd']}`")
    options = current_options(entry)
    unlike_options = {
        file: told(held.params.get(file, {}), options.get(file, {})) for file in {**held.params, **options}
    }
    wrong += [
        f"{LOCK}: {name}: was recorded with other options than {file} has: {difference}"
        for file, difference in unlike_options.items()
        if difference
    ]
    files = (("from", held.deps, entry.get("deps", [])), ("as leaving", held.outs, out_paths(entry)))
    return wrong + [
        f"{LOCK}: {name}: was recorded {what} other files than {PIPELINE} says: {', '.join(sorted(unlike))}"
        for what, recorded, right in files
        if (unlike := recorded.keys() ^ set(right))
    ]


def _unlike_results(looked: Looked, held: Held) -> list[str]:
    return [
        f"{shown(path)}: is not what {LOCK} holds of {looked.name} ({held.outs[path]}; here {content})"
        for path, content in looked.out_contents.items()
        if path in held.outs and held.outs[path] != content
    ]


def _unlike_copies(looked: Looked, held: Held) -> list[str]:
    here = {file: Content.of_file(read) for file, read in looked.copies.items()}
    recorded = {file: held.outs.get(str(looked.checked.path.parent / file)) for file in here}
    return [
        f"{looked.copy.path.parent / file}: is not what {LOCK} holds of {looked.name}"
        f" ({recorded[file]}; here {content})"
        for file, content in here.items()
        if recorded[file] not in (None, content)
    ]


def _unlike_component(path: str, recorded: Content, known: dict[str, Content | str]) -> list[str]:
    """A pretrained component in the project: each is read once."""
    if kind_of(path) is None:
        return []
    if path not in known:
        known[path] = _content_of_component(path)
    here = known[path]
    if isinstance(here, str):
        return [here]
    return [] if here == recorded else [f"{shown(path)}: is not what {LOCK} holds ({recorded}; here {here})"]


def _content_of_component(path: str) -> Content | str:
    """Its files as DVC lists them; what is wrong, if they cannot be read."""
    # The project's folder may lie behind links, as everything in it then does.
    folder = Path(path).resolve()
    try:
        if kind_of(folder) == "file":
            return Content.of_file(digests(folder, with_md5=True))
        names = [name for name, kind in entries(folder).items() if kind != "folder"]
        files = [name for name in names if not is_snakemakes_mark(folder / name)]
        return Content.of_folder({name: digests(folder / name, with_md5=True) for name in files})
    except ValueError as error:
        return str(error)
    except OSError as error:
        return f"{shown(path)}: cannot be read ({error.strerror})"
