"""Stage eight: one self-contained HTML page."""
