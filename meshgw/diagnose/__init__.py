"""Answers about the pipeline's tables, for people and for programs."""
