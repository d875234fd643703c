"""Agents that drive the environment, and whole runs."""
