"""Knowledge elicitation for chemical reaction prediction (SLM4CRP) as a distributed system on Ray."""

__version__ = "0.1.0"
