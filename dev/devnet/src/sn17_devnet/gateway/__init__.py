"""A fake of 404's gateway: nodes that lose their tasks in a restart, and states that outlive it."""
