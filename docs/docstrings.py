"""From docstrings as `help()` shows them to what Sphinx reads, reStructuredText: lists, names, links, types.

Owns how a docstring is read. Must not know any by name.
"""

import inspect
import re

import multicast

CODE = re.compile(r"`([^`]+)`")
ITEM = re.compile(r"- (\w+(?:, \w+)*): ")
MANUAL_PAGE = re.compile(r"\b([a-z_0-9]+\([2-8]\))")
RFC = re.compile(r"\bRFC (\d+)")
MARKUP = re.compile(r"[*|\\]|_(?!\w)")  # what would mean something to Sphinx

# In signatures: what is said simpler, and means the same to a reader.
TYPES = {
    r"\b_backend\.": "",
    r"\b_Socket\b": "socket.socket",
    r"\bSupportsIndex\b": "int",
    r"\bSupportsFloat\b": "float",
    r" \| EllipsisType\b": "",
    r"\bCoroutine\[Any, Any, (\w+)\]": r"Awaitable[\1]",
}


def to_rest(_app, what, name, subject, _options, lines):
    """Rewrite a docstring in place."""
    owner = name.removeprefix("multicast.").partition(".")[0]
    done, in_list = [], False
    for line in lines:
        item = line.startswith("- ")
        if done and done[-1] and ((item and not in_list) or line.startswith("Raises ")):
            done.append("")
        in_list = item or (in_list and line.startswith("  "))
        done.append(_inline(line, owner))
    if what == "class":
        done = _without_signature(done, owner)
    lines[:] = [*done, ""]


def _without_signature(lines, owner):
    """Leave out the paragraph that shows how the class is called: Sphinx puts that above, with types."""
    kept, leaving = [], False
    for line in lines:
        leaving = bool(line) and (leaving or line.startswith(f"{owner}("))
        if not leaving:
            kept.append(line)
    return kept


def _inline(line, owner):
    """Rewrite what stands in a line: code is a link where it names something public, else itself."""
    item = ITEM.match(line)
    names = "" if item is None else "- " + ", ".join(f"``{each}``" for each in item[1].split(", ")) + ": "
    pieces = CODE.split(line if item is None else line[item.end() :])
    for i, piece in enumerate(pieces):
        pieces[i] = _code(piece, owner) if i % 2 else _prose(piece)
    return names + "".join(pieces)


def _prose(text):
    text = MARKUP.sub(r"\\\g<0>", text)
    text = MANUAL_PAGE.sub(r":manpage:`\1`", text)
    return RFC.sub(r":rfc:`\1`", text)


def _code(text, owner):
    """Return a name of the same class, or of the package, as a link to it; anything else as code."""
    name = text.removesuffix("()")
    for path in (f"{owner}.{name}", name):
        if (target := _target(path)) and target != owner:
            return f":py:obj:`{text} <multicast.{target}>`"
    return f"``{text}``"


def _target(path):
    """Return where the reference has a name, None if it is nothing public."""
    head, _, member = path.partition(".")
    if head not in multicast.__all__ or member.startswith("_"):
        return None
    subject = getattr(multicast, head)
    if not member:
        return head if callable(subject) or head.isupper() else None
    if not inspect.isclass(subject) or not hasattr(subject, member):
        return None
    # A field of a value has no place of its own: its class has a list of them.
    return head if member in getattr(subject, "__slots__", ()) else path


def readable_signature(_app, what, _name, subject, _options, signature, returned):
    """Return a signature without what is of no use to a reader."""
    if what == "class" and inspect.signature(subject).parameters.keys() <= {"_", "fields"}:
        return "", None  # nobody makes one
    for pattern, plain in TYPES.items():
        signature = signature and re.sub(pattern, plain, signature)
        returned = returned and re.sub(pattern, plain, returned)
    return signature, None if what == "class" else returned
