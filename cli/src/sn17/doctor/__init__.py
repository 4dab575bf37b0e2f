"""`sn17 doctor`: what stands in the way of a run, here or of a release, and what to do about it."""
