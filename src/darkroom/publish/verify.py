"""Check a run, as far as it is here: its files, manifests and configuration, and what was published of it."""

from dataclasses import dataclass, field
from pathlib import Path

from darkroom.config import Project
from darkroom.publish.bundle import check_bundle
from darkroom.publish.chain_checks import (
    check_copies,
    check_measured,
    check_parts,
    check_settings,
    check_upstream,
)
from darkroom.publish.dvclock import LOCK, read_lock
from darkroom.publish.listed import chain_of, published_runs
from darkroom.publish.lists import check_beside, check_list
from darkroom.publish.looked_at import Looked, look
from darkroom.publish.recorded_checks import check_recorded
from darkroom.publish.stages import stage_entries, stage_name
from darkroom.report.times import digest_without_times
from darkroom.stages import STAGES, folder, members
from darkroom.store.found import shown


@dataclass
class Verdict:
    """What was found of a run.

    Attributes:
        run: its name.
        stages: every stage of its chain.
        is_published: whether it was compared with dvc.lock.
        signed_by: who signed what was published; "" where nobody was asked for.
        more_wrong: what is wrong beside the stages.
        unchecked: what could not be checked, and why.
    """

    run: str
    stages: list[Looked] = field(default_factory=list)
    is_published: bool = False
    signed_by: str = ""
    more_wrong: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)

    @property
    def wrong(self) -> list[str]:
        """A sentence for everything that is wrong, each once."""
        return list(
            dict.fromkeys([*(line for looked in self.stages for line in looked.wrong), *self.more_wrong])
        )


def verify(project: Project, signers: Path | None = None) -> Verdict:
    """Check all that is here of a run; nothing but plain files is opened, and nothing is written.

    Args:
        project: the run.
        signers: those who may have signed what was published, a file as `man ssh-keygen` has it under ALLOWED
            SIGNERS; None asks for no signature.

    Raises:
        ConfigError: the list of published runs, one of the runs, dvc.yaml or dvc.lock is wrong.
    """
    locked, wanted, verdict = read_lock(), stage_entries(), Verdict(project.name)
    own = stage_name(project, "train")
    verdict.is_published = own in wanted or own in locked
    for phase, stage in chain_of(project):
        name = stage_name(phase, stage)
        # Phases share the dataset's stages, and may share a cache.
        if name not in [looked.name for looked in verdict.stages]:
            held = locked.get(name) if verdict.is_published else None
            verdict.stages.append(look(phase, stage, held))
    if verdict.is_published:
        check_recorded(verdict.stages, wanted, locked)
    _follow(verdict)
    _beside(verdict)
    if project.name in published_runs():
        signed_by, wrong, unchecked = check_bundle(project, verdict.stages, signers)
        verdict.signed_by = signed_by
        verdict.more_wrong += wrong
        verdict.unchecked += unchecked
    elif signers is not None:
        verdict.more_wrong.append(f"{project.name} is not among the published runs, so nobody signed it")
    return verdict


def stage_lines(verdict: Verdict) -> list[str]:
    """A line for each stage that something is known of."""
    return [f"{looked.stage:<10} {_state(looked)}" for looked in verdict.stages]


def closing_line(verdict: Verdict) -> str:
    """The verdict in one sentence."""
    known = [looked for looked in verdict.stages if looked.body or looked.held is not None]
    if verdict.wrong:
        number = len(verdict.wrong)
        return f"{verdict.run}: {number} {'thing is' if number == 1 else 'things are'} wrong"
    published = (
        f", and all is as {LOCK} holds it" if verdict.is_published else f"; {LOCK} does not know the run"
    )
    signed = f", signed by {verdict.signed_by}" if verdict.signed_by else ""
    num_files = sum(looked.checked.num_named - len(looked.checked.absent) for looked in verdict.stages)
    return (
        f"{verdict.run}: nothing is wrong with {len(known)} of {len(verdict.stages)} stages, {num_files} of whose"
        f" files are here{published}{signed}"
    )


def _state(looked: Looked) -> str:
    word = "wrong" if looked.wrong else "ok"
    where = looked.checked.path.parent
    if looked.checked.body is not None:
        number, absent = looked.checked.num_named, len(looked.checked.absent)
        return f"{word}: {number - absent} of {number} files checked in {where}"
    if looked.copy.body is not None:
        return f"{word}: the manifest checked in {looked.copy.path.parent}; {where} is not here"
    if looked.held is not None:
        return f"{word}: {LOCK} holds it; {where} is not here"
    return f"{word}: {where} is not here"


def _follow(verdict: Verdict) -> None:
    """Settings, and the chain from stage to stage."""
    by_path = {looked.checked.path: looked for looked in verdict.stages}
    for looked in verdict.stages:
        check_settings(looked)
        check_copies(looked)
        absent = check_upstream(looked, by_path)
        if not looked.body and looked.held is None:
            looked.wrong.append(f"{shown(looked.checked.path)}: missing")
        elif absent:
            verdict.unchecked.append(
                f"{shown(looked.manifest.path)}: whether it was made from {', '.join(absent)}"
            )
        if looked.checked.absent:
            where = looked.checked.path.parent
            verdict.unchecked.append(
                f"{where}: {len(looked.checked.absent)} of {looked.checked.num_named} files, which are not here"
            )
        _check_pages(looked)
    check_parts(verdict.stages)
    check_measured({looked.stage: looked for looked in verdict.stages})


def _check_pages(looked: Looked) -> None:
    """Pages tell times, so their digest is that without these."""
    for name, digest in looked.body.get("pages", {}).items():
        if name not in looked.checked.files:
            continue
        path = looked.checked.path.parent / name
        try:
            is_same = digest_without_times(path, STAGES) == digest
        except (OSError, ValueError) as error:
            looked.wrong.append(str(error))
            continue
        if not is_same:
            looked.wrong.append(f"{shown(path)}: changed since {shown(looked.checked.path)} was written")


def _beside(verdict: Verdict) -> None:
    """What lies beside the stages, the list among it."""
    stages: dict[Path, Looked] = {}
    for looked in verdict.stages:
        stages.setdefault(looked.checked.path.parent.parent, looked)
    for owner, looked in stages.items():
        all_stages = {s for s in STAGES for of in members(looked.project, s) if folder(of, s).parent == owner}
        wrong, files = check_beside(owner, all_stages)
        if "download" in all_stages:
            more_wrong, unchecked = check_list(looked.project, owner, files)
            verdict.unchecked += unchecked
        else:
            more_wrong = [f"{shown(owner / name)}: no file of any stage" for name in sorted(files)]
        verdict.more_wrong += wrong + more_wrong
