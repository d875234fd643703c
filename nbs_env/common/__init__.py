"""What everything stands on: files that are whole, errors, settings, networks' ground, pictures."""
