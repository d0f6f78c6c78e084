"""What to search: one module a table or figure of the paper."""
