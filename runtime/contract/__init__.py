"""What crosses a process or a wire, and nothing else: messages, artifacts, topics, trust, errors."""
