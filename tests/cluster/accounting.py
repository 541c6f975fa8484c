"""A job database for the cluster: a private MariaDB on a socket, and slurmdbd on it."""

import subprocess
from collections.abc import Callable
from pathlib import Path

from cluster.machine import program

ACCOUNT = "lab"
# Starts a daemon: its name and command.
Start = Callable[[str, list[str]], None]
WaitFor = Callable[[Callable[[], object], float, str], None]


def write_file(folder: Path, user: str, host: str, port: int) -> None:
    """Write slurmdbd.conf, which slurmdbd looks for beside slurm.conf."""
    path = folder / "etc/slurmdbd.conf"
    path.touch(0o600)
    path.write_text(
        "\n".join(
            [
                "AuthType=auth/munge",
                f"AuthInfo=socket={folder}/run/munge",
                f"DbdHost={host}",
                "DbdAddr=127.0.0.1",
                f"DbdPort={port}",
                f"SlurmUser={user}",
                f"PidFile={folder}/run/slurmdbd.pid",
                f"LogFile={folder}/log/slurmdbd.log",
                "StorageType=accounting_storage/mysql",
                "StorageHost=localhost",
                f"StorageUser={user}",
                "StorageLoc=slurm_acct",
            ]
        )
        + "\n"
    )


def controller_lines(folder: Path, port: int) -> list[str]:
    """What slurm.conf says of a database on `port`; unknown accounts, QOS and jobs above limits are refused."""
    return [
        "AccountingStorageType=accounting_storage/slurmdbd",
        "AccountingStorageHost=127.0.0.1",
        f"AccountingStoragePort={port}",
        # The clients of slurmdbd look for munge here, not in AuthInfo.
        f"AccountingStoragePass={folder}/run/munge",
        "AccountingStorageEnforce=associations,limits,qos",
        "AccountingStoreFlags=job_comment",
        "AccountingStorageTRES=gres/gpu",
    ]


def start_mariadb(folder: Path, user: str, start: Start, wait_for: WaitFor) -> None:
    """Make an empty database in `folder` and serve it on a socket, to `user` alone."""
    data, socket_path = folder / "mysql", folder / "run/mysqld.sock"
    made = [program("mariadb-install-db"), "--no-defaults", f"--datadir={data}", f"--user={user}"]
    made += ["--auth-root-authentication-method=socket", f"--auth-root-socket-user={user}", "--skip-test-db"]
    done = subprocess.run(made, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    options = {
        "datadir": data,
        "user": user,
        "socket": socket_path,
        "pid-file": folder / "run/mariadbd.pid",
        "innodb-buffer-pool-size": "64M",
        "innodb-log-file-size": "32M",
        # What slurmdbd asks for.
        "innodb-lock-wait-timeout": 900,
        "innodb-flush-log-at-trx-commit": 0,
    }
    given = [f"--{name}={value}" for name, value in options.items()]
    start("mariadbd", [program("mariadbd"), "--no-defaults", "--skip-networking", *given])
    client = [program("mariadb"), "--no-defaults", f"--socket={socket_path}", f"--user={user}", "--execute"]

    def is_made() -> bool:
        command = [*client, "CREATE DATABASE IF NOT EXISTS slurm_acct"]
        return subprocess.run(command, capture_output=True).returncode == 0

    wait_for(is_made, 300, "the database")


def slurmdbd(folder: Path) -> tuple[list[str], dict[str, str]]:
    """The command of slurmdbd on the database that `start_mariadb` serves, and its variables."""
    # What MariaDB's library takes as the socket of "localhost".
    return [program("slurmdbd"), "-D"], {"MYSQL_UNIX_PORT": str(folder / "run/mysqld.sock")}
