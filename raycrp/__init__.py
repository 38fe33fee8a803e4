"""Self-feedback knowledge elicitation for chemical reaction prediction, on Ray."""

__version__ = "0.1.0"
