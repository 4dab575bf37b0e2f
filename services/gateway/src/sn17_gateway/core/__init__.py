"""What the gateway decides, as values: no clock, no storage, no network."""
