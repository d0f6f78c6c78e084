"""Answering queries: what the terminal and the page share."""
