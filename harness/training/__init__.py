"""What happens on a device: data in, a trained student out."""
