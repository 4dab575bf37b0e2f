"""The way into a cluster: which kubeconfig, context and namespace, and the pods of a release."""
