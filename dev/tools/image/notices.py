"""Writes the licences of all installed packages into one file: notices.py FILE.

Runs in an image's build, before `trim.py` takes away what is never loaded.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
from pathlib import Path

UNNAMED = "not named in its metadata; see the text below"
TEXT = re.compile(r"(LICEN[CS]E|COPYING|NOTICE|AUTHORS)", re.IGNORECASE)


def licence_of(distribution: importlib.metadata.Distribution) -> str | None:
    """The licence that a package's metadata names, in its own words; None where it names none."""
    metadata = distribution.metadata
    if expression := metadata.get("License-Expression"):
        return expression
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in metadata.get_all("Classifier", [])
        if line.startswith("License ::")
    ]
    return ", ".join(classifiers) or metadata.get("License", "").strip().partition("\n")[0] or None


def notice(distribution: importlib.metadata.Distribution) -> str:
    """One package's entry: name, version, licence, and every licence text that it brings."""
    lines = [f"{distribution.metadata['Name']} {distribution.version}", licence_of(distribution) or UNNAMED]
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
