"""Names and wire shapes that two packages share: written once, imported by producer and consumer."""
