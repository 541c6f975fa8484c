"""Ranks find each other from srun and from torchrun, and when one is missing or fails all end and say why."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import warm
from ranks import Processes, environment, free_port, start_ranks

from darkroom.train import rendezvous
from darkroom.train.distributed import Ranks, broadcast_from_first, find_ranks, wait_for_first
from darkroom.train.record import print_line
from darkroom.train.rendezvous import find_rendezvous, first_node, process_group, timeout_seconds
from darkroom.train.signals import STOPPED_EXIT_CODE, Stopped, ends_when_stopped, stop_signals

# Time enough for those that are there to find each other; where there is nobody to find, less will do.
QUICK, AT_ONCE = ({"DARKROOM_RENDEZVOUS_TIMEOUT_S": seconds} for seconds in (6, 2))


def test_ranks_are_found_in_the_environment():
    assert find_ranks({}) == Ranks(0, 1, 0)
    torchrun = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}
    srun = {"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_LOCALID": "1", "SLURM_STEP_NUM_TASKS": "2"}
    assert find_ranks(srun) == Ranks(1, 2, 1)
    assert find_ranks({**srun, **torchrun}) == Ranks(3, 4, 1)


def test_a_batch_script_of_several_tasks_is_one_process():
    assert find_ranks({"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"}) == Ranks()


@pytest.mark.parametrize(
    "env",
    [
        {"WORLD_SIZE": "2"},
        {"WORLD_SIZE": "2", "RANK": "2", "LOCAL_RANK": "0"},
        {"WORLD_SIZE": "two", "RANK": "1", "LOCAL_RANK": "0"},
    ],
)
def test_ranks_without_a_sensible_number_are_refused_by_name(env):
    with pytest.raises(ValueError, match=r"RANK.*WORLD_SIZE=.*every rank needs its number"):
        find_ranks(env)


def test_the_meeting_point_is_worked_out_inside_an_srun_step():
    env = {
        "SLURM_STEP_NODELIST": "gpu[007-009,12],big1",
        "SLURM_STEP_NUM_NODES": "5",
        "SLURM_JOB_ID": "1234567",
        "SLURM_STEP_ID": "0",
    }
    met = find_rendezvous(env)
    assert (met.host, met.port) == ("gpu007", 24567)
    assert find_rendezvous({**env, "SLURM_JOB_ID": "1234568"}).token != met.token
    assert find_rendezvous({**env, "SLURM_STEP_NUM_NODES": "1"}).host == "127.0.0.1"
    other = find_rendezvous({**env, "MASTER_PORT": "29500"})
    assert (other.host, other.port) == ("gpu007", 29500)
    assert find_rendezvous({"MASTER_ADDR": "a", "MASTER_PORT": "1"}).host == "a"
    with pytest.raises(ValueError, match="start the training with srun or torchrun"):
        find_rendezvous({"MASTER_ADDR": "a"})
    with pytest.raises(ValueError, match=r"MASTER_PORT is '99999'.*1 to 65535"):
        find_rendezvous({"MASTER_ADDR": "a", "MASTER_PORT": "99999"})


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("n1", "n1"),
        ("n1,n2", "n1"),
        ("n[1-4]", "n1"),
        ("n[05-07,9],m1", "n05"),
        ("n[3]", "n3"),
        ("r[1-3]n[2,4]-ib,x", "r1n2-ib"),
    ],
)
def test_the_first_node_of_a_node_list(nodes, first):
    assert first_node(nodes) == first


def test_a_timeout_that_is_no_number_is_refused_by_name(monkeypatch):
    monkeypatch.setenv("DARKROOM_COLLECTIVE_TIMEOUT_S", "soon")
    with pytest.raises(ValueError, match="DARKROOM_COLLECTIVE_TIMEOUT_S is 'soon'"):
        timeout_seconds(rendezvous.COLLECTIVE_TIMEOUT_S)


def sums(key="same"):
    """What a rank does here: many steps that need all others."""
    return process_group(find_ranks(), torch.device("cpu"), key, print_line)


def work():
    with sums():
        rank = find_ranks().rank
        for _ in range(5):
            total = torch.tensor([float(rank)])
            dist.all_reduce(total)
        print(f"rank {rank} total {total.item():g} on {dist.get_backend()}", flush=True)


def fail():
    rendezvous.END_WITHIN_S = 6  # enough for a busy machine to say it
    with sums():
        rank = find_ranks().rank
        for step in range(10**6):
            if rank == 2 and step == 50:
                raise ValueError("the picture is upside down")
            if rank == 1:
                time.sleep(600)  # stuck where no collective tells it of the failure
            if rank == 0:
                time.sleep(0.01)


def killed():
    with sums():
        for step in range(10**6):
            if find_ranks().rank == 1 and step == 50:
                os.kill(os.getpid(), signal.SIGKILL)
            dist.all_reduce(torch.ones(1))


def busy():
    """Rank 0 does for longer than a collective waits what it does alone."""
    with sums():
        ranks = find_ranks()
        for expected, seconds in ((7, 0), (None, 4)):
            found = broadcast_from_first(lambda e=expected, s=seconds: time.sleep(s) or e, ranks)
            assert found == expected
        dist.all_reduce(torch.ones(1))


def breaks():
    """Rank 0 fails while the others wait for it."""
    with sums():
        if find_ranks().is_first:
            time.sleep(2)
            raise OSError("the disk is away")
        wait_for_first(find_ranks())


def listen():
    """Tell all addresses at which this process listens."""
    with sums():
        dist.all_reduce(torch.ones(1))
        mine = {os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                _, local, _, state, *_, inode = line.split()[:10]
                if state == "0A" and f"socket:[{inode}]" in mine:
                    # In one write: torchrun gives all ranks one stream.
                    os.write(1, f"listens on {local.split(':')[0]}\n".encode())
        dist.barrier()


def settings():
    with sums("other" if find_ranks().rank == 1 else "same"):
        pass


def leave():
    """All stop; rank 0 needs a moment longer, and whoever starts ranks may end it meanwhile."""
    with sums():
        dist.barrier()
        raise SystemExit(75)


def test_ranks_under_srun_need_no_master_address(tmp_path):
    slurm = [
        {
            "SLURM_PROCID": rank,
            "SLURM_LOCALID": rank,
            "SLURM_STEP_NUM_TASKS": 2,
            "SLURM_STEP_NODELIST": socket.gethostname(),
            "SLURM_STEP_NUM_NODES": 1,
            "SLURM_JOB_ID": 7,
            "SLURM_STEP_ID": 0,
            "MASTER_PORT": port,
        }
        for port in [free_port()]
        for rank in range(2)
    ]
    base = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "MASTER_ADDR")}
    envs = [{**base, "OMP_NUM_THREADS": "1", **{k: str(v) for k, v in one.items()}} for one in slurm]
    for code, output in Processes(tmp_path, __file__, ["work"], envs).wait():
        assert code == 0 and "total 1 on gloo" in output, output


def test_ranks_meet_under_torchrun():
    command = ["torchrun", "--standalone", "--nproc-per-node=2"]
    env = warm.jobs.environment({**os.environ, "OMP_NUM_THREADS": "1"})
    done = subprocess.run([*command, __file__, "work"], capture_output=True, text=True, timeout=600, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("total 1 on gloo") == 2


def test_a_rank_that_never_comes_is_named_by_those_that_did(tmp_path):
    ranks = start_ranks(tmp_path, __file__, ["work"], 4, present=[0, 2], **QUICK)
    for code, output in ranks.wait():
        assert code == 1
        assert "ranks 1, 3 of 4 did not come within 6 s; there were ranks 0, 2 on" in output, output


def test_without_rank_0_the_others_say_where_they_looked(tmp_path):
    ((code, output),) = start_ranks(tmp_path, __file__, ["work"], 2, present=[1], **AT_ONCE).wait()
    assert code == 1, output
    assert "did not reach rank 0 at 127.0.0.1:" in output and "within 2 s" in output, output


def test_a_taken_port_is_named_and_all_end(tmp_path):
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        envs = [environment(rank, 2, port, **AT_ONCE) for rank in range(2)]
        ranks = Processes(tmp_path, __file__, ["work"], envs)
        first, second = ranks.wait()
    assert first[0] == 1 and f"port {port} of {socket.gethostname()}" in first[1], first[1]
    assert "set MASTER_PORT to a free one" in first[1]
    assert second[0] == 1 and "did not reach rank 0" in second[1], second[1]


def test_two_processes_of_one_rank_are_refused(tmp_path):
    port = free_port()
    envs = [environment(rank, 3, port, **QUICK) for rank in (0, 1, 1)]
    outputs = Processes(tmp_path, __file__, ["work"], envs).wait()
    assert all(code == 1 for code, _ in outputs)
    assert sum("two processes are rank 1: process" in output for _, output in outputs) == 1


def test_a_rank_with_other_settings_is_refused(tmp_path):
    for code, output in start_ranks(tmp_path, __file__, ["settings"], 2).wait():
        assert code == 1 and "rank 1 on" in output and "other settings or another version" in output, output


def test_a_failing_rank_leaves_its_traceback_and_the_others_end_with_its_error(tmp_path):
    ranks = start_ranks(tmp_path, __file__, ["fail"], 3)
    *others, failed = ranks.wait()
    assert failed[0] == 1 and "Traceback" in failed[1] and "upside down" in failed[1], failed[1]
    for code, output in others:
        # Killed by the alarm: nothing else could reach them.
        assert code == -signal.SIGALRM
        assert "rank 2 of 3 (" in output and "failed: ValueError: the picture is upside down" in output, (
            output
        )
        assert "this rank ends within 6 s" in output


def test_a_killed_rank_ends_the_others(tmp_path):
    first, killed, third = start_ranks(tmp_path, __file__, ["killed"], 3).wait()
    assert killed[0] == -signal.SIGKILL
    assert first[0] == third[0] == 1
    said = "lost another rank, which ended without an error (killed?) or was busy for longer than DARKROOM_"
    assert any(said in output for _, output in (first, third))


def test_rank_0_may_be_busy_for_longer_than_a_collective_waits(tmp_path):
    env = {"DARKROOM_COLLECTIVE_TIMEOUT_S": 2}
    for code, output in start_ranks(tmp_path, __file__, ["busy"], 3, **env).wait():
        assert code == 0, output


def test_ranks_that_wait_for_a_rank_0_that_fails_end_with_its_error(tmp_path):
    for code, output in start_ranks(tmp_path, __file__, ["breaks"], 3).wait():
        assert code == 1 and "OSError: the disk is away" in output, output


@pytest.mark.parametrize("launcher", ["by hand", "torchrun"])
def test_ranks_of_one_machine_listen_on_its_loopback_alone(tmp_path, launcher):
    if launcher == "by hand":
        told = [output for code, output in start_ranks(tmp_path, __file__, ["listen"], 2).wait() if code == 0]
    else:
        env = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        options = ["--rdzv-backend=c10d", "--rdzv-conf=store_type=file", "--nnodes=1", "--nproc-per-node=2"]
        command, env = ["torchrun", *options, __file__, "listen"], warm.jobs.environment(env)
        told = [subprocess.run(command, env=env, capture_output=True, text=True, timeout=600).stdout]
    found = re.findall(r"listens on (\w+)", "".join(told))
    assert len(found) >= 3 and set(found) == {"0100007F"}, told  # the store, and gloo on each rank


def test_ranks_that_stop_together_keep_their_exit_code(tmp_path):
    assert [code for code, _ in start_ranks(tmp_path, __file__, ["leave"], 2).wait()] == [75, 75]


def test_a_rank_that_has_stopped_keeps_its_exit_code_though_a_launcher_ends_it():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with pytest.raises(Stopped) as stopped, ends_when_stopped(), stop_signals():
            raise Stopped(3)
        assert stopped.value.code == STOPPED_EXIT_CODE
        assert all(signal.getsignal(number) is signal.SIG_IGN for number in before)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    {f.__name__: f for f in (work, fail, killed, busy, breaks, listen, settings, leave)}[sys.argv[1]]()
