"""What the leading replica tells the cluster: statuses, the proxies' objects, Events. Everything else only reads."""
