"""Ranks networks without training them, and says how sure the ranks are."""
