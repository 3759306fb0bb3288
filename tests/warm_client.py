"""Run ``plumbline`` with these arguments as a fork of the process of `tests.warm_start`.

For programs that start Python themselves, such as torchrun: what they start is this, which takes a
moment, with their variables, output and exit code.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path


def main() -> int:
    """Ask for the command, and wait for its end."""
    control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control.connect(os.environ["PLUMBLINE_TESTS_WARM_START"])
    ours, theirs = socket.socketpair()
    request = {
        "arguments": sys.argv[1:],
        "script": None,
        "cwd": str(Path.cwd()),
        "environment": dict(os.environ),
        "new_session": False,
    }
    socket.send_fds(control, [json.dumps(request).encode()], [theirs.fileno(), 1, 2])
    theirs.close()
    said = ours.makefile("r")
    command = int(said.readline())
    signal.signal(signal.SIGTERM, lambda number, _: os.kill(command, number))
    code = said.read()
    return int(code) if code else 1


if __name__ == "__main__":
    sys.exit(main())
