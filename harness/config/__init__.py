"""What a run is asked to be: its options, and how they become one plain dict."""


class ConfigError(ValueError):
    """A configuration that cannot be run; its message is the one line that says so."""
