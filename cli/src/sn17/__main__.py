"""``python -m sn17``."""

from __future__ import annotations

from sn17.entry import main

if __name__ == "__main__":
    main()
