"""Answering queries: code shared by the terminal and the page."""
