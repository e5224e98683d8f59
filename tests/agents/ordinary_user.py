"""Makes the rig as an ordinary user, sends one datagram from host to host, and prints what came, or why it could not;
and what the package can't do, for that user and for the root of a user namespace.

Run as root it becomes `nobody` first, after everything is imported: that user may not be allowed to read this Python.
"""

import ctypes
import json
import os

from rig import Host, Rig, Unavailable

import multicast

NOBODY = 65_534
GROUP, PORT = "239.195.0.1", 40_000

libc = ctypes.CDLL(None, use_errno=True)


def enter(host: Host, *kinds: str) -> None:
    """Move this process into a host: sockets stay in the one that they were opened in (setns(2))."""
    for kind in kinds:
        with open(f"/proc/{host.holder.pid}/ns/{kind}", "rb") as namespace:
            if libc.setns(namespace.fileno(), 0) < 0:
                raise OSError(ctypes.get_errno(), f"setns to the {kind} namespace of {host.name}")


def become_ordinary() -> None:
    try:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    except OSError as error:  # in a user namespace that has no such user
        raise Unavailable(f"becoming nobody: {error}") from error


def missing() -> dict[str, str]:
    return {each.name: each.why for each in multicast.capabilities() if not each}


def main() -> None:
    said = {}
    try:
        if os.geteuid() == 0:
            become_ordinary()
        os.chdir("/")
        said["uid"] = os.getuid()
        said["missing"] = missing()
        with Rig() as rig:
            enter(rig.rx, "user", "net")
            said["missing as root"] = missing()
            with multicast.open_receiver(GROUP, PORT, interface="feed0", timeout=10) as feed:
                enter(rig.tx, "net")
                with multicast.open_sender(GROUP, PORT, interface="feed0") as sender:
                    sender.send(b"from host to host")
                said["came"] = [bytes(view).decode() for view in feed.recv_batch()]
    except Unavailable as error:
        said["unavailable"] = str(error)
    print(json.dumps(said))


main()
