"""Runs as jobs: on SLURM, or as processes of this machine."""
