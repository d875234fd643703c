"""What people look at: the labelling page, a run's report, which image to label next."""
