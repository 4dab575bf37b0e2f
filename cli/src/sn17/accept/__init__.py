"""``sn17 accept`` and ``sn17 watch``: does it do what the design promises."""
