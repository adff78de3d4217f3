"""The mesh that tests put around meshgw: node proxies that follow a real istiod, never meshgw."""
