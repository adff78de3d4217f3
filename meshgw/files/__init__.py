"""Objects from files: multi-document YAML and JSON, loaded, kept in force, and watched."""
