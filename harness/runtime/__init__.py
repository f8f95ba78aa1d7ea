"""What every process of ours has: a console, signals, memory."""
