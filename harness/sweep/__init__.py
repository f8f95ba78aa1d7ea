"""Many runs: from one command line to a table."""
