"""``sn17 generate``: your own prompts through a gateway."""
