"""From Kubernetes objects to resolved gateways: pure functions over tables."""
