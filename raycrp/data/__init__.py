"""Stage one: from a data set to clean task rows."""
