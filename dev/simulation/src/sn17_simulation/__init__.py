"""The network in virtual time around the real decisions of the miner."""
