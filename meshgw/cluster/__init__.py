"""The application in a cluster: watched objects as facts, proxies behind Services, identities from istiod."""
