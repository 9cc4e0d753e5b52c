"""Names that become names of files: what plugins register, and what tasks call their figures, maps and tables."""

from __future__ import annotations

from poolbench.errors import UsageError

LONGEST = 150
"""Bytes of a name. Most file systems take 255, and names of files add to it."""
RESERVED = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))})
"""Names that Windows keeps for devices, whatever follows a dot."""


def file_name(name: str, what: str) -> str:
    """Return a name that may become the name of a file, or part of one, on any system; raise UsageError for others."""
    if fault := _fault(name):
        raise UsageError(f"{what} {name[:80]!r} {fault}; choose another name")
    return name


def _fault(name: str) -> str:
    """Return why a name cannot be that of a file on every system, "" where it can."""
    if not name or len(name.encode("utf-8", "replace")) > LONGEST:
        return f"is empty or longer than {LONGEST} bytes"
    if not name.isprintable() or any(character in '/\\:<>"|?*' for character in name):
        return 'has a control character or one of / \\ : < > " | ? *'
    if name[0] == "." or name[-1] in ". ":
        return "begins with a dot, or ends with a dot or a space"
    return "is reserved by Windows" if name.partition(".")[0].strip().lower() in RESERVED else ""
