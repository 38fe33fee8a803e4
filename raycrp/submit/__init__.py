"""A run as a job of a Ray cluster: checked first, followed, started again when lost."""
