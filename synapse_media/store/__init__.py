"""Access to stores for the plugin, the commands and ci: clients, credentials, limits, tracing, probes."""
