"""Prompt grammar of the local network and its scenes as voxels."""
