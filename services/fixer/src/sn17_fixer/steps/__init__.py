"""The stages of the policies: each a pure function from a splat to a :class:`~sn17_fixer.model.Repair`."""
