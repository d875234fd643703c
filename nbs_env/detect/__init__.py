"""What is kept after training, and makes masks of any image."""
