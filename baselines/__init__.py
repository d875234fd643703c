"""Independent detectors, trained and scored by the same data and metrics code."""
