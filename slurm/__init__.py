"""Launcher presets for clusters, and a real SLURM on one machine."""
