"""A package, so that its modules are `tests.*`: as `operator.*` they would hide the standard library."""
