"""Does a device survive being struck at any durable step of an update? See `python -m benchmarks.crash_points --help`."""
