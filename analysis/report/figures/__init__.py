"""Figures: of comparisons, of single runs, and the gallery of all that there are."""
