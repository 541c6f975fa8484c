"""How the ranks of a training meet, see that they belong together, and end together when one fails.

Rank 0 serves a small key-value store. Every rank announces itself there, and rank 0 gives the verdict that
all wait for: who is missing, who is there twice, who was started with other settings. Afterwards each rank
looks into the store once a second: the first one that fails leaves its error there, and the others end with
it instead of waiting in a collective.

The store trusts whoever reaches it. Ranks of one machine meet on its loopback, where no other machine does.
"""

import errno
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from darkroom.train.distributed import Ranks, broadcasting, training_ranks

# How long to wait, in seconds. No part of a run's settings: a slow cluster makes no other model.
RENDEZVOUS_TIMEOUT_S = ("DARKROOM_RENDEZVOUS_TIMEOUT_S", 60.0)
COLLECTIVE_TIMEOUT_S = ("DARKROOM_COLLECTIVE_TIMEOUT_S", 600.0)
# For another training in the same run directory to end; see `lock.take`.
LOCK_WAIT_S = ("DARKROOM_LOCK_WAIT_S", 10.0)
# A rank that hears of another's failure ends within so many seconds, wherever it is stuck.
END_WITHIN_S = 15
_LOOK_EVERY_S = 1.0
# How long a rank that fails stays, so that the others can hear why.
_LINGER_S = 3.0
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Rendezvous:
    """Where ranks meet. `token` keeps apart what meets at one port; `is_served`: the launcher has the store;
    `is_local`: all ranks are on this machine."""

    host: str
    port: int
    token: str
    is_served: bool = False
    is_local: bool = False


def timeout_seconds(option: tuple[str, float]) -> float:
    """The value of an environment variable that holds seconds, or its default.

    Raises:
        ValueError: it is no number above 0.
    """
    name, default = option
    text = os.environ.get(name, "")
    try:
        seconds = float(text or default)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise ValueError(f"{name} is {text!r}; it should be a number of seconds above 0")
    return seconds


def find_rendezvous(environment: Mapping[str, str] | None = None) -> Rendezvous:
    """Where the ranks meet: MASTER_ADDR and MASTER_PORT, or worked out inside an srun task.

    Under srun rank 0 is on the first node of the step, and the port follows from the job's number. On one
    machine it is the loopback, whatever name the launcher gives it.

    Raises:
        ValueError: neither is there.
    """
    env = os.environ if environment is None else environment
    host, port = env.get("MASTER_ADDR"), env.get("MASTER_PORT")
    nodes = env.get("SLURM_STEP_NODELIST")
    is_served = env.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    is_local = not is_served and (host in ("localhost", "::1", _LOOPBACK) or _is_one_node(env))
    if is_local:
        host = _LOOPBACK
    elif nodes and not host:
        host = first_node(nodes)
    if nodes and not port:
        port = str(20000 + int(env["SLURM_JOB_ID"]) % 10000)
    if not (host and port):
        raise ValueError(
            "there are several ranks, but MASTER_ADDR and MASTER_PORT are not both set; "
            "start the training with srun or torchrun, or export them"
        )
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"MASTER_PORT is {port!r}; it should be a number from 1 to 65535")
    started = env.get("TORCHELASTIC_RUN_ID") or f"{env.get('SLURM_JOB_ID')}.{env.get('SLURM_STEP_ID')}"
    token = f"darkroom/{started}/{env.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    return Rendezvous(host, int(port), token, is_served, is_local)


def _is_one_node(env: Mapping[str, str]) -> bool:
    """Whether torchrun or srun says that it started all ranks on one machine."""
    if "WORLD_SIZE" in env:
        return env.get("LOCAL_WORLD_SIZE") == env["WORLD_SIZE"]
    return env.get("SLURM_STEP_NUM_NODES") == "1"


def first_node(node_list: str) -> str:
    """The first host name of a SLURM node list: `n05` of `n[05-07,9],m1`, `r1n2` of `r[1-3]n[2,4]`."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])+", node_list)
    if first is None:
        raise ValueError(f"SLURM_STEP_NODELIST is {node_list!r}; it should name nodes, like n[1-4]")
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first.group())


@contextmanager
def process_group(
    ranks: Ranks,
    device: torch.device,
    key: str,
    log: Callable[[str], None] = print,
    num_encoders: int = 0,
) -> Iterator[dist.Store | None]:
    """Meet the other ranks and join them (NCCL between GPUs, gloo between CPUs); nothing where there are none.

    `key` says what is trained; ranks with another one are refused. When the block fails on one rank, its
    error ends the others too, within END_WITHIN_S. The last `num_encoders` ranks meet the others, end with them,
    and are not joined. Gives the store where they met.

    Raises:
        RuntimeError: a port is taken, a rank did not come or does not belong here; another rank failed.
    """
    if ranks.world_size == 1:
        yield None
        return
    meeting = find_rendezvous()
    store = _rendezvous(ranks, meeting, _announcement(device, key))
    if ranks.is_first:
        encoding = f"; the last {num_encoders} of them only encode" if num_encoders else ""
        log(f"train: {ranks.world_size} ranks met at {meeting.host}:{meeting.port}{encoding}")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    watch = _Watch(store, ranks, log)
    if meeting.is_local and any(name == "lo" for _, name in socket.if_nameindex()):
        for library in ("GLOO", "NCCL"):
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", "lo")
    try:
        _join(store, training_ranks(ranks, num_encoders), device)
        with broadcasting(store):
            yield store
        if dist.is_initialized():
            dist.barrier()  # a rank that fails late still tells the others
        _leave(store, ranks, watch)
    except SystemExit:
        # The launcher may end the others as soon as one has left: they keep their own exit code.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _leave(store, ranks, watch)
        raise
    except Exception as error:
        first = watch.fail(error)
        if first is not None:
            raise RuntimeError(first) from None
        log(f"train: {_who(ranks)} failed; its traceback follows")
        raise


def _join(store: dist.Store, ranks: Ranks | None, device: torch.device) -> None:
    if ranks is None or ranks.world_size == 1:
        return
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=dist.PrefixStore("group", store),
        rank=ranks.rank,
        world_size=ranks.world_size,
        timeout=timedelta(seconds=timeout_seconds(COLLECTIVE_TIMEOUT_S)),
        device_id=device if device.type == "cuda" else None,
    )


def _leave(store: dist.Store, ranks: Ranks, watch: "_Watch") -> None:
    """End the group; rank 0, and the store with it, goes last."""
    watch.close()
    if dist.is_initialized():
        dist.destroy_process_group()
    store.add("left", 1)
    if ranks.is_first:
        _linger(store, "left", ranks.world_size)


def _announcement(device: torch.device, key: str) -> dict[str, str]:
    gpu = str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else ""
    return {"host": socket.gethostname(), "process": str(os.getpid()), "gpu": gpu, "key": key}


def _who(ranks: Ranks) -> str:
    return f"rank {ranks.rank} of {ranks.world_size} ({socket.gethostname()}, process {os.getpid()})"


def _rendezvous(ranks: Ranks, meeting: Rendezvous, mine: Mapping[str, str]) -> dist.Store:
    """The store of this training, after rank 0 has found all ranks in order."""
    seconds = timeout_seconds(RENDEZVOUS_TIMEOUT_S)
    deadline = time.monotonic() + seconds
    store = dist.PrefixStore(meeting.token, _open(ranks, meeting, seconds))
    found = json.loads(store.compare_set(f"rank/{ranks.rank}", "", json.dumps(mine)))
    if found != mine:
        raise RuntimeError(
            f"two processes are rank {ranks.rank}: process {found['process']} on {found['host']} and "
            f"process {mine['process']} on {mine['host']}; give each its own RANK, or leave it to srun or torchrun"
        )
    if ranks.is_first:
        wrong = _what_is_wrong(store, ranks.world_size, deadline, seconds)
        store.set("verdict", wrong or "all here")
        if wrong:
            _linger(store, "heard the verdict", ranks.world_size - 1)
            raise RuntimeError(wrong)
        return store
    try:
        # Rank 0 may have come later than this one.
        store.wait(["verdict"], timedelta(seconds=2 * seconds))
        verdict = store.get("verdict").decode()
        store.add("heard the verdict", 1)
    except dist.DistError as error:
        raise RuntimeError(
            f"rank 0 at {meeting.host}:{meeting.port} was lost before the training began, or is that of another "
            "one; look at its log"
        ) from error
    if verdict != "all here":
        raise RuntimeError(verdict)
    return store


def _open(ranks: Ranks, meeting: Rendezvous, seconds: float) -> dist.Store:
    where = f"{meeting.host}:{meeting.port}"
    if ranks.is_first and not meeting.is_served:
        try:
            return _store(meeting, seconds, is_master=True)
        except (OSError, dist.DistError) as error:
            if "EADDRINUSE" not in str(error) and getattr(error, "errno", 0) != errno.EADDRINUSE:
                raise
            raise RuntimeError(
                f"port {meeting.port} of {socket.gethostname()}, where the ranks should meet, is taken; "
                "set MASTER_PORT to a free one for all ranks"
            ) from error
    stores: list[dist.Store] = []
    errors: list[Exception] = []

    def connect() -> None:
        try:
            stores.append(_store(meeting, seconds, is_master=False))
        except dist.DistError as error:
            errors.append(error)

    # On a thread, because whoever else listens at that port may leave the store's greeting unanswered for ever.
    thread = threading.Thread(target=connect, name="darkroom-connect", daemon=True)
    thread.start()
    # It gives up by itself after `seconds`, on a busy machine a little later; left alone at exit it would abort.
    thread.join(seconds + 20)
    if stores:
        return stores[0]
    raise RuntimeError(
        f"rank {ranks.rank} on {socket.gethostname()} did not reach rank 0 at {where} within {seconds:g} s; "
        f"look at rank 0's log, or set {RENDEZVOUS_TIMEOUT_S[0]}"
    ) from (errors[0] if errors else None)


def _store(meeting: Rendezvous, seconds: float, is_master: bool) -> dist.Store:
    listener = None
    if is_master and meeting.is_local:
        # The store itself would listen on all addresses of the machine.
        with socket.create_server((meeting.host, meeting.port), backlog=1024) as server:
            listener = os.dup(server.fileno())
    return dist.TCPStore(
        meeting.host,
        meeting.port,
        is_master=is_master,
        wait_for_workers=False,
        timeout=timedelta(seconds=seconds),
        master_listen_fd=listener,
    )


def _what_is_wrong(store: dist.Store, world_size: int, deadline: float, seconds: float) -> str | None:
    here: dict[int, dict[str, str]] = {}
    for rank in range(world_size):
        try:
            store.wait([f"rank/{rank}"], timedelta(seconds=max(deadline - time.monotonic(), 0.01)))
            here[rank] = json.loads(store.get(f"rank/{rank}"))
        except dist.DistError:
            continue
    missing = [rank for rank in range(world_size) if rank not in here]
    if missing:
        return (
            f"{_numbers(missing)} of {world_size} did not come within {seconds:g} s; there were "
            f"{_numbers(sorted(here))} on {', '.join(sorted({r['host'] for r in here.values()}))}; "
            f"look at the missing ranks' nodes, or set {RENDEZVOUS_TIMEOUT_S[0]}"
        )
    seen: dict[str, int] = {}
    for rank, found in here.items():
        if found["key"] != here[0]["key"]:
            return (
                f"rank {rank} on {found['host']} was started with other settings or another version than rank 0 "
                f"on {here[0]['host']}: {found['key']}, not {here[0]['key']}; start all ranks by one command"
            )
        if found["gpu"] and found["gpu"] in seen:
            return (
                f"ranks {seen[found['gpu']]} and {rank} have the same GPU of {found['host']}; "
                "start one rank a GPU"
            )
        seen[found["gpu"]] = rank
    return None


def _numbers(ranks: list[int]) -> str:
    shown = ", ".join(str(rank) for rank in ranks[:8]) + (", ..." if len(ranks) > 8 else "")
    return f"rank{'s' if len(ranks) > 1 else ''} {shown}"


def _linger(store: dist.Store, key: str, num: int) -> None:
    """Keep the store until `num` ranks have added themselves to `key`, for a short time."""
    end = time.monotonic() + _LINGER_S
    while store.add(key, 0) < num and time.monotonic() < end:
        time.sleep(0.05)


class _Watch:
    """Looks for another rank's failure on a thread of its own, and ends this process when it finds one."""

    def __init__(self, store: dist.Store, ranks: Ranks, log: Callable[[str], None]) -> None:
        # A connection of its own: the other one may be held by a wait.
        self._store, self._ranks, self._log = store, ranks, log
        self._look_at: dist.Store = store.clone()  # type: ignore[attr-defined]
        self._closed = threading.Event()
        self._heard: str | None = None
        self._thread = threading.Thread(target=self._work, name="darkroom-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._thread.join()

    def fail(self, error: Exception) -> str | None:
        """Tell the others of this rank's error; returns what another rank had told before, or None."""
        self.close()
        # The system ends the process if it does not end by itself: a collective may hold on to it.
        signal.alarm(END_WITHIN_S + int(_LINGER_S))
        is_lost = isinstance(error, dist.DistError) or "gloo" in str(error)
        what = (
            "lost another rank, which ended without an error (killed?) or was busy for longer than "
            f"{COLLECTIVE_TIMEOUT_S[0]} ({timeout_seconds(COLLECTIVE_TIMEOUT_S):g} s)"
            if is_lost
            else "failed"
        )
        mine = f"{_who(self._ranks)} {what}: {type(error).__name__}: {error}"
        try:
            first = self._store.compare_set("failure", "", mine).decode()
            if self._heard is None:
                self._store.add("heard the failure", 1)
            if self._ranks.is_first or first == mine:
                _linger(self._store, "heard the failure", self._ranks.world_size)
        except dist.DistError:
            return self._heard
        return None if first == mine else first

    def _work(self) -> None:
        while not self._closed.wait(_LOOK_EVERY_S):
            try:
                failure = self._look_at.get("failure").decode() if self._look_at.check(["failure"]) else None
                if failure is not None:
                    self._look_at.add("heard the failure", 1)
                    self._heard = failure
            except dist.DistError:
                failure = "rank 0 is gone, and the training with it"
            if failure is not None:
                self._log(f"train: {failure}; this rank ends within {END_WITHIN_S} s")
                signal.alarm(END_WITHIN_S)
                return
