"""What is found out about a trained student."""
