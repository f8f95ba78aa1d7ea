"""What runs left behind, read and checked: one row a run, and which rows may be compared."""
