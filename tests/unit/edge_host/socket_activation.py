"""The program of edge-llm-sockets.service as a process, started as systemd starts it."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import edge_host

SOURCE = Path(edge_host.__file__).parents[1]
_PROGRAM = f"import sys; sys.path.insert(0, {str(SOURCE)!r}); from edge_host.cli import main"
# systemd's protocol: descriptors from 3 on, and the process that they are for.
_LAUNCH = """
import os, sys
count = int(sys.argv[1])
high = [os.dup2(int(each), 100 + index) for index, each in enumerate(sys.argv[2 : 2 + count])]
for index, each in enumerate(high):
    os.dup2(each, 3 + index)
os.closerange(3 + count, 200)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(count))
os.execv(sys.executable, [sys.executable, "-I", "-c", *sys.argv[2 + count :]])
"""


async def start_program(
    path: Path, sockets: Sequence[socket.socket], user: int | None = None, **environ: str
) -> asyncio.subprocess.Process:
    """Start the program with these sockets, as this user or another one."""
    files = [each.fileno() for each in sockets]
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-c", _LAUNCH, str(len(files)), *map(str, files)),
        f"{_PROGRAM}; sys.exit(main(sys.argv[1:]))",
        *("sockets", str(path), str(os.getuid() if user is None else user)),
        pass_fds=files,
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


def listening(host: str = "127.0.0.1") -> socket.socket:
    """A listening socket, as systemd makes them."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.create_server(
        (host, 0), family=family, dualstack_ipv6=host == "::", reuse_port=True
    )
    made.setblocking(False)
    return made
