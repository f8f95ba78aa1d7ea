"""Reads run records: tables, contrasts, figures, report, regression gate. Never imports torch."""
