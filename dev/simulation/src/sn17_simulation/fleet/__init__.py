"""A fleet in virtual time around the real operator: workers that leak, fade, hang and die, the kubelet, a
Deployment and a Prometheus.
"""
