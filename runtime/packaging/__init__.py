"""The Debian package of the device side: unit, sample configuration, maintainer scripts, and what puts them together."""
