"""Certificates: their format, how they are built, and how they are checked."""
