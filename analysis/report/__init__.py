"""What people read: tables, figures, the summary and the page."""
