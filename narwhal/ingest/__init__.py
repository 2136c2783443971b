"""From a stored file to searchable chunks: reading, chunking and the jobs that do it."""
