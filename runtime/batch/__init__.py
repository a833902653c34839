"""Many inferences from files to files: in chunks, resumable, watched."""
