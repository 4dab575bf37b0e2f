"""The outside: Kubernetes, Prometheus, the workers, and local replacements for the first two."""
