"""`hf-gateway serve`: the chains of hf-gateway.toml over HTTP."""

import argparse

from hf_gateway.errors import ConfigError

TAKES_A_CHAIN = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--host", help="the address to listen at (127.0.0.1)")
    parser.add_argument("--port", type=int, help="the port to listen at (8080); 0 for a free one, which is printed")
    parser.add_argument("--addr", metavar="[HOST]:PORT", help="both in one")
    parser.add_argument("--config", metavar="FILE", help="the hf-gateway.toml to read")
    parser.add_argument("--root-path", metavar="PATH", help="the path under which a proxy serves this server")
    parser.add_argument("--workers", type=int, metavar="N", help="processes, each with its own models (1)")
    parser.add_argument(
        "--grace", type=float, metavar="SECONDS", help="seconds that requests have to end after SIGTERM (30)"
    )
    parser.add_argument(
        "--insecure-no-auth",
        action="store_true",
        default=None,
        help="serve callers without a key, also beyond loopback",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal."""
    try:
        from hf_gateway.server import process
    except ImportError as error:
        raise ConfigError(f"the server needs an extra: pip install 'hf-gateway[server]' ({error})") from None
    from hf_gateway.settings.server import ServerSettings

    host, port = arguments.host, arguments.port
    if arguments.addr is not None:
        if host is not None or port is not None:
            raise ConfigError("give --addr, or --host and --port")
        host, port = parse_address(arguments.addr)
    flags = {
        "host": host,
        "port": port,
        "root_path": arguments.root_path,
        "workers": arguments.workers,
        "grace": arguments.grace,
        "insecure_no_auth": arguments.insecure_no_auth,
    }
    return process.serve(ServerSettings.load(arguments.config, flags), arguments.config, flags)


def parse_address(text: str) -> tuple[str | None, int]:
    """Return host and port of `[HOST]:PORT`; the host is None if it is left out, and an IPv6 address is in brackets."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"--addr is [HOST]:PORT, such as :8080 or 127.0.0.1:8080, not {text!r}")
    return host.removeprefix("[").removesuffix("]") or None, int(port)
