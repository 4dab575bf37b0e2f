"""The outside: Kubernetes, Prometheus, the workers, and local stand-ins for the first two."""
