"""A package, so that these modules are named `tests.*`: as `operator.*` they would hide the standard library."""
