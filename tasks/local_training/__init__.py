"""The sparse multi-endpoint network and its training, in a child process of its own."""
