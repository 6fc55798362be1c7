"""Serving a bundle over HTTP: durable writes, answers in small batches, and a server."""
