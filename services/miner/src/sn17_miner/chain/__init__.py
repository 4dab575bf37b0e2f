"""Who is registered, who validates, how the miner stands: from a file, over HTTP or from the chain."""
