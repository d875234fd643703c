"""Everything that compares: samplers, rivals, parts, and speed."""
