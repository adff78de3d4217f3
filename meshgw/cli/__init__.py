"""The `meshgw` command. Verbs are modules of their own, imported when they are asked for."""
