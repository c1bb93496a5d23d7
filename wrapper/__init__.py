"""AWS Advanced Python Wrapper's job with another shape: one shared monitor per host, thin connections in the workers."""
