"""What pre-trained networks see in images."""
