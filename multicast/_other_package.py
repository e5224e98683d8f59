"""The other project whose package is called `multicast`: found in this package's folder, or not.

Owns how it is recognised, and what is said then. Must not look anywhere but in this package's own folder.
"""

from __future__ import annotations

import os

# Modules that it has (seen in 2.1.1) and this package never. One alone may be somebody's stray file.
ITS_OWN = ("hear.py", "recv.py", "send.py")


def refuse(folder: str) -> None:
    """Raise ImportError if the other project was installed into this package's folder, before or after it."""
    if all(os.path.isfile(os.path.join(folder, name)) for name in ITS_OWN):
        raise ImportError(
            f"two projects are installed in {folder} and overwrite each other's files: the distribution multicast-skt, "
            "which has open_receiver(), and the distribution multicast, which is somebody else's. They can't be in one "
            "environment. Uninstall both, since uninstalling one takes files of the other along, then install the one "
            "that you want: pip uninstall multicast multicast-skt && pip install multicast-skt",
            name=__package__,  # python -m multicast then says it without a traceback
            path=folder,
        )


refuse(os.path.dirname(__file__))  # when it is imported: before a file that may be the other project's
