"""``sn17 wallet``: the hotkey for a cluster, without the coldkey."""
