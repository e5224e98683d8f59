"""How Sphinx builds these pages: `python3 dev.py docs`. What becomes of docstrings is in `docstrings.py`."""

import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
# The twin has the types, and otherwise the signatures and docstrings of both (tests/test_parity.py).
os.environ["MULTICAST_BACKEND"] = "stdlib"

import docstrings

import multicast

project = "multicast"
version = release = multicast.__version__
project_copyright = "the authors, MIT license"
extensions = ["myst_parser", "sphinx.ext.autodoc"]

myst_heading_anchors = 4  # the anchors that code hosts make of headings

autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
add_module_names = False
maximum_signature_line_length = 88
manpages_url = "https://man7.org/linux/man-pages/man{section}/{page}.{section}.html"
# Names in signatures that are explained elsewhere: nothing is fetched to build these pages.
nitpick_ignore = [
    ("py:class", name)
    for name in (
        *("Any", "Callable", "Iterable", "Mapping", "Sequence", "array.array", "socket.socket"),
        *("ipaddress.IPv4Address", "ipaddress.IPv6Address"),
    )
]
autodoc_type_aliases = {"_Socket": "socket.socket"}

smartquotes = False  # quoted words are values, to be copied
html_theme = "furo"
html_title = f"multicast {version}"
html_copy_source = False
html_show_sphinx = False


def setup(app):
    """Have docstrings and signatures prepared before autodoc's directives are read."""
    app.connect("autodoc-process-docstring", docstrings.to_rest)
    app.connect("autodoc-process-signature", docstrings.readable_signature)
