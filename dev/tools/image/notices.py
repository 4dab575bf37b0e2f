"""Writes the licences of all installed packages into one file: notices.py FILE.

Runs in an image's build, before `trim.py` takes away what is never loaded.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
from pathlib import Path

TEXT = re.compile(r"(LICEN[CS]E|COPYING|NOTICE|AUTHORS)", re.IGNORECASE)


def licence(distribution: importlib.metadata.Distribution) -> str:
    """The licence in the words of a package's metadata, one line."""
    metadata = distribution.metadata
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in metadata.get_all("Classifier", [])
        if line.startswith("License ::")
    ]
    named = metadata.get("License-Expression") or ", ".join(classifiers) or metadata.get("License") or ""
    return named.strip().partition("\n")[0] or "not named in its metadata; see the text below"


def notice(distribution: importlib.metadata.Distribution) -> str:
    """One package's entry: name, version, licence, and every licence text that it brings."""
    lines = [f"{distribution.metadata['Name']} {distribution.version}", licence(distribution)]
    for file in distribution.files or ():
        path = Path(str(file.locate()))
        if ".dist-info" in str(file) and TEXT.match(path.name) and path.is_file():
            lines += ["", path.read_text(errors="replace").strip()]
    return "\n".join(lines)


def main(target: str) -> None:
    rule = "\n\n" + "=" * 78 + "\n\n"
    found = {
        str(each.metadata["Name"]).lower(): each
        for each in importlib.metadata.distributions()
        if not str(each.metadata["Name"]).lower().startswith("sn17")
    }
    head = "Packages in this image beside sn17 itself, with their licences."
    Path(target).write_text(rule.join([head, *(notice(found[name]) for name in sorted(found))]) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
