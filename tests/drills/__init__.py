"""Drills of what the commands promise: killed, misused, out of space, attacked, and run for long."""
