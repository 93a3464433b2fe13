"""IN WHICH ORDER: one file per flow, the settings and the command line."""
