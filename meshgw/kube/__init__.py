"""I/O with a Kubernetes API server: requests, what is served, watched objects, and the lease of the one that writes."""
