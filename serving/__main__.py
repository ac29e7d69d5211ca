"""`python -m serving`: the server as a process.

Belongs here: command line, signals, exit codes. Does not belong here: the server (`server.py`).
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import logging
import os
import pathlib
import socket
import sys
from typing import TYPE_CHECKING

from contracts.settings import SettingsError, read_retailer, read_settings

if TYPE_CHECKING:
    from serving.server import Server

SWITCH_SECONDS = 0.001
"""How long a thread may keep the interpreter while another waits: background work must not hold up answers."""

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # malloc.h

EXIT_SETTINGS = 2
EXIT_PORT = 3
EXIT_STATE = 4

EPILOG = """
Without --registry and --release the registry is the one of MLFLOW_TRACKING_URI, by default MLflow's
database under CONTINUUM_HOME. A release is served only if its signature, its hashes and its golden
answers hold. While no release is approved the server takes in events, and says so at /health/ready.

exit codes: 0 stopped by a signal, 2 a setting is wrong, 3 the address is in use, 4 state cannot be used
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the server until it is stopped; returns the exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        level=options.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # Feast sets this in every process that imports it, and children inherit it: counts would then live in a
    # folder that Feast deletes. One server counts for itself alone.
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    try:
        settings = read_settings()
        retailer = read_retailer(settings)
    except SettingsError as error:
        return _fail(EXIT_SETTINGS, str(error))
    host = options.host or settings.host
    port = settings.serving_port if options.port is None else options.port
    try:
        listener = _bind(host, port)
    except OSError as error:
        if error.errno in {errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL}:
            return _fail(
                EXIT_PORT, f"{host}:{port} cannot be used: {error.strerror}; choose another with --port"
            )
        return _fail(EXIT_PORT, f"{host} is not an address of this machine")
    from serving.inbox.schema import InboxError
    from serving.releases.registry import RegistryError, open_registry
    from serving.releases.verify import ReleaseError, read_verify_key
    from serving.server import Options, Server

    address = str(options.release) if options.release else options.registry or settings.tracking_uri
    try:
        if options.verify_key is not None:
            read_verify_key(options.verify_key)
        server = Server(
            Options(
                retailer=retailer.name,
                title=retailer.title,
                simulated=retailer.simulated,
                clock=retailer.clock,
                exploration=retailer.exploration,
                inbox=settings.inbox,
                decisions=settings.decisions,
                profiles=settings.profiles,
                overview=settings.overview,
                cache=settings.releases,
                media=settings.media,
                verify_key=options.verify_key or settings.keys / "verify.pem",
                alias=options.alias,
                poll_seconds=options.poll,
                providers=options.provider or ("CPUExecutionProvider",),
                inbox_bytes=options.inbox_max_mb * 1_000_000 if options.inbox_max_mb else None,
                links=_links(settings.host, settings.dagster_port, settings.mlflow_port, settings.feast_port),
            ),
            open_registry(address, f"{retailer.name}-release"),
        )
    except (InboxError, ReleaseError, RegistryError) as error:
        listener.close()
        return _fail(EXIT_STATE, str(error))
    return _serve(server, listener, options.log_level)


def _serve(server: Server, listener: socket.socket, log_level: str) -> int:
    import uvicorn

    from serving.app import build_app

    sys.setswitchinterval(SWITCH_SECONDS)
    _keep_memory()
    host, port = listener.getsockname()[:2]
    config = uvicorn.Config(
        build_app(server),
        loop="uvloop",
        http="httptools",
        ws="none",
        access_log=False,
        log_config=None,
        log_level=log_level,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=20,
    )
    print(f"serving on http://{host}:{port}", file=sys.stderr, flush=True)
    uvicorn.Server(config).run(sockets=[listener])
    return 0


def _keep_memory() -> None:
    """Let glibc keep what a request frees: the next request needs arrays of the same sizes at once.

    With the defaults the arrays of one answer went back to the system and were faulted in again for the
    next, which made a handler 1.3 to 3 times slower where page faults are dear. Does nothing without glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in (
            (_TRIM_THRESHOLD, 512 << 20),
            (_MMAP_THRESHOLD, 32 << 20),
            (_TOP_PAD, 16 << 20),
        ):
            mallopt(option, value)


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except BaseException:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def _links(host: str, dagster_port: int, mlflow_port: int, feast_port: int) -> dict[str, str]:
    defaults = {"dagster": dagster_port, "mlflow": mlflow_port, "feast": feast_port}
    return {
        name: os.environ.get(f"CONTINUUM_LINK_{name.upper()}") or f"http://{host}:{port}"
        for name, port in defaults.items()
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving",
        description="Live recommendations from a signed release, durable event intake, decision records.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", help="address to listen on (default: CONTINUUM_HOST or 127.0.0.1)")
    parser.add_argument(
        "--port", type=_port, help="port, 0 for any free one (default: CONTINUUM_PORT or 8000)"
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--registry", help="http(s)://..., sqlite:///..., or a folder of releases")
    source.add_argument("--release", type=pathlib.Path, metavar="DIR", help="serve this release folder")
    parser.add_argument("--alias", default="champion", help="registry alias to follow (default: %(default)s)")
    parser.add_argument(
        "--poll", type=_seconds, default=3.0, metavar="SECONDS",
        help="how often to look for newer releases and histories (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--verify-key", type=pathlib.Path, metavar="PEM",
        help="Ed25519 public key of the releases (default: keys/verify.pem under CONTINUUM_HOME)",
    )  # fmt: skip
    parser.add_argument(
        "--provider", action="append", metavar="NAME",
        help="ONNX Runtime execution provider, by preference; the CPU is always the last (repeatable)",
    )  # fmt: skip
    parser.add_argument("--inbox-max-mb", type=_positive, metavar="MB", help="upper bound of the inbox file")
    levels = ["debug", "info", "warning", "error"]
    parser.add_argument("--log-level", default="info", choices=levels, help="default: %(default)s")
    return parser


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is no port; expected a number from 0 to 65535")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a positive whole number")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.05 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"'{text}' is no time span; expected 0.05 to 3600 seconds")
    return value


def _fail(code: int, message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
