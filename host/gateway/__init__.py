"""Where devices dial in. Imported where it is needed: it brings gRPC."""
