"""What an installation consists of: permissions, classes, and the generated parts of `manifests/`."""
