"""The models that serve: opened artifacts, the roles they have, and how they fare."""
