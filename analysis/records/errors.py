"""What analysis says where it cannot go on, and where it goes on without something."""


class AnalysisError(ValueError):
    """Input that cannot be analysed; its message is the one line that says why."""


class Mixture(AnalysisError):
    """Runs that would mislead if they shared a cell of a table; its message lists them."""


class AnalysisWarning(UserWarning):
    """Something was left out or is doubtful, and the message names it."""
