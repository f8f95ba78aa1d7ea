"""Runs one experiment of ensemble distillation, or plans and survives many."""

__version__ = "0.1.0"
