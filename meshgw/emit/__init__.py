"""From resolved gateways to Envoy resources: pure functions that return bytes."""
