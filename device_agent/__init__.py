"""The process on a device that measures models for a host."""

VERSION = "0.1.0"
"""Of the distribution genba. Written here because looking it up costs a megabyte of memory."""
