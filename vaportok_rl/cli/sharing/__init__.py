"""Commands that make what others can see: a page, a repository on the hub."""
