"""The agent as one archive for a device without a network: wheels, installer, checksums."""
