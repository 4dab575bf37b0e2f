"""The model as a process of its own: started, watched, swapped and ended by the service process.

The service (HTTP, keys, kept results, metrics) stays for the life of the container and never imports torch.
What leaks, hangs and gets sticky device errors lives in a model process, which can go at any time.
"""
