"""The unit files of systemd that stay on a host: their texts, and whether a host has them so."""
