"""A real Kubernetes on one machine, for tests.

`control_plane()` starts an API server with its controllers; `Cluster` is how a test uses it. As pytest
fixtures: `control_plane` and `api` (see `sn17_cluster.plugin`).
"""
