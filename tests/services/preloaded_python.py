"""Stands where an interpreter would: hands its standard streams to a fork of a loaded one, and ends as the fork does.

    python -S preloaded_python.py SOCKET [-m MODULE | PROGRAM] [ARGUMENTS]

Signals are passed on; when this process is killed, so is the fork.
"""

import contextlib
import json
import os
import pathlib
import signal
import socket
import sys

connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
order = json.dumps(
    {"command": sys.argv[2:], "folder": str(pathlib.Path.cwd()), "environment": dict(os.environ)}
).encode()
socket.send_fds(connection, [len(order).to_bytes(4, "big")], [0, 1, 2])
connection.sendall(order)
told = connection.makefile("r")
child = int(told.readline())


def pass_on(number, frame):
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, number)


for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, pass_on)
nothing = os.open(os.devnull, os.O_RDWR)
for descriptor in (0, 1, 2):
    os.dup2(nothing, descriptor)  # or the ends of its pipes would stay open here
code = int(told.readline() or 1)
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
