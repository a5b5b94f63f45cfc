"""Values out to files and services that others read."""
