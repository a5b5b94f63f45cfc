"""Syntax trees, scopes, florlog's calls in them, and facts about libraries."""
