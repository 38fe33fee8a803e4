"""Two runs on the same test rows."""
