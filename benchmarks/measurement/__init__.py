"""Whether measurements can be trusted, and what the agent costs."""
