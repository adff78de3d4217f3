"""The xDS server: Envoy resources as bytes in, delta and state-of-the-world ADS streams out."""
