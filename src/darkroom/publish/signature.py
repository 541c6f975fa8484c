"""Signatures with SSH keys, as Git makes them: by OpenSSH's own ssh-keygen.

Who may sign is told by a file of allowed signers (`man ssh-keygen`, ALLOWED SIGNERS), which Git has as
`gpg.ssh.allowedSignersFile`: a line `alice@example.org ssh-ed25519 AAAA...` for each key.
"""

import os
import shutil
import subprocess
from pathlib import Path

from darkroom.store.found import kind_of, read_bytes, shown

# Says what a signature is for: one that was made for a commit or a login is none of a run.
NAMESPACE = "darkroom"
_MAX_BYTES = 1 << 28
_TIMEOUT_S = 60


def sign(path: Path, key: Path) -> Path:
    """Sign a file with a private key, or with a public one whose private one an agent holds; returns `path`.sig.

    Asks for the key's passphrase, if it has one.

    Raises:
        ValueError: it cannot be signed; in ssh-keygen's words.
    """
    made = path.with_name(f"{path.name}.sig")
    made.unlink(missing_ok=True)
    done = subprocess.run([_program(), "-Y", "sign", "-f", str(key), "-n", NAMESPACE, str(path)])
    if done.returncode or not made.is_file():
        raise ValueError(f"{key}: {path} was not signed with it; ssh-keygen says why above")
    return made


def check_signature(path: Path, signature: Path, signers: Path) -> str:
    """Who of the allowed signers signed a file.

    Raises:
        ValueError: nobody of them did, or a file cannot be read.
    """
    if kind_of(os.path.realpath(signers)) != "file":
        raise ValueError(f"{shown(signers)}: no file; it should hold a line for each allowed signer")
    data = read_bytes(path, _MAX_BYTES)
    given = ["-f", str(signers), "-s", str(signature)]
    found = _run([*given[:2], "-Y", "find-principals", *given[2:]], b"")
    names = found.stdout.decode(errors="replace").splitlines()
    if found.returncode or not names:
        raise ValueError(
            f"{shown(signature)}: nobody of {shown(signers)} signed {shown(path)} ({_words(found)})"
        )
    for name in names:
        done = _run(["-Y", "verify", *given, "-I", name, "-n", NAMESPACE], data)
        if not done.returncode:
            return f"{shown(name)} ({_key(done)})"
    raise ValueError(
        f"{shown(signature)}: is no signature of {shown(path)} by {shown(names[0])} ({_words(done)})"
    )


def _run(arguments: list[str], data: bytes) -> "subprocess.CompletedProcess[bytes]":
    try:
        return subprocess.run(
            [_program(), *arguments], input=data, capture_output=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"ssh-keygen {' '.join(arguments)}: no answer within {_TIMEOUT_S} s") from None


def _program() -> str:
    found = shutil.which("ssh-keygen")
    if found is None:
        raise ValueError("no ssh-keygen here, which signs and checks: apt-get install openssh-client")
    return found


def _words(done: "subprocess.CompletedProcess[bytes]") -> str:
    lines = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
    return shown(lines[0]) if lines else f"ssh-keygen ended with {done.returncode}"


def _key(done: "subprocess.CompletedProcess[bytes]") -> str:
    """`Good "darkroom" signature for alice with ED25519 key SHA256:...` without its beginning."""
    return shown(done.stdout.decode(errors="replace").strip().rpartition(" with ")[2])
