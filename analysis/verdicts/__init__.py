"""What may be concluded from runs: comparisons with their verdicts, and the regression gate."""
