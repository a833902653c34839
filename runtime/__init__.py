"""The device side: a daemon that serves signed models, updates them safely and reports what it sees."""
