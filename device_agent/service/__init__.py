"""The agent as a service of systemd: what it tells the manager, its unit, and how it is set up."""
