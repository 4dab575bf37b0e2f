"""``sn17 gateway``: the keys of your clients."""
