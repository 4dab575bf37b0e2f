"""The client API and the worker API over HTTP."""
