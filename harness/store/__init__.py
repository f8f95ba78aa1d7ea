"""What lies on disk, and how much of it is believed."""
