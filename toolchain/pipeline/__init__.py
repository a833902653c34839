"""How a recipe becomes artifacts: typed stages, their cache, and the record of who made what from what."""
