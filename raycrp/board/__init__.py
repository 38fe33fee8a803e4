"""The board: a page that follows a run by its run folder alone, served or as a file."""
