"""The way to a store, for the plugin, the commands and ci alike: clients, credentials, limits, tracing, probes."""
