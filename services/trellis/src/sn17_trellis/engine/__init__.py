"""TRELLIS inference in plain torch: official checkpoints in, gaussians out. No web, no settings."""
